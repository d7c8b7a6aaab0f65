"""Checks Ray cluster files, and controls sweeps that run as Ray jobs on a remote cluster."""
