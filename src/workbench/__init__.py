"""Workbench: a Jupyter-centred research workbench for LLM prompt safety."""

__version__ = "0.1.0"
