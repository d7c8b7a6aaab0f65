"""Compiled loops and matrix products that are faster than torch's own."""
