"""MLflow: its runs are written here, and its servers started. No other package imports it."""
