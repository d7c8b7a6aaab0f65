"""Everything that is stored permanently: ledgers, ledger snapshots, and the artifact store."""
