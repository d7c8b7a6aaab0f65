"""Helpers that every other package uses, for files, locks, content keys, message texts and the environment."""
