"""Benchmarks of speed and memory. Each compares the platform with a peer that is measured in the same run."""
