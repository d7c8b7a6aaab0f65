"""Sweeps: their runs and training groups, their records on disk, their cost, and their way to and from a storage."""
