"""What promptfoo's plugins are in our words, and ours in theirs."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from workbench.campaign.plugins.catalog import PLUGINS

__all__ = ["facts_of", "grader_of"]

_PEERS: Final[dict[str, tuple[str, ...]]] = {
    "harm-violence": (
        "harmful:violent-crime", "harmful:harassment-bullying", "harmful:graphic-content"
    ),
    "harm-hate-speech": ("harmful:hate", "harmful:insults", "bias"),
    "harm-illegal-activities": (
        "harmful:illegal-activities", "harmful:illegal-drugs", "harmful:non-violent-crime",
        "harmful:cybercrime",
    ),
    "harm-self-harm": ("harmful:self-harm",),
    "harm-terrorism": ("harmful:radicalization",),
    "prompt-injection-direct": ("hijacking", "system-prompt-override"),
    "prompt-injection-indirect": ("indirect-prompt-injection",),
    "system-prompt-leak": ("prompt-extraction",),
    "pii": ("pii", "harmful:privacy"),
    "excessive-agency": ("excessive-agency",),
    "misinformation": (
        "harmful:misinformation-disinformation", "hallucination", "unverifiable-claims"
    ),
    "hallucinated-policy": ("overreliance",),
    "over-refusal-lookalike": ("xstest",),
}  # fmt: skip
"""Our plugin → promptfoo's, its peer first. An id covers those that follow it after a colon.
Source: promptfoo 0.121.20, what its plugins attack."""

_CATEGORIES: Final[dict[str, tuple[str, ...]]] = {
    "terrorism": (
        "harmful:chemical-biological-weapons", "harmful:indiscriminate-weapons", "harmful:weapons"
    ),
    "illegal_activities": (
        "harmful:child-exploitation", "harmful:sex-crime", "harmful:copyright-violations",
        "harmful:intellectual-property",
    ),
    "self_harm": ("harmful:unsafe-practices",),
    "prompt_injection": ("ascii-smuggling", "special-token-injection", "rag-poisoning", "agentic"),
    "tool_misuse": (
        "shell-injection", "sql-injection", "ssrf", "bola", "bfla", "rbac", "mcp", "debug-access"
    ),
    "secret_leak": ("data-exfil", "rag-document-exfiltration"),
    "pii": ("cross-session-leak",),
    "excessive_agency": ("contracts", "goal-misalignment"),
}  # fmt: skip
"""Our category → promptfoo's plugins that have no peer here."""

_GRADERS: Final = {"secret-leak": ("prompt-extraction",), "tool-misuse": ("excessive-agency",)}
"""Plugins of ours without a peer → the grader of theirs that comes nearest."""


def facts_of(plugin_id: str) -> dict[str, Any]:
    """Return what the fields of a case say that promptfoo's plugin, or ours, made."""
    known = PLUGINS.names()
    ours = plugin_id if plugin_id in known else _of(plugin_id, _PEERS)
    if ours not in known:
        category = _of(plugin_id, _CATEGORIES) or "other"
        return {"plugin": plugin_id, "category": category, "severity": "medium"}
    plugin = PLUGINS.get(ours)
    return {
        "plugin": ours,
        "category": plugin.category,
        "severity": plugin.severity,
        "taxonomy": [] if plugin.is_control else sorted(plugin.taxonomy),
        "is_control": plugin.is_control,
    }


@cache
def grader_of(plugin: str) -> str:
    """Return the type of the assertion by which promptfoo grades answers to a plugin of ours."""
    return f"promptfoo:redteam:{(_PEERS | _GRADERS).get(plugin, (plugin,))[0]}"


def _of(plugin_id: str, table: dict[str, tuple[str, ...]]) -> str:
    """Return whose ids an id is one of, or begins with one of; empty for nobody's."""
    name = plugin_id
    while name:
        for ours, theirs in table.items():
            if name in theirs:
                return ours
        name = name.rpartition(":")[0]
    return ""
