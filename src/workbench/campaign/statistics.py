"""Intervals, tests and corrections for outcomes that come in clusters: many attempts per goal.

Everything takes counts per goal, so a million attempts cost no loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from workbench.judge.measure import wilson
from workbench.store.results import Interval

__all__ = [
    "METHOD",
    "Paired",
    "PairedTest",
    "benjamini_hochberg",
    "bootstrap",
    "count_interval",
    "holm",
    "paired_difference",
    "paired_interval",
    "paired_test",
    "rate_interval",
    "t_quantile",
]  # fmt: skip

METHOD = (
    "95 % intervals: attempts that share a goal are not independent, so goals are what is sampled: "
    "Wilson's score interval with each goal counted once, narrowed by their empirical likelihood "
    "where ten or more goals are alike, never below what all or no success would leave open. "
    "Errors are left out of the rates."
)

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_T_975 = (12.70620474, 4.30265273, 3.18244631, 2.77644511, 2.57058184, 2.44691185, 2.36462425,
          2.30600414, 2.26215716)  # fmt: skip
"""97.5 % quantiles of Student's t for 1 to 9 degrees of freedom."""
_Z_975 = 1.959963984540054
_ENOUGH_GOALS = 10
"""From so many goals on, how much they differ is worth estimating; of fewer, each counts once."""
_STEPS = 60
_NEGLIGIBLE = 1e-12
_FAR = 50.0
_UNEQUAL_GOALS = 60
"""Up to so many goals of several discordant pairs, the test is exact; beyond, normal."""
_BLOCKS = 1000


class Paired(NamedTuple):
    """Successes of two ways per goal, on the same pairs."""

    first: Ints
    second: Ints
    sizes: Ints
    """Pairs of each goal, >= 1."""


class PairedTest(NamedTuple):
    """Two-sided p-values."""

    p: float
    mid_p: float


def rate_interval(outcomes: Sequence[bool], *, goals: Sequence[str]) -> Interval:
    """Return a rate with the interval that :data:`METHOD` describes.

    Args:
        outcomes: One per attempt, at least one.
        goals: What each attempt asks for; same length. One goal alone tells nothing: 0 to 1.
    """
    index = np.unique(np.asarray(goals), return_inverse=True)[1]
    won = np.asarray(outcomes, dtype=np.bool_)
    return count_interval(np.bincount(index, weights=won).astype(np.int64), np.bincount(index))


def count_interval(hits: Ints, sizes: Ints) -> Interval:
    """Return a rate with its interval, from counts per goal.

    Another success never lowers either end. With one attempt per goal it is Wilson's interval;
    with many goals whose attempts are independent it nears that of all attempts.

    Args:
        hits: Successes of each goal.
        sizes: Attempts of each goal, >= 1; at least one goal.

    Source:
        Owen 1988, Biometrika 75:237-249 (empirical likelihood of a mean); Owen 2001, Empirical
        Likelihood, 3.3 (its calibration by Student's t); Kish 1965, Survey Sampling, 11.7 (goals of
        unequal size). ``docs/statistics.md`` shows how often it covers the truth.
    """
    n, won = int(sizes.sum()), int(hits.sum())
    if len(sizes) == 1:
        return Interval(value=won / n, low=0.0, high=1.0)
    goals = n**2 / float(np.sum(sizes.astype(np.float64) ** 2))
    once = wilson(won / n * goals, goals)
    once["value"] = won / n
    if len(sizes) < _ENOUGH_GOALS or n == len(sizes) or won in {0, n}:
        return once
    t = t_quantile(len(sizes) - 1)
    alike = wilson(won, n, z=t)
    unseen = wilson(0, goals)["high"]
    low = min(alike["low"], 1 - unseen, 1 - _likely(sizes - hits, sizes, t=t))
    high = max(alike["high"], unseen, _likely(hits, sizes, t=t))
    return Interval(value=won / n, low=max(low, once["low"]), high=min(high, once["high"]))


