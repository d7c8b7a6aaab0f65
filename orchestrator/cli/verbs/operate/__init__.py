"""Verbs that act on running sweeps."""
