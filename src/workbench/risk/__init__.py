"""Risks of software and of models in one register: evidence, score, decision, due date."""
