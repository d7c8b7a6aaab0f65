"""What lasts: ledgers, their snapshots, and the artifact store."""
