"""Runs training groups: launches them as Ray Tune trials or in this process, and gives jobs to workers."""
