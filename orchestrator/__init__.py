"""The platform: sweeps of SupSup experiments, planned, run, recorded and reported."""
