"""What a judge gets wrong: ranking and rates with their intervals, calibration."""

from __future__ import annotations

import math
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from workbench.core.errors import ConfigError
from workbench.judge.calibrate import Flags, Floats, expected_calibration_error
from workbench.judge.judge_set import LABELS, JudgeSet
from workbench.store.results import Interval

__all__ = ["Measurement", "auroc", "auroc_interval", "measure", "wilson"]

_RESAMPLES = 500
_Z_95 = 1.959963984540054


class Measurement(TypedDict):
    """A judge on labelled texts."""

    auroc: dict[str, Interval]
    """Harmful against ``benign`` and against ``lookalike``."""
    flag_rate: dict[str, float]
    """Label → share of its texts that are flagged."""
    calibration_error: float
    """Expected calibration error of the probability; it depends on the mix of labels."""


def measure(probabilities: Floats, flagged: Flags, judge_set: JudgeSet) -> Measurement:
    """Return what a judge gets wrong: ``(n,)`` probabilities unsafe and flags against the labels.

    Intervals resample topics, since texts of one are alike.
    """
    labels, topics = judge_set.labels, judge_set.topics
    unsafe = labels == "harmful"
    auroc = {}
    for safe in ("benign", "lookalike"):
        some = unsafe | (labels == safe)
        auroc[safe] = auroc_interval(probabilities[some], unsafe[some], topics[some])
    return Measurement(
        auroc=auroc,
        flag_rate={label: float(flagged[labels == label].mean()) for label in LABELS},
        calibration_error=expected_calibration_error(probabilities, unsafe),
    )


def auroc(scores: Floats, unsafe: Flags) -> float:
    """Return the area under the ROC curve; a half where one side is empty."""
    order, starts = _ranked(scores)
    areas = _areas(np.ones((1, len(scores))), unsafe[order], starts)
    return float(areas[0]) if len(areas) else 0.5


def auroc_interval(
    scores: Floats, unsafe: Flags, topics: npt.NDArray[np.str_], *, seed: int = 0
) -> Interval:
    """Return the area under the ROC curve with its 95 % bootstrap interval over topics.

    The interval is of the scores as they are: it resamples texts, and does not train again.

    Source:
        Mann & Whitney 1947 for the area (ties count half); Field & Welsh 2007, "Bootstrapping
        clustered data", for resampling whole groups.
    """
    order, starts = _ranked(scores)
    _, topic = np.unique(topics[order], return_inverse=True)
    count = int(topic.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), _RESAMPLES)
    times = np.concatenate([np.ones((1, len(scores))), drawn[:, topic]])  # all texts once, first
    areas = _areas(times, unsafe[order], starts)
    low, high = np.quantile(areas[1:], [0.025, 0.975]) if len(areas) > 1 else (0.0, 1.0)
    return Interval(value=float(areas[0]), low=float(low), high=float(high))


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


def _ranked(scores: Floats) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the order of scores, and where in it each run of equal ones starts."""
    order = np.argsort(scores, kind="stable")
    return order, np.flatnonzero(np.diff(scores[order], prepend=-np.inf) > 0)


def _areas(times: Floats, unsafe: Flags, starts: npt.NDArray[np.intp]) -> Floats:
    """Return an area per row of ``times``, how often each score counts; none of one side alone."""
    bad = np.add.reduceat(times * unsafe, starts, axis=1)
    good = np.add.reduceat(times * ~unsafe, starts, axis=1)
    pairs = bad.sum(axis=1) * good.sum(axis=1)
    won = (bad * (good.cumsum(axis=1) - good / 2)).sum(axis=1)
    areas: Floats = won[pairs > 0] / pairs[pairs > 0]
    return areas
