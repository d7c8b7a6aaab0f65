"""Compiled loops and matrix products that are faster than those of torch."""
