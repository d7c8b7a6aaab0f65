"""Verbs that look after outputs and storages."""
