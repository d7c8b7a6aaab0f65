"""Scenario NNs without a platform: streams, allocation tests, the allocator."""
