"""Embedding-space diffusion sanitizers."""
