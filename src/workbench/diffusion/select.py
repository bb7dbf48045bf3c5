"""The choice among candidates, by a judge that has no part in what is reported."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.core.errors import ConfigError
from workbench.embedding.encoder import FloatArray
from workbench.judge.calibrate import Floats

__all__ = ["VectorJudge", "best_of"]


class VectorJudge(Protocol):
    """What says how unsafe a vector is."""

    @property
    def id(self) -> str:
        """Name: equal ids, equal scores."""

    def score_vectors(self, vectors: FloatArray) -> Floats:
        """Return ``(n,)`` scores of ``(n, dim)`` unit rows, higher for worse."""


def best_of(
    candidates: Float[Tensor, "batch candidates dim"],
    *,
    selecting: VectorJudge,
    reporting: Collection[str],
) -> Float[Tensor, "batch dim"]:
    """Return the candidate of each prompt that a judge likes best; of equals, the first.

    Args:
        candidates: Unit vectors.
        selecting: Judge that chooses.
        reporting: Ids of the judges whose scores of the chosen are reported.

    Raises:
        ConfigError: If the judge that chooses also reports: its score would grade itself.
    """
    if selecting.id in reporting:
        raise ConfigError(
            f"judge {selecting.id!r} chooses and reports; let another one choose, or leave it out "
            f"of the report"
        )
    rows = candidates.flatten(0, 1).numpy(force=True)
    scores = selecting.score_vectors(rows).reshape(candidates.shape[:2])
    best = torch.from_numpy(np.argmin(scores, axis=1)).to(candidates.device)
    return candidates.take_along_dim(best[:, None, None], dim=1)[:, 0]
