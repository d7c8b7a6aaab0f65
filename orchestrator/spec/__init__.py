"""Reads and checks sweep files and overrides, with strict types."""
