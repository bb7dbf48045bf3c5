"""Training a tagger, and what its training is stopped and judged by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from workbench.core.identity import content_id
from workbench.diffusion.callbacks import Progress
from workbench.diffusion.mining import Weights, hard_rows, together
from workbench.diffusion.mining import rounds as in_rounds
from workbench.diffusion.tagged import TaggedData
from workbench.diffusion.tagger import Tagger, TaggerBatch, TaggerConfig, Tags
from workbench.diffusion.trainer import TrainingMetrics, train
from workbench.diffusion.training_config import TrainingConfig
from workbench.judge.measure import auroc

__all__ = ["tagger_errors", "train_tagger"]

Array = npt.NDArray[np.float64]


def train_tagger(
    config: TaggerConfig,
    training: TrainingConfig,
    *,
    data: TaggedData,
    validation: TaggedData,
    rounds: int = 1,
    folder: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> tuple[TrainingMetrics, Tagger]:
    """Return metrics and a trained tagger with its best weights by ``error`` on validation.

    Args:
        config: What to train.
        training: How.
        data: Texts to train on.
        validation: Texts of other requests.
        rounds: Each after the first goes on from the best weights so far, and draws the texts
            more often whose harm these get wrong.
        folder: Where to keep checkpoints and finished rounds, and to go on from them.
        progress: Told every few steps.

    Raises:
        DataError: If a checkpoint holds NaN.
        StoreError: If a checkpoint cannot be written.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        tagger = Tagger(config)

    def validate(model: nn.Module) -> dict[str, float]:
        return tagger_errors(cast("Tagger", model), validation)

    run = content_id([config.to_json(), validation.id])

    def train_once(weights: Array | None, start: Weights | None) -> tuple[TrainingMetrics, Weights]:
        drawn = data if weights is None else data.weighted(weights)
        metrics = train(
            tagger, drawn, training, validate=validate, metric="error", folder=folder,
            progress=progress, start=start, run=run,
        )  # fmt: skip
        return metrics, {name: one.clone() for name, one in tagger.state_dict().items()}

    def mine(weights: Weights) -> Array:
        tagger.load_state_dict(weights)
        return data.weights * _hard(tagger, data)

    best, done = in_rounds(train_once, mine, rounds)
    tagger.load_state_dict(best.weights)
    return together(best, done), tagger


@torch.no_grad()
def _hard(tagger: Tagger, data: TaggedData) -> Array:
    """Return how often to draw each text, relative to now."""
    harm = np.empty(len(data.rows))
    for rows, _, tags in _read(tagger, data):
        harm[rows] = tags.harm.numpy()
    harmful, families = zip(*((row.harmful, row.family) for row in data.rows), strict=True)
    return hard_rows(harm, harmful=harmful, families=families).numpy()


@torch.no_grad()
def tagger_errors(tagger: Tagger, data: TaggedData) -> dict[str, float]:
    """Return what a tagger gets wrong on texts, each from 0, lower being better.

    ``dewrap``: mean 1 − cosine of the vector to that of the bare request; ``payload``: 1 − F1 of
    the request's tokens; ``detect``: 1 − AUROC of harm; ``error``: their sum.
    """
    harm = np.empty(len(data.rows))
    labels = np.empty(len(data.rows), bool)
    gaps: list[Tensor] = []
    found = wrong = missed = 0
    for rows, batch, tags in _read(tagger, data):
        harm[rows], labels[rows] = tags.harm.numpy(), batch.harmful.numpy() > 0
        gaps.append(1 - (tags.vectors * batch.target).sum(dim=1))
        known = batch.payload_known[batch.mask] > 0
        said, true = tags.payload[known] > 0, batch.payload[batch.mask][known] > 0
        found += int((said & true).sum())
        wrong += int((said & ~true).sum())
        missed += int((~said & true).sum())
    errors = {
        "dewrap": float(torch.cat(gaps).mean()),
        "payload": 1 - 2 * found / max(2 * found + wrong + missed, 1),
        "detect": 1 - auroc(harm, labels),
    }
    return errors | {"error": sum(errors.values())}


def _read(
    tagger: Tagger, data: TaggedData
) -> Iterator[tuple[npt.NDArray[np.int64], TaggerBatch, Tags]]:
    """Give numbers, tensors and tags of all texts, batch by batch."""
    tagger.eval()
    for rows, batch in data.batches():
        yield rows, batch, tagger(batch.states, batch.mask, batch.owners, texts=len(batch.harmful))
