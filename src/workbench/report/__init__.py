"""Self-contained HTML pages from what the store holds."""
