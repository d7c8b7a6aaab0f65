"""The algorithm of scenario NNs: streams, allocation tests and the allocator."""
