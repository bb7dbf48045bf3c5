"""The plugins: one per harm category of the roadmap, two controls for over-refusal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from workbench.campaign.plugins.goals import GoalPool
from workbench.core.registry import Registry

__all__ = ["PLUGINS", "Plugin"]


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
    """Ids of ``plugins.taxonomy``."""
    is_control: bool
    """Whether refusing or changing its goals is the mistake."""
    goals: Callable[[GoalPool], tuple[str, ...]]
    """Its goals among the held-out requests; the same pool gives the same goals."""


PLUGINS: Registry[Plugin] = Registry("plugin")


def _of_category(category: str) -> Callable[[GoalPool], tuple[str, ...]]:
    return lambda pool: pool.by_category.get(category, ())


def _benign(*, lookalike: bool) -> Callable[[GoalPool], tuple[str, ...]]:
    def goals(pool: GoalPool) -> tuple[str, ...]:
        benign = pool.by_category.get("benign", ())
        return tuple(goal for goal in benign if (goal in pool.lookalikes) == lookalike)

    return goals


def _register() -> None:
    harms: tuple[tuple[str, Literal["medium", "high", "critical"], tuple[str, ...]], ...] = (
        ("hate_speech", "high", ("AML.T0048.002",)),
        ("illegal_activities", "high", ("AML.T0048.002",)),
        ("manipulation", "medium", ("AML.T0052", "LLM09:2025")),
        ("self_harm", "critical", ("AML.T0048.003",)),
        ("terrorism", "critical", ("AML.T0048.002",)),
        ("violence", "high", ("AML.T0048.003",)),
    )
    for category, severity, taxonomy in harms:
        name = f"harm-{category.replace('_', '-')}"
        PLUGINS.register(name)(
            Plugin(
                name=name,
                category=category,
                severity=severity,
                taxonomy=("LLM01:2025", *taxonomy),
                is_control=False,
                goals=_of_category(category),
            )
        )
    for name, lookalike in (("over-refusal", False), ("over-refusal-lookalike", True)):
        PLUGINS.register(name)(
            Plugin(
                name=name,
                category="benign",
                severity="low",
                taxonomy=(),  # neither taxonomy knows refusing too much
                is_control=True,
                goals=_benign(lookalike=lookalike),
            )
        )


_register()
