"""What was asked: sweep files and overrides, strictly typed."""
