"""Reads a sweep's results from its ledgers: status, log, report, loaded runs and exported runs."""
