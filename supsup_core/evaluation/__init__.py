"""Evaluation of a learner: protocols, counts and metrics."""
