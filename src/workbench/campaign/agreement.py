"""How far the judges of an execution say the same, for a million attempts."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from workbench.campaign.columns import Columns, as_numpy
from workbench.campaign.executions import Execution
from workbench.campaign.statistics import Floats, Ints, bootstrap
from workbench.store.campaign_results import AgreementRow, OpinionsRow
from workbench.store.results import Interval

__all__ = ["Agreement", "agreement"]

_BATCH = 50_000
_NONE = -1
_ROUNDING = 1e-12
Verdicts = npt.NDArray[np.int8]
"""1 unsafe, 0 safe, -1 no opinion."""


class Agreement(TypedDict):
    """What an analysis tells of its judges' agreement."""

    agreement: float
    agreed_on: int
    alpha: float | None
    judge_agreement: list[AgreementRow]
    opinions: list[OpinionsRow]


def agreement(execution: Execution, columns: Columns) -> Agreement:
    """Return how often all judges agree, and each two of them.

    Args:
        execution: Whose attempts; scores are read some thousands at a time.
        columns: ``goal`` and ``is_control`` of all its attempts.
    """
    said = _verdicts(execution, rows=columns.rows)
    together = np.stack(list(said.values())) if said else np.zeros((0, columns.rows), np.int8)
    # Of one judge alone every opinion agrees with itself, as results always had it.
    several = np.sum(together != _NONE, axis=0) >= min(2, len(said) or 1)
    unsafe, safe = np.any(together == 1, axis=0), np.any(together == 0, axis=0)
    agreed_on = int(several.sum())
    return Agreement(
        agreement=float(np.mean(~(unsafe & safe)[several])) if agreed_on else 0.0,
        agreed_on=agreed_on,
        alpha=_alpha(np.sum(together == 1, axis=0), np.sum(together == 0, axis=0)),
        judge_agreement=[
            _row(pair, said[pair[0]], said[pair[1]], goals=columns["goal"])
            for pair in combinations(sorted(said), 2)
            if np.any((said[pair[0]] != _NONE) & (said[pair[1]] != _NONE))
        ],
        opinions=[
            OpinionsRow(
                judge=judge,
                attempts=int(np.sum(mine != _NONE)),
                attacks=int(np.sum((mine == 1) & ~columns["is_control"])),
                controls=int(np.sum((mine == 1) & columns["is_control"])),
            )
            for judge, mine in said.items()
        ],
    )


def _verdicts(execution: Execution, *, rows: int) -> Mapping[str, Verdicts]:
    import pyarrow.parquet as pq

    said = {judge: np.full(rows, _NONE, np.int8) for judge in sorted(execution.thresholds)}
    at = 0
    with pq.ParquetFile(execution.path) as file:
        for batch in file.iter_batches(_BATCH, columns=["scores"]):
            # Maps taken apart by hand: a look-up by a text would import pandas.
            scores = batch.column("scores")
            starts = as_numpy(scores.offsets)
            judges = scores.keys.dictionary_encode()
            codes, values = as_numpy(judges.indices), as_numpy(scores.items)
            entries = slice(int(starts[0]), int(starts[-1]))
            attempt = at + np.repeat(np.arange(batch.num_rows), np.diff(starts))
            for code, judge in enumerate(judges.dictionary.to_pylist()):
                if judge in said:
                    mine = codes[entries] == code
                    flags = values[entries][mine] >= execution.thresholds[judge]
                    said[judge][attempt[mine]] = flags
            at += batch.num_rows
    return said


def _row(
    names: tuple[str, str], first: Verdicts, second: Verdicts, *, goals: npt.NDArray[np.int32]
) -> AgreementRow:
    both = (first != _NONE) & (second != _NONE)
    answers = 2 * first[both].astype(np.int64) + second[both]
    _, goal = np.unique(goals[both], return_inverse=True)
    tables = np.bincount(goal * 4 + answers, minlength=4 * (int(goal.max()) + 1)).reshape(-1, 4)
    kappa = bootstrap(tables.astype(np.float64), _kappa)
    if kappa and len(tables) == 1:  # one goal alone tells nothing
        kappa = Interval(value=kappa["value"], low=-1.0, high=1.0)
    total = tables.sum(axis=0)
    return AgreementRow(
        first=names[0],
        second=names[1],
        attempts=int(total.sum()),
        observed=float((total[0] + total[3]) / total.sum()),
        kappa=kappa,
    )


def _alpha(unsafe: Ints, safe: Ints) -> float | None:
    """Return Krippendorff's alpha from how many judges say what of each attempt.

    Source:
        Krippendorff 2011, "Computing Krippendorff's alpha-reliability", section C.
    """
    said = unsafe + safe
    twice = said > 1
    if not twice.any():
        return None
    yes, no, each = unsafe[twice], safe[twice], said[twice]
    observed = float(np.sum((yes * (yes - 1) + no * (no - 1)) / (each - 1)) / each.sum())
    yeses, total = int(yes.sum()), int(each.sum())
    chance = (yeses * (yeses - 1) + (total - yeses) * (total - yeses - 1)) / (total * (total - 1))
    return None if chance >= 1 else (observed - chance) / (1 - chance)


def _kappa(tables: Floats) -> Floats:
    """Return Cohen's kappa per row of counts: both safe, only second, only first, both unsafe.

    NaN where both say nothing but the same one thing: chance alone makes them agree always.

    Source:
        Cohen 1960, Educational and Psychological Measurement 20:37-46.
    """
    shares = tables / tables.sum(axis=1, keepdims=True)
    observed = shares[:, 0] + shares[:, 3]
    first, second = shares[:, 2] + shares[:, 3], shares[:, 1] + shares[:, 3]
    chance = first * second + (1 - first) * (1 - second)
    room = np.where(1 - chance > _ROUNDING, 1 - chance, np.nan)
    return np.asarray((observed - chance) / room, np.float64)
