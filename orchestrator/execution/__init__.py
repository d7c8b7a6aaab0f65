"""A training group's way through Ray."""
