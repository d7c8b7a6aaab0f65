"""Stores ledgers, ledger snapshots and artifacts permanently, on disk or in an object store."""
