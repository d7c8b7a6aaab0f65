"""Runs training groups, as Ray Tune trials or in the current process, and gives the groups' jobs to workers."""
