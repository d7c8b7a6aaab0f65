"""Scenario NNs (task not given in training, not given at inference, shared labels): rounds of mask decisions."""
