"""What every room stands on: errors, identity, settings, provenance."""
