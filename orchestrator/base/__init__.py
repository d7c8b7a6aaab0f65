"""Small things without a subject: files, locks, content keys, wording, the environment."""
