"""Documents beside the evidence: read, cut, found again."""
