"""Means and trends over seeds with their 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, linear_regression, stdev

from workbench.store.results import Interval

__all__ = ["doubling_interval", "seed_interval"]


def seed_interval(values: Sequence[float]) -> Interval:
    """Return the mean of one value per seed with its t interval; of no width for one seed."""
    mean = fmean(values)
    if len(values) == 1:
        return {"value": mean, "low": mean, "high": mean}
    return _around(mean, stdev(values) / math.sqrt(len(values)), degrees=len(values) - 1)


def doubling_interval(x: Sequence[float], y: Sequence[float]) -> Interval | None:
    """Return what doubling ``x`` adds to ``y``: the least-squares slope on log2, t interval.

    None where fewer than two sizes or three runs leave nothing to tell.
    """
    logs = [math.log2(one) for one in x]
    if len(set(logs)) < 2 or len(logs) < 3:  # noqa: PLR2004
        return None
    slope, intercept = linear_regression(logs, y)
    rest = math.fsum((b - intercept - slope * a) ** 2 for a, b in zip(logs, y, strict=True))
    spread = math.fsum((a - fmean(logs)) ** 2 for a in logs)
    degrees = len(logs) - 2
    return _around(slope, math.sqrt(rest / degrees / spread), degrees=degrees)


def _around(value: float, error: float, *, degrees: int) -> Interval:
    from scipy.special import stdtrit

    half = float(stdtrit(degrees, 0.975)) * error
    return {"value": value, "low": value - half, "high": value + half}
