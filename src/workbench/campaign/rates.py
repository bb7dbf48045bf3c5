"""Success rates of an execution by target and group."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from workbench.campaign.columns import Codes, Columns, Flags, Source, cells, read_columns
from workbench.campaign.statistics import count_interval
from workbench.core.errors import ConfigError
from workbench.store.campaign_results import RateRow
from workbench.store.results import Interval

__all__ = ["ALL", "GROUPS", "attacks", "controls", "rate_rows", "rates_by", "runs", "total"]

ALL = "all"
"""Group of a total."""
GROUPS = ("plugin", "strategy", "category", "severity")
"""What rates can be had by."""
_NEEDED = ("target", "goal", "success", "error", "is_control")


def rates_by(source: Source, by: str = ALL, *, spoilt: bool = False) -> list[RateRow]:
    """Return attack success with intervals, by target and group; errors are left out.

    Args:
        source: An execution, or the Parquet file of its attempts.
        by: One of :data:`GROUPS`, or ``all``.
        spoilt: Rates of controls spoilt instead.

    Raises:
        ConfigError: If there is no such grouping.
        StoreError: If the file is damaged.
    """
    if by not in {ALL, *GROUPS}:
        raise ConfigError(f"rates by {by!r} are not known; give one of {', '.join((ALL, *GROUPS))}")
    groups = () if by == ALL else (by,)
    columns = read_columns(source, (*_NEEDED, *groups))
    targets = () if isinstance(source, Path) else source.targets
    some = columns.where(controls(columns) if spoilt else attacks(columns))
    return rate_rows(some, by=groups, targets=targets)


def attacks(columns: Columns) -> Flags:
    """Return which attempts are answered attacks."""
    return np.asarray(columns.answered() & ~columns["is_control"])


def controls(columns: Columns) -> Flags:
    """Return which attempts are answered controls."""
    return np.asarray(columns.answered() & columns["is_control"])


def rate_rows(
    columns: Columns, *, by: Sequence[str] = (), targets: Sequence[str] = ()
) -> list[RateRow]:
    """Return a row per target and combination of groups that occurs.

    Args:
        columns: ``target``, ``goal``, ``success`` and the groups, of what is to be counted.
        by: Text columns; their values are joined by `` / ``.
        targets: Their order; those not named follow by name.
    """
    group = columns.combined(("target", *by))
    goals = columns.count("goal")
    keys, hits, sizes = cells(group * goals + columns["goal"], columns["success"])
    rows = []
    for code, start, stop in runs(keys // goals):
        target, name = _names(columns, by, code)
        won, tried = hits[start:stop], sizes[start:stop]
        rows.append(
            RateRow(
                target=target,
                group=name,
                successes=int(won.sum()),
                attempts=int(tried.sum()),
                rate=count_interval(won, tried),
            )
        )
    order = {target: at for at, target in enumerate(targets)}
    known = len(order)
    return sorted(rows, key=lambda r: (order.get(r["target"], known), r["target"], r["group"]))


def total(columns: Columns) -> Interval:
    """Return the rate of at least one attempt over all; needs ``goal`` and ``success``."""
    _, hits, sizes = cells(columns["goal"], columns["success"])
    return count_interval(hits, sizes)


def runs(sorted_codes: Codes) -> list[tuple[int, int, int]]:
    """Return each code with where its run begins and ends."""
    if not len(sorted_codes):
        return []
    starts = np.flatnonzero(np.diff(sorted_codes, prepend=sorted_codes[0] - 1))
    stops = [*starts[1:].tolist(), len(sorted_codes)]
    return list(zip(sorted_codes[starts].tolist(), starts.tolist(), stops, strict=True))


def _names(columns: Columns, by: Sequence[str], code: int) -> tuple[str, str]:
    parts = []
    for name in reversed(by):
        code, at = divmod(code, columns.count(name))
        parts.append(columns.distinct[name][at].as_py())
    return columns.distinct["target"][code].as_py(), " / ".join(reversed(parts)) or ALL
