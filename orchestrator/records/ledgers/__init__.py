"""Ledgers: the append-only logs of training groups, their files, and their snapshots in a storage."""
