"""What was tried twice: targets on the same cases, disguises of the same goals, repeated tries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from workbench.campaign.columns import Codes, Columns, Flags
from workbench.campaign.rates import ALL, rate_rows, runs
from workbench.campaign.statistics import (
    Paired,
    benjamini_hochberg,
    holm,
    paired_difference,
    paired_test,
)
from workbench.campaign.strategies.base import PLAIN
from workbench.store.campaign_results import ComparisonRow, FlakyCase, RateRow

__all__ = ["compare_mutations", "compare_targets", "flaky_cases", "flaky_rates", "repeated_cases"]

_BY = ("strategy", "category")


class _Counted(NamedTuple):
    """Pairs of one group."""

    by_goal: Paired
    only_first: int
    only_second: int


def compare_targets(
    columns: Columns, *, targets: Sequence[str], kinds: Mapping[str, str] = MappingProxyType({})
) -> list[ComparisonRow]:
    """Return each two targets compared on the cases that both answered: in all, and by group.

    Args:
        columns: Answered attempts: ``case_id``, ``trial``, ``target``, ``strategy``, ``category``,
            ``goal``, ``is_control``, ``success``.
        targets: Their order.
        kinds: Target → its kind; those of different kinds are counted by different rules and are
            not compared.
    """
    keys = _tried(columns)
    by_target = {name: _sorted(columns, keys, columns.code("target", name)) for name in targets}
    rows: list[ComparisonRow] = []
    for first, second in combinations(targets, 2):
        if kinds.get(first) != kinds.get(second):
            continue
        _, at_a, at_b = np.intersect1d(
            by_target[first][0], by_target[second][0], assume_unique=True, return_indices=True
        )
        both = by_target[first][1][at_a], by_target[second][1][at_b]
        for by, group, counted in _views(columns, *both):
            rows.append(_row(counted, first=first, second=second, by=by, group=group))
    return _adjusted(rows)


def compare_mutations(columns: Columns) -> list[ComparisonRow]:
    """Return each strategy compared with the plain form of the same goals on the same target.

    Goals that lack either form are left out.

    Args:
        columns: Answered attacks: ``target``, ``plugin``, ``goal``, ``trial``, ``strategy``,
            ``success``.
    """
    keys = columns.combined(("target", "plugin", "goal"))
    trials = int(columns["trial"].max(initial=0)) + 1
    keys = keys * trials + columns["trial"]
    plain = columns["strategy"] == columns.code("strategy", PLAIN)
    known, first_row = np.unique(keys[plain], return_index=True)
    if not len(known):
        return []
    base = columns["success"][plain][first_row]
    mutated = np.flatnonzero(~plain)
    at = np.minimum(np.searchsorted(known, keys[mutated]), len(known) - 1)
    paired = known[at] == keys[mutated]
    mutated, at = mutated[paired], at[paired]
    groups = columns.combined(("strategy", "target"))[mutated]
    wins = columns["success"]
    rows = []
    for code, counted in _counted(base[at], wins[mutated], groups, columns["goal"][mutated]):
        strategy, target = divmod(code, columns.count("target"))
        names = {
            "second": columns.distinct["strategy"][strategy].as_py(),
            "group": columns.distinct["target"][target].as_py(),
        }
        rows.append(_row(counted, first=PLAIN, by="target", **names))
    return _adjusted(sorted(rows, key=lambda row: (row["group"], row["second"])))


def flaky_rates(columns: Columns, *, targets: Sequence[str] = ()) -> list[RateRow]:
    """Return the share of cases tried several times that did not always end alike, by target.

    Args:
        columns: Answered attempts: ``case_id``, ``target``, ``goal``, ``success``.
        targets: Their order.
    """
    return rate_rows(repeated_cases(columns), targets=targets)


def repeated_cases(columns: Columns) -> Columns:
    """Return the cases tried several times, by target; ``success`` where tries ended differently.

    Args:
        columns: Answered attempts: ``case_id``, ``target``, ``goal``, ``success``.
    """
    rows, wins, tries = _by_case(columns)
    repeated = tries > 1
    cases = {name: columns[name][rows[repeated]] for name in ("target", "goal")}
    cases["success"] = _is_mixed(wins, tries)[repeated]
    return Columns(rows=int(repeated.sum()), values=cases, distinct=columns.distinct)


def flaky_cases(columns: Columns, *, most: int = 20) -> list[FlakyCase]:
    """Return the cases that did not always end alike, those closest to half and half first.

    Args:
        columns: Answered attempts: ``case_id``, ``target``, ``plugin``, ``strategy``, ``success``.
        most: How many.
    """
    rows, wins, tries = _by_case(columns)
    mixed = np.flatnonzero(_is_mixed(wins, tries))
    worst = mixed[np.argsort(np.abs(wins[mixed] / tries[mixed] - 0.5), kind="stable")][:most]

    def named(name: str, at: int) -> str:
        label: str = columns.distinct[name][int(columns[name][rows[at]])].as_py()
        return label

    return [
        FlakyCase(
            case_id=named("case_id", at),
            target=named("target", at),
            plugin=named("plugin", at),
            strategy=named("strategy", at),
            successes=int(wins[at]),
            attempts=int(tries[at]),
        )
        for at in worst.tolist()
    ]


def _by_case(columns: Columns) -> tuple[Codes, Codes, Codes]:
    """Return per case and target one of its rows, its successes and its attempts."""
    keys = columns.combined(("target", "case_id"))
    _, rows, codes, tries = np.unique(
        keys, return_index=True, return_inverse=True, return_counts=True
    )
    wins = np.bincount(codes, weights=columns["success"], minlength=len(tries))
    return rows, wins.astype(np.int64), tries


def _is_mixed(wins: Codes, tries: Codes) -> Flags:
    return np.asarray((wins > 0) & (wins < tries))


def _tried(columns: Columns) -> Codes:
    trials = int(columns["trial"].max(initial=0)) + 1
    return np.asarray(columns["case_id"].astype(np.int64) * trials + columns["trial"])


def _sorted(columns: Columns, keys: Codes, target: int) -> tuple[Codes, Codes]:
    """Return the tries of a target in order, and their rows."""
    mine = np.flatnonzero(columns["target"] == target)
    found, first = np.unique(keys[mine], return_index=True)
    return found, mine[first]


def _views(columns: Columns, first: Codes, second: Codes) -> Iterator[tuple[str, str, _Counted]]:
    """Give what pairs of rows come to: in all, by each value of each group, and of controls."""
    control = columns["is_control"][first]
    for by, some in ((ALL, ~control), *((name, ~control) for name in _BY), ("controls", control)):
        a, b = first[some], second[some]
        groups = columns[by][a] if by in _BY else np.zeros(len(a), np.int64)
        wins = columns["success"]
        for code, counted in _counted(wins[a], wins[b], groups, columns["goal"][a]):
            yield by, columns.distinct[by][code].as_py() if by in _BY else ALL, counted


def _counted(
    first: Flags, second: Flags, groups: Codes, goals: Codes
) -> Iterator[tuple[int, _Counted]]:
    """Give each group of pairs with what it comes to."""
    count = int(goals.max(initial=0)) + 1
    keys, cell, sizes = np.unique(
        groups.astype(np.int64) * count + goals, return_inverse=True, return_counts=True
    )

    def per_cell(flags: Flags) -> Codes:
        return np.bincount(cell[flags], minlength=len(keys))

    wins = per_cell(first), per_cell(second), sizes
    lone = per_cell(first & ~second), per_cell(second & ~first)
    for code, start, stop in runs(keys // count):
        by_goal = Paired(*(column[start:stop] for column in wins))
        yield code, _Counted(by_goal, *(int(one[start:stop].sum()) for one in lone))


def _row(counted: _Counted, *, first: str, second: str, by: str, group: str) -> ComparisonRow:
    """Return the row of a comparison; its p-values are not adjusted yet."""
    by_goal = counted.by_goal
    test = paired_test(by_goal.second - by_goal.first)
    return ComparisonRow(
        first=first,
        second=second,
        by=by,
        group=group,
        pairs=int(by_goal.sizes.sum()),
        goals=len(by_goal.sizes),
        only_first=counted.only_first,
        only_second=counted.only_second,
        difference=paired_difference(by_goal),
        p=test.p,
        p_mid=test.mid_p,
        p_adjusted=test.p,
        q=test.p,
    )


def _adjusted(rows: list[ComparisonRow]) -> list[ComparisonRow]:
    """Return the rows with their p-values adjusted for one another."""
    p_values = [row["p"] for row in rows]
    for row, p, q in zip(rows, holm(p_values), benjamini_hochberg(p_values), strict=True):
        row["p_adjusted"], row["q"] = p, q
    return rows
