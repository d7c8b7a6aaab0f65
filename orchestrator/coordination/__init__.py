"""What coordinators and workers tell each other, and the coordinator of given tasks."""
