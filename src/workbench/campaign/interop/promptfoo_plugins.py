"""What promptfoo's plugins are in our words, and ours in theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from workbench.campaign.plugins.catalog import PLUGINS

__all__ = ["Facts", "facts_of", "grader_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a plugin."""

    plugin: str
    category: str
    severity: Literal["low", "medium", "high", "critical"]
    taxonomy: tuple[str, ...] = ()
    is_control: bool = False


_OURS: Final[dict[str, str]] = {
    "harmful:violent-crime": "harm-violence",
    "harmful:hate": "harm-hate-speech",
    "harmful:illegal-activities": "harm-illegal-activities",
    "harmful:self-harm": "harm-self-harm",
    "harmful:radicalization": "harm-terrorism",
    "hijacking": "prompt-injection-direct",
    "indirect-prompt-injection": "prompt-injection-indirect",
    "prompt-extraction": "system-prompt-leak",
    "pii": "pii",
    "excessive-agency": "excessive-agency",
    "harmful:misinformation-disinformation": "misinformation",
    "overreliance": "hallucinated-policy",
    "harmful:harassment-bullying": "harm-violence",
    "harmful:graphic-content": "harm-violence",
    "harmful:illegal-drugs": "harm-illegal-activities",
    "harmful:non-violent-crime": "harm-illegal-activities",
    "harmful:cybercrime": "harm-illegal-activities",
    "harmful:insults": "harm-hate-speech",
    "bias": "harm-hate-speech",
    "system-prompt-override": "prompt-injection-direct",
    "hallucination": "misinformation",
    "unverifiable-claims": "misinformation",
    "harmful:privacy": "pii",
    "xstest": "over-refusal-lookalike",
}
"""promptfoo's id → our plugin; the first of ours is the peer of a plugin that is written. An id
covers those that follow it after a colon. Source: promptfoo 0.121.20, what its plugins attack."""

_OTHERS: Final[dict[str, tuple[str, Literal["low", "medium", "high", "critical"]]]] = {
    "harmful:chemical-biological-weapons": ("terrorism", "high"),
    "harmful:indiscriminate-weapons": ("terrorism", "medium"),
    "harmful:weapons": ("terrorism", "low"),
    "harmful:child-exploitation": ("illegal_activities", "critical"),
    "harmful:sex-crime": ("illegal_activities", "high"),
    "harmful:copyright-violations": ("illegal_activities", "low"),
    "harmful:intellectual-property": ("illegal_activities", "medium"),
    "harmful:unsafe-practices": ("self_harm", "low"),
    "ascii-smuggling": ("prompt_injection", "low"),
    "special-token-injection": ("prompt_injection", "medium"),
    "rag-poisoning": ("prompt_injection", "medium"),
    "agentic:memory-poisoning": ("prompt_injection", "high"),
    "shell-injection": ("tool_misuse", "high"),
    "sql-injection": ("tool_misuse", "high"),
    "ssrf": ("tool_misuse", "high"),
    "bola": ("tool_misuse", "high"),
    "bfla": ("tool_misuse", "high"),
    "rbac": ("tool_misuse", "high"),
    "mcp": ("tool_misuse", "high"),
    "debug-access": ("tool_misuse", "high"),
    "data-exfil": ("secret_leak", "high"),
    "rag-document-exfiltration": ("secret_leak", "medium"),
    "cross-session-leak": ("pii", "medium"),
    "contracts": ("excessive_agency", "medium"),
    "goal-misalignment": ("excessive_agency", "low"),
}
"""Ids without a peer here → category and promptfoo's severity of a success."""

_GRADERS: Final[dict[str, str]] = {
    "secret-leak": "prompt-extraction",
    "tool-misuse": "excessive-agency",
}
"""Plugins of ours without a peer → the grader of theirs that comes nearest."""


def facts_of(plugin_id: str) -> Facts:
    """Return what is known of promptfoo's plugin, or of ours; category ``other`` where nothing."""
    if plugin_id in PLUGINS.names():
        return _ours(plugin_id)
    for name in _prefixes(plugin_id):
        if name in _OURS and _OURS[name] in PLUGINS.names():
            return _ours(_OURS[name])
        if name in _OTHERS:
            category, severity = _OTHERS[name]
            return Facts(plugin=plugin_id, category=category, severity=severity)
    return Facts(plugin=plugin_id, category="other", severity="medium")


def grader_of(plugin: str) -> str:
    """Return the type of the assertion by which promptfoo grades answers to a plugin of ours."""
    peer = next((name for name, ours in _OURS.items() if ours == plugin), plugin)
    theirs = _GRADERS.get(plugin, peer)
    return f"promptfoo:redteam:{theirs}"


def _ours(name: str) -> Facts:
    plugin = PLUGINS.get(name)
    return Facts(
        plugin=name,
        category=plugin.category,
        severity=plugin.severity,
        taxonomy=() if plugin.is_control else tuple(sorted(plugin.taxonomy)),
        is_control=plugin.is_control,
    )


def _prefixes(plugin_id: str) -> list[str]:
    parts = plugin_id.split(":")
    return [":".join(parts[:size]) for size in range(len(parts), 0, -1)]
