"""Hard negatives, and rounds of training in which the data answers to the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor

from workbench.core.errors import ConfigError, DataError
from workbench.diffusion.trainer import TrainingMetrics

__all__ = ["Round", "Weights", "hard_rows", "rounds", "together"]

Data = TypeVar("Data")
Weights = Mapping[str, Tensor]
"""A model's state dict."""


class Round(NamedTuple):
    """One training of a series."""

    number: int
    """From 0."""
    metrics: TrainingMetrics
    weights: Weights


def hard_rows(
    harm: ArrayLike,
    *,
    harmful: Sequence[bool],
    families: Sequence[str],
    share: float = 0.25,
    times: float = 4.0,
) -> Float[Tensor, " rows"]:
    """Return how often to draw each row in the next round, 1 on average.

    Hard are the benign rows that look most harmful, and the harmful ones that look least so, among
    the rows of their side in the same wrapper family: otherwise the wrapper alone would decide.
    Easy rows stay in, a model that sees hard ones alone forgets the rest.

    Args:
        harm: A judge's score of each row, larger being more harmful.
        harmful: Which rows are.
        families: Wrapper family of each row.
        share: Part of each family's and side's rows that is hard, in (0, 1]; at least one row.
        times: How many times as often as the others these are drawn, at least 1.

    Raises:
        ConfigError: If ``share`` or ``times`` is out of range.
        DataError: If there is not one score, label and family per row, or a score is not finite.

    Source:
        Shrivastava et al. 2016, arXiv:1604.03540, section 4; here hard rows weigh more instead of
        being all there is.
    """
    import pandas as pd

    if not 0 < share <= 1 or not times >= 1:
        raise ConfigError(f"share is {share} and times {times}; choose (0, 1] and at least 1")
    scores = np.asarray(harm, dtype=np.float64)
    counts = (len(scores), len(harmful), len(families))
    if len(set(counts)) > 1 or not np.isfinite(scores).all():
        raise DataError(f"{counts} scores, labels, families: give a finite score and each per row")
    sides = np.asarray(harmful, dtype=bool)
    errors = pd.Series(np.where(sides, -scores, scores))
    groups = errors.groupby([sides, np.asarray(families)])
    places = groups.rank(method="first", ascending=False)
    hard = places <= np.ceil(share * groups.transform("size"))
    weights = np.where(hard, times, 1.0)
    return torch.from_numpy(weights / weights.mean())


def rounds(
    train_once: Callable[[Data | None, Weights | None], tuple[TrainingMetrics, Weights]],
    mine: Callable[[Weights], Data],
    n: int,
) -> tuple[Round, list[Round]]:
    """Return the best of several rounds by their metric, and all of them.

    Each round after the first trains on what was mined for the best model so far, such as
    sampling weights or a pair set with attacks on it, and starts from that model's weights.

    Args:
        train_once: Trains on mined data, None in the first round, from weights, None being new
            ones; gives metrics and weights.
        mine: Gives the next round's data for a model's weights.
        n: Rounds in all, at least 1.

    Raises:
        ConfigError: If ``n`` < 1.

    Source:
        Madry et al. 2018, arXiv:1706.06083, eq. 2.1, by rounds instead of steps.
    """
    if n < 1:
        raise ConfigError(f"n is {n}; there must be at least 1 round")
    done = [Round(0, *train_once(None, None))]
    for number in range(1, n):
        best = _best(done)
        done.append(Round(number, *train_once(mine(best.weights), best.weights)))
    return _best(done), done


def together(best: Round, done: Sequence[Round]) -> TrainingMetrics:
    """Return the metrics of the best round, with the steps, time and work of all of them."""
    curve, steps = [], 0
    for one in done:
        curve += [point | {"step": point["step"] + steps} for point in one.metrics["curve"]]
        steps += one.metrics["steps"]
    before = sum(one.metrics["steps"] for one in done[: best.number])
    train_s = sum(one.metrics["train_s"] for one in done)
    samples = sum(one.metrics["samples_per_s"] * one.metrics["train_s"] for one in done)
    attainable = [one.metrics["attainable"] for one in done]
    return {
        **best.metrics,
        "initial": done[0].metrics["initial"],
        "curve": curve,
        "steps": steps,
        "best_step": best.metrics["best_step"] + before,
        "train_s": train_s,
        "cpu_s": sum(one.metrics["cpu_s"] for one in done),
        "samples_per_s": samples / train_s,
        "flops": sum(one.metrics["flops"] for one in done),
        "attainable": sum(attainable) if all(attainable) else 0.0,
        "notes": [note for one in done for note in one.metrics["notes"]],
    }


def _best(done: list[Round]) -> Round:
    return min(done, key=lambda one: one.metrics["best"])
