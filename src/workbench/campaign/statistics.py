"""Intervals for attack success rates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from workbench.core.errors import ConfigError
from workbench.store.results import Interval

__all__ = ["METHOD", "rate_interval", "wilson"]

METHOD = (
    "95 % intervals: Wilson's score interval over the effective number of attempts, because "
    "attempts that share a goal are not independent, with Student's t for few goals; where all or "
    "none succeed, each goal counts once. Errors are left out of the rates."
)
_Z_95 = 1.959963984540054


def wilson(successes: float, n: float, *, z: float = _Z_95) -> Interval:
    """Return a proportion with its Wilson score interval, 95 % by default.

    Args:
        successes: Count in [0, n]; a fraction where n is an effective number.
        n: Independent trials, > 0.
        z: Quantile of the standard normal, or of Student's t.

    Raises:
        ConfigError: If the counts make no sense.

    Source:
        Wilson 1927, JASA 22:209-212; Brown, Cai & DasGupta 2001, Statistical Science 16(2), eq. 4.
    """
    if n <= 0 or not 0 <= successes <= n:
        raise ConfigError(f"wilson(): {successes} of {n} trials; give 0 <= successes <= n, n > 0")
    rate = successes / n
    center = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n * n))
    # At the ends the bound is the rate itself; rounding would leave it a hair off.
    low = 0.0 if successes == 0 else max(0.0, center - half)
    high = 1.0 if successes == n else min(1.0, center + half)
    return Interval(value=rate, low=low, high=high)


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
