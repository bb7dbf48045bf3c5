"""What changed between two assessments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from workbench.risk.records import LEVELS
from workbench.store.risk_results import ChangeRow

__all__ = ["CHANGES", "Changes", "diff"]

CHANGES = ("reopened", "new", "worse", "closed", "gone", "better")
"""Kinds of change, bad news first."""
_BAD = 3
_SHOWN = 50
_NONE = len(CHANGES)


@dataclass(frozen=True, kw_only=True)
class Changes:
    """How the risks of one assessment differ from those of another."""

    counts: dict[str, int]
    """Each of :data:`CHANGES` → risks; one that did not change is nowhere."""
    rows: list[ChangeRow]
    """The 50 most important: highest level first, bad news before good, then by score."""


def diff(before: pa.Table, after: pa.Table) -> Changes:
    """Return what changed from one table of risks to a later one.

    A risk is open in a table where its status says anything but closed. Of those open in both the
    score tells whether they got worse; one that is closed when first seen, or stays closed, or goes
    when it was closed, is no change.
    """
    at = pc.index_in(after["id"], before["id"].combine_chunks()).to_numpy(zero_copy_only=False)
    is_known = ~np.isnan(at)
    old = np.where(is_known, at, 0).astype(np.int64)
    was_open, is_open = _is_open(before), _is_open(after)
    score_before, score = _numbers(before), _numbers(after)
    was, rise = np.zeros(len(after), dtype=bool), np.zeros(len(after), dtype=np.int64)
    if len(before):
        was = is_known & was_open[old]
        rise = np.where(is_known, score - score_before[old], 0)
    kinds = np.select(
        [is_known & ~was & is_open, ~is_known & is_open, was & is_open & (rise > 0),
         was & ~is_open, was & is_open & (rise < 0)],
        [0, 1, 2, 3, 5], default=_NONE,
    )  # fmt: skip
    is_left = np.ones(len(before), dtype=bool)
    is_left[old[is_known]] = False
    left = np.flatnonzero(is_left & was_open)
    changed = np.flatnonzero(kinds != _NONE)
    # One line per change: kind, row in before, row in after; -1 for none.
    kind = np.concatenate([kinds[changed], np.full(len(left), CHANGES.index("gone"))])
    source = np.concatenate([np.where(is_known, old, -1)[changed], left])
    target = np.concatenate([changed, np.full(len(left), -1)])
    rows = _most_important(before, after, kind, source, target)
    counted = np.bincount(kind, minlength=len(CHANGES))
    return Changes(counts=dict(zip(CHANGES, map(int, counted), strict=True)), rows=rows)


def _most_important(
    before: pa.Table, after: pa.Table, kind: NDArray[np.int64], source: NDArray[np.int64],
    target: NDArray[np.int64],
) -> list[ChangeRow]:  # fmt: skip
    ranks = [np.append(_ranks(table), -1) for table in (before, after)]  # -1 finds the last: none
    scores = [np.append(_numbers(table), -1) for table in (before, after)]
    rank = np.maximum(ranks[0][source], ranks[1][target])
    score = np.maximum(scores[0][source], scores[1][target])
    order = np.lexsort((kind, -score, kind >= _BAD, -rank))[:_SHOWN]
    texts = [_texts(table, rows[order]) for table, rows in ((before, source), (after, target))]
    return [
        ChangeRow(
            id=(new or old)["id"], subject=(new or old)["subject"], asset=(new or old)["asset"],
            change=CHANGES[of], before=_words(old), after=_words(new),
        )
        for of, old, new in zip(kind[order], *texts, strict=True)
    ]  # fmt: skip


def _texts(table: pa.Table, rows: NDArray[np.int64]) -> Sequence[dict[str, str]]:
    columns = table.select(["id", "subject", "asset", "level", "score", "status"])
    taken = (
        columns.take(pa.array(np.maximum(rows, 0))).to_pylist() if len(table) else [{}] * len(rows)
    )
    return [one if row >= 0 else {} for one, row in zip(taken, rows, strict=True)]


def _words(row: dict[str, str]) -> str:
    if not row:
        return ""
    return "closed" if row["status"] == "closed" else f"{row['level']} {row['score']}"


def _is_open(table: pa.Table) -> NDArray[np.bool_]:
    return np.asarray(pc.not_equal(table["status"], "closed"))


def _numbers(table: pa.Table) -> NDArray[np.int64]:
    return np.asarray(table["score"], dtype=np.int64)


def _ranks(table: pa.Table) -> NDArray[np.int64]:
    return np.asarray(pc.index_in(table["level"], pa.array(LEVELS)), dtype=np.int64)
