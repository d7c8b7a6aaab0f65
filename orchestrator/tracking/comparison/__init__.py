"""Compares the MLflow runs of a sweep with its ledgers, and writes runs that contradict a ledger anew."""
