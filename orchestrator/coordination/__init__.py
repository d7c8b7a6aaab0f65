"""The messages between coordinators and workers, and the coordinator for scenarios with given task identities."""
