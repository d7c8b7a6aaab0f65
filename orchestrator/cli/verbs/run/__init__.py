"""Verbs that run sweeps."""
