"""Sweeps: plans their runs and training groups, records them on disk, estimates their cost, and uploads them to and
downloads them from a storage."""
