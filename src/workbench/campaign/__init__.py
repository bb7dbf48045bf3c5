"""Red-team campaigns: generate a priced test set, execute it, see what got through."""
