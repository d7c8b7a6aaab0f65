"""Helpers that every other package uses: files, locks, content keys, wording, the environment."""
