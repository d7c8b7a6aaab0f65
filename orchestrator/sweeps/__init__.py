"""A sweep: its training groups, its output folder, its cost."""
