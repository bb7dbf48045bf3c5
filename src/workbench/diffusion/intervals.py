"""Sums over sums with 95 % intervals, and their means over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from workbench.judge.calibrate import Flags, Floats
from workbench.judge.measure import auroc_interval, wilson
from workbench.store.evaluation import FigureRow
from workbench.store.results import Interval

__all__ = ["Codes", "area_interval", "over_seeds", "ratio_interval"]

Codes = npt.NDArray[np.intp]
_RESAMPLES = 500
_ENDS: Final[tuple[Literal["value", "low", "high"], ...]] = ("value", "low", "high")


def ratio_interval(
    top: Floats, bottom: Floats, groups: Codes, *, is_share: bool = False, seed: int = 0
) -> Interval:
    """Return ``sum(top) / sum(bottom)``: a mean, a share or a reduction.

    Groups are resampled whole, or rows where they are all of one group. A share's interval is the
    wider of that and Wilson's, where all or none count with each group once.

    Args:
        top: ``(n,)``.
        bottom: ``(n,)``, none below 0, some above.
        groups: ``(n,)``: rows of one group are not independent.
        is_share: Whether both are 0 or 1.
        seed: Decides what is resampled.

    Source:
        Field & Welsh 2007, "Bootstrapping clustered data"; Wilson 1927, JASA 22:209-212.
    """
    codes, count = _compact(groups)
    tops, bottoms = (np.bincount(codes, weights=one, minlength=count) for one in (top, bottom))
    value = float(tops.sum() / bottoms.sum())
    drawn = _draws(count, seed)
    sums, totals = drawn @ tops, drawn @ bottoms
    low, high = np.quantile(sums[totals > 0] / totals[totals > 0], [0.025, 0.975]).tolist()
    if is_share:
        n = count if value in {0.0, 1.0} else float(bottoms.sum())
        scored = wilson(value * n, n)
        low, high = min(low, scored["low"]), max(high, scored["high"])
    return Interval(value=value, low=min(low, value), high=max(high, value))  # but for rounding


def area_interval(scores: Floats, positive: Flags, groups: Codes, *, seed: int = 0) -> Interval:
    """Return the area under the ROC curve, resampled as in :func:`ratio_interval`."""
    codes, _ = _compact(groups)
    return auroc_interval(scores, positive, codes.astype(str), seed=seed)


def over_seeds(several: Sequence[Sequence[FigureRow]]) -> list[FigureRow]:
    """Return the mean of each figure that all models have, on the same prompts.

    Its interval is Student's over the models, or the mean of theirs where that is wider.

    Args:
        several: Figures of each of at least two models, trained alike from other seeds.
    """
    from scipy.special import stdtrit

    found: dict[tuple[object, ...], list[FigureRow]] = {}
    for row in chain.from_iterable(several):
        key = (row["method"], row["metric"], row["gain"], row["by"], row["of"])
        found.setdefault(key, []).append(row)
    count = len(several)
    means = []
    for rows in found.values():
        if len(rows) == count:
            values, lows, highs = (np.array([row[end] for row in rows]) for end in _ENDS)
            value = float(values.mean())
            half = float(stdtrit(count - 1, 0.975) * values.std(ddof=1) / math.sqrt(count))
            low, high = min(value - half, lows.mean()), max(value + half, highs.mean())
            means.append(rows[0] | {"value": value, "low": float(low), "high": float(high)})
    return means


def _compact(groups: Codes) -> tuple[Codes, int]:
    """Return groups numbered from 0 and their count; rows stand alone where there is but one."""
    found, codes = np.unique(groups, return_inverse=True)
    return (codes, len(found)) if len(found) > 1 else (np.arange(len(groups)), len(groups))


@lru_cache(maxsize=4)
def _draws(count: int, seed: int) -> Floats:
    """Return how often each resample holds each group, ``(resamples, count)``."""
    even = np.full(count, 1 / count)
    return np.random.default_rng(seed).multinomial(count, even, _RESAMPLES).astype(np.float64)
