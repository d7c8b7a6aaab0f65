"""Runs training groups as Ray Tune trials or in this process, and gives their jobs to workers."""
