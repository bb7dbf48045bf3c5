"""Records, run table, artifacts and ledger."""
