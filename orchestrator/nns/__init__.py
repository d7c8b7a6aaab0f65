"""Scenario NNs (the task is never given, labels are shared): the coordinator, its rounds, and the training of masks."""
