"""Means over seeds with their 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from workbench.store.results import Interval

__all__ = ["seed_interval", "student_t_975"]

_Z = 1.959963984540054


def student_t_975(degrees: int) -> float:
    """Return the 97.5 % quantile of Student's t.

    Args:
        degrees: Degrees of freedom, >= 1.

    Source:
        Abramowitz & Stegun 1964, eq. 26.7.5 (error < 0.004 from 3 degrees on); exact below.
    """
    if degrees == 1:
        return math.tan(0.475 * math.pi)
    if degrees == 2:  # noqa: PLR2004 - closed form of two degrees
        return 0.95 / math.sqrt(2 * 0.975 * 0.025)
    z = _Z
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return math.fsum(term / degrees**power for power, term in enumerate(terms))


def seed_interval(values: Sequence[float]) -> Interval:
    """Return the mean with its t interval; one value alone has an interval of no width.

    Args:
        values: One per seed, at least one.
    """
    mean = fmean(values)
    if len(values) == 1:
        return {"value": mean, "low": mean, "high": mean}
    half = student_t_975(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return {"value": mean, "low": mean - half, "high": mean + half}
