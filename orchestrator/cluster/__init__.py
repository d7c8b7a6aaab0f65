"""Ray clusters and jobs, from outside."""
