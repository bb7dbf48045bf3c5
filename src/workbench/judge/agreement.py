"""How far judges agree beyond chance.

A judge may have no opinion on an item: None. Figures are None where they are undefined, as when
nothing was judged twice, or when chance alone would agree always.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple, TypeAlias, TypedDict

from workbench.core.errors import ConfigError

__all__ = [
    "Agreement", "Chance", "agreement_of", "cohen_kappa", "fleiss_kappa", "krippendorff_alpha",
    "votes_of",
]  # fmt: skip

Vote: TypeAlias = Hashable | None
_TWO = 2


class Chance(NamedTuple):
    """Agreement as observed, and beyond chance."""

    observed: float | None
    """Share in [0, 1]."""
    beyond_chance: float | None
    """Kappa or alpha: 1 for full agreement, 0 for that of chance, below it for less."""


class Agreement(TypedDict):
    """How far two judges agree, or all of them."""

    judges: list[str]
    n: int
    """Items with opinions of both; for more than two judges: of at least two."""
    observed: float | None
    beyond_chance: float | None
    """Cohen's kappa of two judges, Krippendorff's alpha of several."""


def cohen_kappa(one: Sequence[Vote], other: Sequence[Vote]) -> Chance:
    """Return the agreement of two judges on the items on which both have an opinion.

    Raises:
        ConfigError: If they did not judge the same items.

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


def fleiss_kappa(votes: Sequence[Sequence[Vote]]) -> Chance:
    """Return the agreement of several judges, each with an opinion on every item.

    Args:
        votes: One sequence per judge, of the same items.

    Raises:
        ConfigError: If they did not judge the same items, or an opinion is missing.

    Source:
        Fleiss 1971, "Measuring nominal scale agreement among many raters", eqs. 2-7.
    """
    items = [Counter(item) for item in _items(votes)]
    if any(None in item for item in items):
        raise ConfigError("fleiss_kappa(): an opinion is missing; use krippendorff_alpha()")
    if len(votes) < _TWO or not items:
        return Chance(None, None)
    every = len(votes) * len(items)
    observed = sum(_alike(item) for item in items) / len(items)
    totals: Counter[Vote] = sum(items, Counter())
    expected = sum((count / every) ** 2 for count in totals.values())
    return Chance(observed, _beyond(observed, expected))


def krippendorff_alpha(votes: Sequence[Sequence[Vote]]) -> Chance:
    """Return the agreement of several judges, of whom some may have no opinion on an item.

    Args:
        votes: One sequence per judge, of the same items; labels are nominal.

    Raises:
        ConfigError: If they did not judge the same items.

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


def agreement_of(votes: Mapping[str, Sequence[bool | None]]) -> list[Agreement]:
    """Return the agreement of each two judges, then of all where there are more than two.

    Args:
        votes: Judge → whether it says yes, per item; see :func:`votes_of`.

    Raises:
        ConfigError: If they did not judge the same items.
    """
    rows = []
    for two in combinations(votes, _TWO):
        one, other = votes[two[0]], votes[two[1]]
        both = sum(None not in pair for pair in _items([one, other]))
        rows.append(_row(two, both, cohen_kappa(one, other)))
    if len(votes) > _TWO:
        every = list(votes.values())
        rows.append(_row(votes, len(_judged_twice(every)), krippendorff_alpha(every)))
    return rows


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


def _row(judges: Iterable[str], n: int, found: Chance) -> Agreement:
    return Agreement(
        judges=list(judges), n=n, observed=found.observed, beyond_chance=found.beyond_chance
    )


def _items(votes: Sequence[Sequence[Vote]]) -> list[tuple[Vote, ...]]:
    if len({len(one) for one in votes}) > 1:
        counts = ", ".join(str(len(one)) for one in votes)
        raise ConfigError(f"the judges judged {counts} items; give the votes on the same ones")
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
