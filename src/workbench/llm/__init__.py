"""The only way to spend on a model: route, cache, reserve, limit, send, settle, enter in the ledger."""
