"""The messages between coordinators and workers, and the coordinator for all scenarios except NNs."""
