"""Oracle of how far judges agree beyond chance: slow, from the papers, proved on their tables.

A judge may have no opinion on an item: None. Figures are None where they are undefined, as when
nothing was judged twice, or when chance alone would agree always.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

Vote: TypeAlias = Hashable | None
_TWO = 2


class Chance(NamedTuple):
    """Agreement as observed, and beyond chance."""

    observed: float | None
    """Share in [0, 1]."""
    beyond_chance: float | None
    """Kappa or alpha: 1 for full agreement, 0 for that of chance, below it for less."""


def cohen_kappa(one: Sequence[Vote], other: Sequence[Vote]) -> Chance:
    """Return the agreement of two judges on the items on which both have an opinion.

    Source:
        Cohen 1960, "A coefficient of agreement for nominal scales", eq. 1.
    """
    pairs = [(a, b) for a, b in _items([one, other]) if a is not None and b is not None]
    if not pairs:
        return Chance(None, None)
    left, right = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    observed = sum(a == b for a, b in pairs) / len(pairs)
    expected = sum(left[label] * right[label] for label in left) / len(pairs) ** 2
    return Chance(observed, _beyond(observed, expected))


def krippendorff_alpha(votes: Sequence[Sequence[Vote]]) -> Chance:
    """Return the agreement of several judges, of whom some may have no opinion on an item.

    Args:
        votes: One sequence per judge, of the same items; labels are nominal.

    Source:
        Krippendorff 2011, "Computing Krippendorff's alpha-reliability", section C.
    """
    items = _judged_twice(votes)
    paired = sum(item.total() for item in items)
    if not paired:
        return Chance(None, None)
    observed = sum(item.total() * _alike(item) for item in items) / paired
    totals: Counter[Vote] = sum(items, Counter())
    return Chance(observed, _beyond(observed, _alike(totals)))


def votes_of(
    scores: Iterable[Mapping[str, float]], *, thresholds: Mapping[str, float]
) -> dict[str, list[bool | None]]:
    """Return what each judge says of each item, None where it has no opinion.

    Args:
        scores: Per item, judge → score, of the judges with an opinion.
        thresholds: Judge → score from which it says yes, e.g. ``Panel.thresholds``.
    """
    listed = list(scores)
    return {
        judge: [item[judge] >= bar if judge in item else None for item in listed]
        for judge, bar in thresholds.items()
    }


def _items(votes: Sequence[Sequence[Vote]]) -> list[tuple[Vote, ...]]:
    return list(zip(*votes, strict=True))


def _judged_twice(votes: Sequence[Sequence[Vote]]) -> list[Counter[Vote]]:
    """Return the opinions on each item that has at least two."""
    counts = (Counter(vote for vote in item if vote is not None) for item in _items(votes))
    return [item for item in counts if item.total() >= _TWO]


def _alike(item: Counter[Vote]) -> float:
    """Return the share of pairs of different opinions that are alike; at least two opinions."""
    n = item.total()
    return sum(count * (count - 1) for count in item.values()) / (n * (n - 1))


def _beyond(observed: float, expected: float) -> float | None:
    return None if expected >= 1 else (observed - expected) / (1 - expected)
