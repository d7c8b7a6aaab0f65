"""Plans the runs and training groups of sweeps, records sweeps on disk, estimates their cost, and transfers sweeps
between an output and a storage."""
