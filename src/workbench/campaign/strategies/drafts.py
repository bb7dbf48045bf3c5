"""What model-driven strategies give: drafts of attacks; and what of a model's text may be one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from workbench.core.redact import redact
from workbench.data.clean import MIN_CHARS, repair
from workbench.data.dedupe import normalize
from workbench.judge.refusal import declines

if TYPE_CHECKING:
    from workbench.campaign.strategies.attacker import Attacker
    from workbench.llm.messages import Request

__all__ = [
    "MOST_CHARS", "Calls", "Draft", "ModelStrategy", "accept", "variant", "workable",
]  # fmt: skip

MOST_CHARS: Final = 4_000
"""Longest message of a draft, and longest goal that is worked on."""
_SEED_STEP = 1_000
_SEEDS = 10_000
_TELLING_CHARS = 40
"""Shortest sentence of an instruction by which a leak of it is known."""
_OPENING_CHARS = 60
_SENTENCE_END = re.compile(r"(?<=[.:])\s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An attack that a model wrote: what becomes of it is one test case."""

    prompt: str
    """What is said last."""
    turns: tuple[str, ...] = ()
    """What the attacker says before; the replies are not kept, each target gives its own."""
    notes: dict[str, Any] = field(default_factory=dict)
    """JSON values: technique, and how it went with the stand-in."""


class Calls(NamedTuple):
    """How many model calls something takes when no answer is at hand."""

    low: int
    """If the first try succeeds everywhere."""
    expected: int
    worst: int


class ModelStrategy(Protocol):
    """Something that has models write attacks. It keeps no state: all is in the arguments."""

    @property
    def name(self) -> str:
        """Unique name without ``+``."""
        ...

    @property
    def description(self) -> str:
        """One line."""
        ...

    def calls(self, goal_count: int, per_goal: int, *, items_per_call: int = 20) -> Calls:
        """Return how many model calls :meth:`drafts` takes."""
        ...

    def planned(
        self, goals: Sequence[str], *, attacker: Attacker, per_goal: int, seed: int
    ) -> list[Request]:
        """Return requests for ``Gateway.estimate``, ``calls(…).expected`` in number.

        They are those that :meth:`drafts` asks first; where what is asked next depends on answers,
        requests of the usual size stand for it.
        """
        ...

    async def drafts(
        self, goals: Sequence[str], *, attacker: Attacker, per_goal: int, seed: int
    ) -> list[list[Draft]]:
        """Return at most ``per_goal`` different drafts per goal, the most promising one first.

        Spends money through the attacker. What cannot be used is counted in ``attacker.dropped``.

        Raises:
            BudgetError: At the limit. Answers are kept by the gateway: asked again, it goes on.
            ModelError: If the service has answered nothing at all.
        """
        ...


def variant(seed: int, number: int) -> int:
    """Return the ``Request.variant`` of the n-th answer to the same prompt under a seed."""
    return seed % _SEEDS * _SEED_STEP + number


def workable(goals: Sequence[str], *, dropped: Counter[str]) -> dict[int, str]:
    """Return position and repaired text of the goals that can be worked on; count the others."""
    found = {}
    for position, goal in enumerate(goals):
        text = repair(goal) if len(goal) <= MOST_CHARS else ""
        if text:
            found[position] = text
        else:
            dropped["goal empty or too long"] += 1
    return found


def accept(
    text: str,
    *,
    goal: str,
    known: Iterable[str] = (),
    instruction: str = "",
    withheld: Iterable[str] = (),
) -> tuple[str, str]:
    """Return what a model wrote as it may be used, and why it may not; no reason where it may.

    Args:
        text: Hostile: may be anything.
        goal: What it was written for.
        known: Texts that it may not repeat, the goal aside.
        instruction: What the model was told, which it may not give away.
        withheld: Words that it may not hold, whichever the case.
    """
    if len(text) > MOST_CHARS:
        return "", f"longer than {MOST_CHARS:,} characters"
    text = repair(text)
    if len(text) < MIN_CHARS:
        return "", "empty"
    # Further on, "I won't tell anybody" and its like are part of the message.
    if declines(text[:_OPENING_CHARS]) and not declines(goal[:_OPENING_CHARS]):
        return "", "refused"
    if reason := _tells(text, instruction, withheld):
        return "", reason
    key = normalize(text)
    if any(key == normalize(other) for other in (goal, *known)):
        return "", "repeats"
    # A goal may be about made-up personal data; what a model adds of its own may be real.
    return (redact(text) if redact(goal) == goal else text), ""


def _tells(text: str, instruction: str, withheld: Iterable[str]) -> str:
    """Return what a text tells that it should not, as a reason to drop it."""
    sentences = _SENTENCE_END.split(instruction)
    leaks = [one for one in sentences if len(one) >= _TELLING_CHARS]
    if any(one in text for one in (*leaks, "<<<GOAL", "<item")):
        return "gives its instruction away"
    lower = text.casefold()
    return "holds a planted word" if any(one.casefold() in lower for one in withheld if one) else ""
