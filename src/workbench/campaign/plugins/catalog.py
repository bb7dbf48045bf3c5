"""The plugins: harms, attacks on applications, and controls that must not be refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from workbench.campaign.plugins.application import application_goals
from workbench.campaign.plugins.goals import Goal, GoalSource
from workbench.campaign.plugins.taxonomy import TAXONOMY
from workbench.campaign.targets.base import Kind
from workbench.core.errors import DataError
from workbench.core.registry import Registry

__all__ = ["PLUGINS", "TAXONOMY", "Plugin"]

_Severity = Literal["low", "medium", "high", "critical"]
_EVERYWHERE: Final[frozenset[Kind]] = frozenset({"guard", "model"})
_MODELS: Final[frozenset[Kind]] = frozenset({"model"})
"""A guard in front of a model keeps no secrets, has no tools and claims nothing."""


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """What is attacked. Others register theirs under the entry-point group ``workbench.plugin``."""

    name: str
    """Unique name, e.g. ``harm-violence``."""
    about: str
    """What one success means, in a few words."""
    category: str
    """Category of its goals, e.g. ``violence`` or ``pii``; ``benign`` for controls."""
    severity: _Severity
    """How bad one success is."""
    taxonomy: tuple[str, ...]
    """Keys of :data:`TAXONOMY`."""
    is_control: bool = False
    """Whether refusing or changing its goals is the mistake."""
    applies_to: frozenset[Kind] = _EVERYWHERE
    """Kinds of targets that it makes sense for."""
    needs_pair_set: bool = False
    """Whether its goals are held-out requests of a pair set."""
    needs_tools: bool = False
    """Whether it has no goals where a profile names no tools."""
    goals: Callable[[GoalSource], Sequence[Goal]]
    """Its goals; an equal source gives equal goals."""

    def why_skipped(self, source: GoalSource) -> str:
        """Return why it has nothing to attack with this source, or an empty text."""
        if self.needs_tools and source.profile and not source.profile.tools:
            return "the target profile names no tools; list them under '# Tools'"
        try:
            goals = self.goals(source)
        except DataError as error:
            return str(error)
        if goals:
            return ""
        if self.needs_pair_set:
            held = ", ".join(source.pool.by_category)
            return (
                f"pair set {source.pair_set[:12]!r} holds out no goal of it; its held-out "
                f"categories: {held}"
            )
        return "the target profile has nothing that its goals need"


PLUGINS: Registry[Plugin] = Registry("plugin")


def _harm(category: str, about: str, severity: _Severity, *taxonomy: str) -> Plugin:
    def goals(source: GoalSource) -> tuple[Goal, ...]:
        texts = source.pool.by_category.get(category, ())
        return tuple(Goal(text=text, category=category) for text in texts)

    return Plugin(
        name=f"harm-{category.replace('_', '-')}",
        about=about,
        category=category,
        severity=severity,
        taxonomy=("LLM01:2025", *taxonomy),
        needs_pair_set=True,
        goals=goals,
    )


def _control(name: str, about: str, *, lookalike: bool) -> Plugin:
    def goals(source: GoalSource) -> tuple[Goal, ...]:
        texts = source.pool.by_category.get("benign", ())
        return tuple(
            Goal(text=text, category="benign")
            for text in texts
            if (text in source.pool.lookalikes) == lookalike
        )

    return Plugin(
        name=name,
        about=about,
        category="benign",
        severity="low",
        taxonomy=(),  # no taxonomy knows refusing too much
        is_control=True,
        needs_pair_set=True,
        goals=goals,
    )


def _application(
    name: str,
    about: str,
    severity: _Severity,
    *taxonomy: str,
    category: str = "",
    leaks: str = "",
    in_frames: bool = False,
    applies_to: frozenset[Kind] = _MODELS,
) -> Plugin:
    category = category or name.replace("-", "_")
    return Plugin(
        name=name,
        about=about,
        category=category,
        severity=severity,
        taxonomy=taxonomy,
        applies_to=applies_to,
        needs_tools=name == "tool-misuse",
        goals=application_goals(name, category, in_frames=in_frames, leaks=leaks),
    )


_HARMS = (
    _harm(
        "hate_speech", "helps to demean a group of people", "high",
        "AML.T0048.002", "AML.T0054", "NIST.AI.600-1:2.3", "NIST.AI.600-1:2.6",
    ),
    _harm(
        "illegal_activities", "helps with a crime", "high",
        "AML.T0048.002", "AML.T0054", "NIST.AI.600-1:2.3",
    ),
    _harm(
        "manipulation", "helps to deceive or control a person", "medium",
        "AML.T0052", "AML.T0054", "LLM09:2025", "NIST.AI.600-1:2.8",
    ),
    _harm(
        "self_harm", "encourages hurting oneself", "critical",
        "AML.T0048.003", "AML.T0054", "NIST.AI.600-1:2.3",
    ),
    _harm(
        "terrorism", "helps violent extremists", "critical",
        "AML.T0048.002", "AML.T0054", "NIST.AI.600-1:2.3",
    ),
    _harm(
        "violence", "helps to threaten or hurt somebody", "high",
        "AML.T0048.003", "AML.T0054", "NIST.AI.600-1:2.3",
    ),
)  # fmt: skip
_APPLICATION = (
    _application(
        "prompt-injection-direct", "the user's message replaces the application's task", "high",
        "LLM01:2025", "AML.T0051.000", "NIST.AI.600-1:2.9",
        category="prompt_injection", applies_to=_EVERYWHERE,
    ),
    _application(
        "prompt-injection-indirect", "a document that it reads replaces its task", "high",
        "LLM01:2025", "AML.T0051.001", "NIST.AI.600-1:2.9",
        category="prompt_injection", in_frames=True, applies_to=_EVERYWHERE,
    ),
    _application(
        "system-prompt-leak", "shows its instructions", "medium",
        "LLM07:2025", "AML.T0056", "AML.T0069.002", "NIST.AI.600-1:2.9", leaks="prompt",
    ),
    _application(
        "secret-leak", "shows a key or another secret of its context", "critical",
        "LLM02:2025", "LLM07:2025", "AML.T0055", "AML.T0057", "NIST.AI.600-1:2.9",
        leaks="secret",
    ),
    _application(
        "pii", "shows one person's data to another", "high",
        "LLM02:2025", "AML.T0057", "AML.T0048.003", "NIST.AI.600-1:2.4", leaks="pii",
    ),
    _application(
        "excessive-agency", "acts beyond its mandate, or says that it did", "high",
        "LLM06:2025", "AML.T0048.000", "AML.T0053", "NIST.AI.600-1:2.7",
    ),
    _application(
        "tool-misuse", "calls a tool against its rules", "high",
        "LLM06:2025", "AML.T0053", "AML.T0086", "NIST.AI.600-1:2.9",
    ),
    _application(
        "misinformation", "states what is false or invented as fact", "medium",
        "LLM09:2025", "AML.T0062", "AML.T0048.002", "NIST.AI.600-1:2.2", "NIST.AI.600-1:2.8",
    ),
    _application(
        "hallucinated-policy", "makes up terms that the operator may be held to", "medium",
        "LLM09:2025", "AML.T0062", "AML.T0048.001", "NIST.AI.600-1:2.2", "NIST.AI.600-1:2.7",
    ),
    _application(
        "unsafe-output", "emits markup or code that a page would run", "high",
        "LLM05:2025", "AML.T0077", "NIST.AI.600-1:2.9",
    ),
)  # fmt: skip
_CONTROLS = (
    _control("over-refusal", "refuses or changes an everyday request", lookalike=False),
    _control("over-refusal-lookalike", "refuses what only sounds harmful", lookalike=True),
    Plugin(
        name="over-refusal-security",
        about="refuses what only sounds like an attack on it",
        category="benign",
        severity="low",
        taxonomy=(),
        is_control=True,
        goals=application_goals("over-refusal-security", "benign"),
    ),
)

for _plugin in (*_HARMS, *_APPLICATION, *_CONTROLS):
    PLUGINS.register(_plugin.name)(_plugin)
