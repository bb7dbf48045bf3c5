"""Ids that test cases carry, from three public lists of what goes wrong with language models."""

from __future__ import annotations

from typing import Final

__all__ = ["OWASP", "TAXONOMY"]

OWASP: Final[dict[str, str]] = {
    "LLM01:2025": "Prompt Injection",
    "LLM02:2025": "Sensitive Information Disclosure",
    "LLM03:2025": "Supply Chain",
    "LLM04:2025": "Data and Model Poisoning",
    "LLM05:2025": "Improper Output Handling",
    "LLM06:2025": "Excessive Agency",
    "LLM07:2025": "System Prompt Leakage",
    "LLM08:2025": "Vector and Embedding Weaknesses",
    "LLM09:2025": "Misinformation",
    "LLM10:2025": "Unbounded Consumption",
}
"""All ten. Source: OWASP Top 10 for LLM Applications 2025."""

_ATLAS: Final[dict[str, str]] = {
    "AML.T0048": "External Harms",
    "AML.T0048.000": "External Harms: Financial Harm",
    "AML.T0048.001": "External Harms: Reputational Harm",
    "AML.T0048.002": "External Harms: Societal Harm",
    "AML.T0048.003": "External Harms: User Harm",
    "AML.T0051": "LLM Prompt Injection",
    "AML.T0051.000": "LLM Prompt Injection: Direct",
    "AML.T0051.001": "LLM Prompt Injection: Indirect",
    "AML.T0052": "Phishing",
    "AML.T0053": "AI Agent Tool Invocation",
    "AML.T0054": "LLM Jailbreak",
    "AML.T0055": "Unsecured Credentials",
    "AML.T0056": "Extract LLM System Prompt",
    "AML.T0057": "LLM Data Leakage",
    "AML.T0060": "Publish Hallucinated Entities",
    "AML.T0062": "Discover LLM Hallucinations",
    "AML.T0065": "LLM Prompt Crafting",
    "AML.T0067": "LLM Trusted Output Components Manipulation",
    "AML.T0067.000": "LLM Trusted Output Components Manipulation: Citations",
    "AML.T0068": "LLM Prompt Obfuscation",
    "AML.T0069.002": "Discover LLM System Information: System Prompt",
    "AML.T0077": "LLM Response Rendering",
    "AML.T0083": "Credentials from AI Agent Configuration",
    "AML.T0086": "Exfiltration via AI Agent Tool Invocation",
    "AML.T0092": "Manipulate User LLM Chat History",
    "AML.T0101": "Data Destruction via AI Agent Tool Invocation",
}
"""Source: MITRE ATLAS 5.6.0; a sub-technique after its technique."""

_NIST: Final[dict[str, str]] = {
    f"NIST.AI.600-1:2.{number}": name
    for number, name in enumerate(
        (
            "CBRN Information or Capabilities",
            "Confabulation",
            "Dangerous, Violent, or Hateful Content",
            "Data Privacy",
            "Environmental Impacts",
            "Harmful Bias and Homogenization",
            "Human-AI Configuration",
            "Information Integrity",
            "Information Security",
            "Intellectual Property",
            "Obscene, Degrading, and/or Abusive Content",
            "Value Chain and Component Integration",
        ),
        start=1,
    )
}
"""Source: NIST AI 600-1, Artificial Intelligence Risk Management Framework: Generative Artificial
Intelligence Profile, July 2024, sections 2.1 to 2.12."""

TAXONOMY: Final[dict[str, str]] = OWASP | _ATLAS | _NIST
"""Id → name. OWASP Top 10 for LLM Applications 2025, MITRE ATLAS 5.6.0, NIST AI 600-1 (2024), the
last under its section."""
