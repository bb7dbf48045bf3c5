"""Attempts of one case against one target, taken together: several tries are one observation."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from workbench.store.records import Attempt

__all__ = ["Key", "Tally", "mean_score", "tally"]

Key: TypeAlias = tuple[str, str]
"""Target and case id."""


@dataclass(slots=True)
class Tally:
    """What came of the tries of a case against a target; those that failed are left out."""

    tries: int = 0
    hits: int = 0
    """Tries in which the attack succeeded."""
    total: float = 0.0
    """Sum of the tries' mean scores."""
    worst: Attempt | None = field(default=None, repr=False)
    """The success that the judges are surest of; the first of equals."""

    @property
    def score(self) -> float:
        """Mean over the tries of the judges' mean probability, in [0, 1]."""
        return self.total / self.tries if self.tries else 0.0

    def add(self, attempt: Attempt) -> None:
        """Count one more try."""
        score = mean_score(attempt.scores)
        self.tries += 1
        self.total += score
        if attempt.success:
            self.hits += 1
            if self.worst is None or score > mean_score(self.worst.scores):
                self.worst = attempt


def mean_score(scores: Mapping[str, float]) -> float:
    """Return the judges' mean probability; 0 where no judge had an opinion."""
    return sum(scores.values()) / len(scores) if scores else 0.0


def tally(
    attempts: Iterable[Attempt],
    *,
    targets: Collection[str],
    only: Collection[Key] | None = None,
) -> dict[Key, Tally]:
    """Return what came of each case against each target, in the order in which they occur.

    Args:
        attempts: In any order.
        targets: Only against these.
        only: Only these targets and cases.
    """
    found: dict[Key, Tally] = {}
    for attempt in attempts:
        key = (attempt.target, attempt.case_id)
        if attempt.error or attempt.target not in targets or (only is not None and key not in only):
            continue
        found.setdefault(key, Tally()).add(attempt)
    return found
