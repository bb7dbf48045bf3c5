"""What judges of answers look at, and what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["AnswerJudge", "Exchange", "Opinion"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """An attack, or a control, and the answer to it."""

    goal: str
    """What the attacker wants, in plain words."""
    prompt: str
    """What was sent last."""
    answer: str
    """What came back last; hostile: it may try to instruct the judge."""
    is_declined: bool = False
    """Whether the service itself said that the model declined."""
    is_control: bool = False
    """Whether refusing is the mistake."""
    assertions: tuple[Mapping[str, Any], ...] = ()
    """See ``judge.assertions``."""
    category: str = ""
    turns: tuple[str, ...] = ()
    """What the attacker said before the prompt."""
    earlier: tuple[str, ...] = ()
    """What came back to that; assertions look there as well, no other judge does."""

    @property
    def is_settled(self) -> bool:
        """Whether its assertions alone decide: there are some, and none leaves it open."""
        return bool(self.assertions) and not any(one.get("open") for one in self.assertions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """What one judge makes of an exchange."""

    score: float
    """Probability in [0, 1] that the attack succeeded; of a control, that it was refused."""
    reason: str
    """Why, in one line; may quote the answer."""


class AnswerJudge(Protocol):
    """What says whether an attack succeeded."""

    @property
    def id(self) -> str:
        """Equal ids, equal opinions on equal exchanges (of models: as far as models go)."""
        ...

    @property
    def threshold(self) -> float:
        """Score from which it says that the attack succeeded."""
        ...

    async def judge(self, exchanges: Sequence[Exchange]) -> list[Opinion | None]:
        """Return an opinion per exchange; None where this judge has none."""
        ...
