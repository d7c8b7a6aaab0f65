"""Verbs that plan sweeps and read results."""
