"""Intervals for attack success rates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from workbench.judge.measure import wilson
from workbench.store.results import Interval

__all__ = ["METHOD", "rate_interval"]

METHOD = (
    "95 % intervals: Wilson's score interval over the effective number of attempts, because "
    "attempts that share a goal are not independent, with Student's t for few goals; where all or "
    "none succeed, each goal counts once. Errors are left out of the rates."
)


def rate_interval(outcomes: Sequence[bool], *, goals: Sequence[str]) -> Interval:
    """Return a rate with the interval that :data:`METHOD` describes.

    Args:
        outcomes: One per attempt, at least one.
        goals: What each attempt asks for; same length. One goal alone tells nothing: 0 to 1.

    Source:
        Korn & Graubard 1998, Survey Methodology 24(2):193-201 (effective n, t of the clusters);
        Dean & Pagano 2015, JSSAM 3(4):484-503 (with Wilson's interval).
    """
    from scipy.special import stdtrit

    index = np.unique(np.asarray(goals), return_inverse=True)[1]
    hits = np.bincount(index, weights=np.asarray(outcomes, dtype=np.float64))
    sizes = np.bincount(index)
    n, clusters = len(outcomes), len(sizes)
    rate = sum(outcomes) / n
    if clusters == 1:
        return Interval(value=rate, low=0.0, high=1.0)
    if rate in {0.0, 1.0}:
        return wilson(rate * clusters, clusters)
    variance = clusters / (clusters - 1) * float(np.sum((hits - rate * sizes) ** 2)) / n**2
    effective = min(n, rate * (1 - rate) / variance) if variance else n
    scored = wilson(rate * effective, effective, z=float(stdtrit(clusters - 1, 0.975)))
    return Interval(value=rate, low=scored["low"], high=scored["high"])
