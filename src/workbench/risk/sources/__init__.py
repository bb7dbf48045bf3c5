"""Where evidence comes from, one module per publisher, all behind one face."""
