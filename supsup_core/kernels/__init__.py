"""Compiled loops and matrix products, where torch is slow."""