def _likely(hits: Ints, sizes: Ints, *, t: float) -> float:
    """Return the highest rate whose empirical likelihood ratio over goals is ``exp(-t^2 / 2)``.

    Some goals count more, others less, so that the rate is highest. More successes of any goal
    raise the rate of every such weighting, hence this one's: the interval is coherent.

    Source:
        Dinkelbach 1967, Management Science 13:492-498, for the largest ratio of two sums.
    """
    base = int(sizes.max()) + 1
    goals, counts = np.unique(hits * base + sizes, return_counts=True)
    won, tried = np.divmod(goals, base)
    rate = float(counts @ won / (counts @ tried))
    for _ in range(_STEPS):
        gaps = rate * tried - won
        weights = counts * _tilted(gaps - gaps.min(), counts, t=t)
        higher = float(weights @ won / (weights @ tried))
        if higher - rate < _NEGLIGIBLE:
            break
        rate = higher
    return rate


def _tilted(gaps: Floats, counts: Ints, *, t: float) -> Floats:
    """Return the weights of likelihood ratio ``exp(-t^2 / 2)`` whose mean gap is smallest.

    They are ``1 / (gap + b)``; Newton's method finds the logarithm of ``b``, in which that of the
    statistic is nearly linear, kept between what is known to be too low and too high.
    """
    weights = np.ones(len(gaps))
    if gaps.max() < _NEGLIGIBLE:
        return weights
    total, cut = int(counts.sum()), t * t
    spread = float(counts @ (gaps - counts @ gaps / total) ** 2)
    log_b = math.log(spread / cut) / 2  # right where b is far above the gaps
    low, high = log_b - _FAR, log_b + _FAR
    for _ in range(_STEPS):
        b = math.exp(log_b)
        weights = 1 / (gaps + b)
        mass = float(counts @ weights)
        ratio = 2 * (total * math.log(mass / total) - float(counts @ np.log(weights)))
        if abs(ratio - cut) < _NEGLIGIBLE * total:
            break
        low, high = (log_b, high) if ratio > cut else (low, log_b)
        slope = 2 * b * (mass - total * float(counts @ weights**2) / mass)
        step = ratio * math.log(ratio / cut) / slope if ratio > 0 > slope else math.inf
        log_b = log_b - step if low < log_b - step < high else (low + high) / 2
    return weights


def t_quantile(degrees: int) -> float:
    """Return the 97.5 % quantile of Student's t, right to 2e-5; scipy would cost 20 MB.

    Args:
        degrees: Degrees of freedom, >= 1.

    Source:
        Abramowitz & Stegun 1964, 26.7.5.
    """
    if degrees <= len(_T_975):
        return _T_975[degrees - 1]
    z, v = _Z_975, float(degrees)
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * v**4)
    )


def paired_difference(counts: Paired) -> Interval:
    """Return the rate of the second less that of the first, with its interval.

    Squares of the two rates' own intervals are added, less what their correlation over goals
    takes off. With one pair per goal and many goals it is Newcombe's method 10.

    Source:
        Newcombe 1998, Statistics in Medicine 17:2635-2650, method 10; Zou 2007, Psychological
        Methods 12:399-413, for other intervals of the rates than Wilson's.
    """
    first, second, sizes = counts
    pair = count_interval(first, sizes), count_interval(second, sizes)
    a, b = (hits - one["value"] * sizes for hits, one in zip((first, second), pair, strict=True))
    spread = math.sqrt(float(np.sum(a * a)) * float(np.sum(b * b)))
    shared = float(np.sum(a * b))
    if shared > 0:  # Newcombe's correction of phi: half a pair; here, of a goal
        shared = max(0.0, shared - float(np.mean(sizes.astype(np.float64) ** 2)) / 2)
    return paired_interval(*pair, correlation=shared / spread if spread else 0.0)


def paired_interval(first: Interval, second: Interval, *, correlation: float) -> Interval:
    """Return second less first with its interval, from those of each and their correlation."""

    def reach(down: float, up: float) -> float:
        return math.sqrt(max(0.0, down**2 + up**2 - 2 * correlation * down * up))

    difference = second["value"] - first["value"]
    low = reach(second["value"] - second["low"], first["high"] - first["value"])
    high = reach(second["high"] - second["value"], first["value"] - first["low"])
    return Interval(
        value=difference, low=max(-1.0, difference - low), high=min(1.0, difference + high)
    )


