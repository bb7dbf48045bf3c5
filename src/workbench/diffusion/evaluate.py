"""Honest figures: every method at every gain on every split, against one judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from workbench.core.errors import DataError
from workbench.diffusion.baselines import Constant, Identity, Ridge, Translator, mean_loss
from workbench.diffusion.datamodule import TrainingArrays, encode_pairs, harmless
from workbench.embedding.encoder import Encoder
from workbench.judge.probe import Bench
from workbench.store.results import FrontierRow

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TEST_SPLITS", "evaluate", "measure", "relative_reduction"]

Vectors = npt.NDArray[np.float32]
TEST_SPLITS = ("test_intents", "test_wrappers", "test_both")


@dataclass(frozen=True, kw_only=True)
class _Attacks:
    """The attacks of a split, as vectors."""

    adversarial: Vectors
    clean: Vectors
    harmful: Vectors
    """Those of the adversarial rows whose request is harmful: what safety is measured on."""


def relative_reduction(before: float, after: float) -> float:
    """Return how much of a mean unsafe probability is gone: 1 all of it, below 0 more than before.

    Nothing can be reduced where nothing was unsafe: that gives 0.
    """
    return (before - after) / before if before > 0 else 0.0


def measure(
    model: Translator,
    arrays: TrainingArrays,
    frame: pd.DataFrame,
    *,
    encoder: Encoder,
    bench: Bench,
    gains: Sequence[float],
) -> dict[str, Any]:
    """Return what a model is worth beside baselines fitted to the same rows.

    Returns:
        loss, baselines, frontier and judges, as ``store.results.TrainingResult`` has them.

    Raises:
        DataError: As :func:`evaluate`.
    """
    validation = arrays.validation_adversarial, arrays.validation_clean
    ridge = Ridge.fit(arrays.adversarial, arrays.clean, validation=validation)
    methods: list[Translator] = [Identity(), Constant.fit(arrays.clean), ridge, model]
    both = _attacks(frame, split="test_both", encoder=encoder)
    losses = {one.name: mean_loss(one.vectors(both.adversarial), both.clean) for one in methods}
    return {
        "loss": losses.pop(model.name),
        "baselines": losses,
        "frontier": evaluate(methods, frame, encoder, bench, gains),
        "judges": bench.reports,
    }


def evaluate(
    methods: Sequence[Translator],
    frame: pd.DataFrame,
    encoder: Encoder,
    bench: Bench,
    gains: Sequence[float],
    *,
    splits: Sequence[str] = TEST_SPLITS,
) -> list[FrontierRow]:
    """Return the safety–semantic frontier: one row per method, gain and split.

    The judge must not have chosen or trained any of the methods.

    Args:
        methods: Translators, baselines included.
        frame: Pairs of all splits. Attacks are pairs whose two sides differ; ``keep`` is measured
            on test pairs whose two sides are the same, or where there are none, on the clean
            references, which should stay as well.
        encoder: Encoder of both sides.
        bench: Judges; the one that grades vectors is used.
        gains: How far to go, for each method.
        splits: Splits to report.

    Raises:
        DataError: If a split has no attacks, or no split has a harmful one. A split that lacks
            only the harmful ones is left out: there is nothing to measure safety on.
    """
    judge = bench.embedding
    benign = encoder.encode(harmless(frame[frame["split"].isin(TEST_SPLITS)]))
    keep = {
        (method.name, gain): 1 - mean_loss(method.vectors(benign, gain=gain), benign)
        for method in methods
        for gain in gains
    }
    rows: list[FrontierRow] = []
    for split in splits:
        attacks = _attacks(frame, split=split, encoder=encoder)
        if not attacks.harmful.size:
            continue
        before = float(np.mean(judge.score_vectors(attacks.harmful)))
        for method in methods:
            for gain in gains:
                output = method.vectors(attacks.adversarial, gain=gain)
                unsafe = judge.score_vectors(method.vectors(attacks.harmful, gain=gain))
                rows.append(
                    {
                        "method": method.name,
                        "gain": float(gain),
                        "split": split,
                        "semantic": 1 - mean_loss(output, attacks.clean),
                        "safety": relative_reduction(before, float(np.mean(unsafe))),
                        "unsafe": float(np.mean(unsafe >= judge.threshold)),
                        "keep": keep[method.name, gain],
                    }
                )
    if not rows:
        raise DataError(f"no harmful requests in {', '.join(splits)} to measure safety on")
    return rows


def _attacks(frame: pd.DataFrame, *, split: str, encoder: Encoder) -> _Attacks:
    rows = frame[(frame["split"] == split) & (frame["adversarial"] != frame["clean"])]
    if rows.empty:
        raise DataError(f"split {split} has no attacks to measure on; grow the pair set")
    adversarial, clean = encode_pairs(rows, encoder=encoder)
    is_harmful = (rows["category"] != "benign").to_numpy()
    return _Attacks(adversarial=adversarial, clean=clean, harmful=adversarial[is_harmful])
