"""The results of a sweep, read from its ledgers: status, log, report, loaded and exported runs."""
