"""Scenario NNs: rounds of decisions where no task identity is given."""
