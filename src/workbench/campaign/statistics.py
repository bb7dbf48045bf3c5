"""Intervals for attack success rates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from workbench.core.errors import ConfigError
from workbench.store.results import Interval

__all__ = ["METHOD", "cluster_bootstrap", "rate_interval", "wilson"]

METHOD = (
    "95 % intervals: the wider of Wilson's score interval and a percentile bootstrap that "
    "resamples goals, because attempts that share a goal are not independent; where all or none "
    "succeed, Wilson's interval counts each goal once. Errors are left out of the rates."
)
_Z_95 = 1.959963984540054


def wilson(successes: int, n: int) -> Interval:
    """Return a proportion with its 95 % Wilson score interval.

    Args:
        successes: Count in [0, n].
        n: Independent trials, >= 1.

    Raises:
        ConfigError: If the counts make no sense.

    Source:
        Wilson 1927, JASA 22:209-212; Brown, Cai & DasGupta 2001, Statistical Science 16(2), eq. 4.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ConfigError(f"wilson(): {successes} of {n} trials; give 0 <= successes <= n >= 1")
    rate = successes / n
    z2 = _Z_95**2
    center = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z_95 / (1 + z2 / n) * math.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n))
    # At the ends the bound is the rate itself; rounding would leave it a hair off.
    low = 0.0 if successes == 0 else max(0.0, center - half)
    high = 1.0 if successes == n else min(1.0, center + half)
    return Interval(value=rate, low=low, high=high)


def cluster_bootstrap(
    outcomes: Sequence[bool], *, clusters: Sequence[str], seed: int, resamples: int = 2000
) -> Interval:
    """Return a rate with its 95 % percentile interval under resampling of whole clusters.

    Args:
        outcomes: One per attempt.
        clusters: What each attempt belongs to, e.g. its goal; same length.
        seed: Seed of the resampling.
        resamples: Bootstrap samples, >= 100.

    Raises:
        ConfigError: If there are no outcomes, lengths differ or resamples are too few.

    Source:
        Field & Welsh 2007, JRSS B 69(3):369-390 (cluster bootstrap); Efron & Tibshirani 1993,
        ch. 13 (percentile interval).
    """
    if not outcomes or len(outcomes) != len(clusters):
        raise ConfigError(
            f"cluster_bootstrap(): {len(outcomes)} outcomes for {len(clusters)} clusters; "
            "give one cluster per outcome, at least one"
        )
    if resamples < 100:  # noqa: PLR2004 - a 2.5 % quantile of fewer is no quantile
        raise ConfigError(f"cluster_bootstrap(): resamples is {resamples}; give at least 100")
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    hits = np.bincount(index, weights=np.asarray(outcomes, dtype=np.float64))
    sizes = np.bincount(index).astype(np.float64)
    # Drawing k clusters with replacement is a multinomial over clusters: one matrix product.
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    rates = (counts @ hits) / (counts @ sizes)
    low, high = np.quantile(rates, [0.025, 0.975])
    return Interval(value=float(hits.sum() / sizes.sum()), low=float(low), high=float(high))


def rate_interval(outcomes: Sequence[bool], *, goals: Sequence[str], seed: int) -> Interval:
    """Return a rate with the interval that :data:`METHOD` describes.

    Raises:
        ConfigError: If there are no outcomes.
    """
    resampled = cluster_bootstrap(outcomes, clusters=goals, seed=seed)
    successes = sum(outcomes)
    if successes in {0, len(outcomes)}:
        distinct = len(set(goals))
        return wilson(distinct if successes else 0, distinct)
    scored = wilson(successes, len(outcomes))
    return Interval(
        value=scored["value"],
        low=min(scored["low"], resampled["low"]),
        high=max(scored["high"], resampled["high"]),
    )
