"""How well a learner answers: protocols and metrics."""
