"""Ids of public taxonomies that test cases carry, each with its meaning."""

from __future__ import annotations

__all__ = ["TAXONOMY"]

TAXONOMY: dict[str, str] = {
    "LLM01:2025": "Prompt injection: input changes the model's behavior in unintended ways",
    "LLM09:2025": "Misinformation: false or misleading output that appears credible",
    "AML.T0048.002": "External harms: societal harm",
    "AML.T0048.003": "External harms: user harm",
    "AML.T0051": "LLM prompt injection",
    "AML.T0052": "Phishing",
    "AML.T0054": "LLM jailbreak",
    "AML.T0068": "LLM prompt obfuscation",
}
"""Source: OWASP Top 10 for LLM Applications 2025; MITRE ATLAS (read 2026-11)."""
