"""Writes MLflow runs and starts MLflow servers. No other package imports MLflow."""
