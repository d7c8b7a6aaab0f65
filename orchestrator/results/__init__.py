"""What came out of a sweep, read from its ledgers alone."""
