"""Compiled loops and matrix products, for what torch computes slowly."""
