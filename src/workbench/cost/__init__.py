"""What things cost, and whether they are worth it."""
