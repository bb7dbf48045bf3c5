"""Pair sets: sources, grammar, cleaning, leak-free splits."""
