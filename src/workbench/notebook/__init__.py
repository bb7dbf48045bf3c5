"""Experiments as DAGs of notebook runs."""
