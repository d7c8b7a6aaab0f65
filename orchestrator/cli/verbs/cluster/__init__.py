"""Verbs that use clusters and servers."""