def paired_test(differences: Ints) -> PairedTest:
    """Return whether two ways differ: each goal's difference might as well have the other sign.

    With one pair per goal it is McNemar's exact test and its mid-p version.

    Args:
        differences: Per goal, successes of the second less those of the first.

    Source:
        McNemar 1947, Psychometrika 12:153-157; Fagerland, Lydersen & Laake 2013, BMC Medical
        Research Methodology 13:91 (mid-p); Fisher 1935, The Design of Experiments, 21 (signs of
        unequal differences).
    """
    moved = np.abs(differences[differences != 0]).astype(np.int64)
    if not len(moved):
        return PairedTest(1.0, 1.0)
    observed = abs(int(differences.sum()))
    single, several = int(np.sum(moved == 1)), moved[moved > 1]
    if len(several) > _UNEQUAL_GOALS:
        spread = math.sqrt(2 * float(np.sum(moved.astype(np.float64) ** 2)))
        p = math.erfc(observed / spread)
        return PairedTest(p, p)
    chances = _fair_coins(single)
    for step in several.tolist():
        flipped = np.zeros(len(chances) + step)
        flipped[: len(chances)] = chances / 2
        flipped[step:] += chances / 2
        chances = flipped
    total = len(chances) - 1
    sums = np.abs(2 * np.arange(total + 1) - total)
    beyond, equal = float(chances[sums > observed].sum()), float(chances[sums == observed].sum())
    return PairedTest(min(1.0, beyond + equal), min(1.0, beyond + equal / 2))


def _fair_coins(count: int) -> Floats:
    """Return the probabilities of 0 to ``count`` heads."""
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])
    return np.asarray(np.exp(logs[-1] - logs - logs[::-1] - count * math.log(2)), np.float64)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values such that with 95 % none below .05 is a false claim.

    Source:
        Holm 1979, Scandinavian Journal of Statistics 6:65-70.
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    left = len(p) - np.arange(len(p))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(left * p[order]))
    return [float(one) for one in adjusted]


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Return q-values: of the claims below .05, 5 % are expected to be false.

    Source:
        Benjamini & Hochberg 1995, JRSS B 57:289-300.
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")[::-1]
    adjusted = np.empty_like(p)
    rank = len(p) - np.arange(len(p))
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(p[order] * len(p) / rank))
    return [float(one) for one in adjusted]


def bootstrap(
    sums: Floats, statistic: Callable[[Floats], Floats], *, resamples: int = 1000, seed: int = 0
) -> Interval | None:
    """Return a statistic with the 95 % interval of resampled goals, for what has no formula.

    None where it is undefined; resamples in which it is are left out.

    Args:
        sums: ``(goals, k)`` what the statistic needs, summed over each goal's attempts. Of more
            than a thousand goals, random ones are put together first: as many groups tell as much.
        statistic: ``(m, k)`` totals → ``(m,)`` figures, NaN where undefined.
        resamples: How often goals are drawn.
        seed: The same seed gives the same interval.

    Source:
        Field & Welsh 2007, JRSS B 69:369-390 (whole clusters); Wolter 2007, Introduction to
        Variance Estimation, ch. 2 (random groups).
    """
    value = float(statistic(sums.sum(axis=0, keepdims=True))[0])
    if math.isnan(value):
        return None
    generator = np.random.default_rng(seed)
    count = min(len(sums), _BLOCKS)
    blocks = np.zeros((count, sums.shape[1]))
    np.add.at(blocks, generator.permutation(len(sums)) % count, sums)
    drawn = generator.multinomial(count, np.full(count, 1 / count), resamples)
    figures = statistic(drawn @ blocks)
    defined = figures[~np.isnan(figures)]
    low, high = np.quantile(defined, [0.025, 0.975]) if len(defined) else (value, value)
    return Interval(value=value, low=min(float(low), value), high=max(float(high), value))
