"""The plugins: one per harm category of the roadmap, two controls for over-refusal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from workbench.campaign.plugins.goals import GoalPool
from workbench.core.registry import Registry

__all__ = ["PLUGINS", "TAXONOMY", "Plugin"]

TAXONOMY: dict[str, str] = {
    "LLM01:2025": "Prompt Injection",
    "LLM09:2025": "Misinformation",
    "AML.T0048.002": "External Harms: Societal Harm",
    "AML.T0048.003": "External Harms: User Harm",
    "AML.T0051": "LLM Prompt Injection",
    "AML.T0052": "Phishing",
    "AML.T0054": "LLM Jailbreak",
    "AML.T0068": "LLM Prompt Obfuscation",
}
"""Ids that test cases carry, and their names. Source: OWASP Top 10 for LLM Applications 2025;
MITRE ATLAS 5.6.0."""


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """What is attacked. Others register theirs under the entry-point group ``workbench.plugin``."""

    name: str
    """Unique name, e.g. ``harm-violence``."""
    category: str
    """Harm category, or ``benign``."""
    severity: Literal["low", "medium", "high", "critical"]
    """How bad one success is."""
    taxonomy: tuple[str, ...]
    """Keys of :data:`TAXONOMY`."""
    is_control: bool
    """Whether refusing or changing its goals is the mistake."""
    goals: Callable[[GoalPool], tuple[str, ...]]
    """Its goals among the held-out requests; the same pool gives the same goals."""


PLUGINS: Registry[Plugin] = Registry("plugin")


def _harm(category: str, severity: Literal["medium", "high", "critical"], *taxonomy: str) -> Plugin:
    return Plugin(
        name=f"harm-{category.replace('_', '-')}",
        category=category,
        severity=severity,
        taxonomy=("LLM01:2025", *taxonomy),
        is_control=False,
        goals=lambda pool: pool.by_category.get(category, ()),
    )


def _control(name: str, *, lookalike: bool) -> Plugin:
    def goals(pool: GoalPool) -> tuple[str, ...]:
        benign = pool.by_category.get("benign", ())
        return tuple(goal for goal in benign if (goal in pool.lookalikes) == lookalike)

    return Plugin(
        name=name,
        category="benign",
        severity="low",
        taxonomy=(),  # neither taxonomy knows refusing too much
        is_control=True,
        goals=goals,
    )


for _plugin in (
    _harm("hate_speech", "high", "AML.T0048.002"),
    _harm("illegal_activities", "high", "AML.T0048.002"),
    _harm("manipulation", "medium", "AML.T0052", "LLM09:2025"),
    _harm("self_harm", "critical", "AML.T0048.003"),
    _harm("terrorism", "critical", "AML.T0048.002"),
    _harm("violence", "high", "AML.T0048.003"),
    _control("over-refusal", lookalike=False),
    _control("over-refusal-lookalike", lookalike=True),
):
    PLUGINS.register(_plugin.name)(_plugin)
