"""What the trainer asks of a model and of its data, and data that is tensors in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.core.errors import DataError

__all__ = ["Batch", "TensorData", "Trainable", "TrainingData", "tensors_id"]

Batch = Any
"""A NamedTuple of tensors with a row per example."""


def tensors_id(tensors: Mapping[str, Tensor]) -> str:
    """Return the hash of named tensors: names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class Trainable(Protocol):
    """A ``torch.nn.Module`` that knows its loss."""

    def loss(self, batch: Batch, generator: torch.Generator) -> Float[Tensor, ""]:
        """Return the mean loss over the rows of a batch.

        ``generator`` is the CPU's wherever the model is, so that noise is the same everywhere:
        draw with it, then move what was drawn to the batch.
        """
        ...


class TrainingData(Protocol):
    """Rows that batches are drawn from."""

    @property
    def id(self) -> str:
        """Content hash, to tell which checkpoints belong to the data."""
        ...

    def draw(self, size: int, generator: torch.Generator) -> Int[Tensor, " size"]:
        """Return the rows of one batch."""
        ...

    def batch(self, rows: Int[Tensor, " rows"]) -> Batch:
        """Return the tensors of rows, as the loss takes them."""
        ...


class TensorData:
    """Tensors in memory, drawn with replacement: no workers, no copies between processes.

    Args:
        tensors: A NamedTuple of tensors of equal length.
        weights: How often each row is drawn, relative to the others; None draws all alike.
    """

    def __init__(
        self, tensors: NamedTuple, *, weights: Float[Tensor, " rows"] | None = None
    ) -> None:
        lengths = {len(one) for one in tensors}
        if len(lengths) != 1 or lengths == {0}:
            raise DataError(f"training data has columns of {sorted(lengths)} rows; grow them alike")
        self.tensors = tensors
        self.rows = lengths.pop()
        self._cumulative = None if weights is None else self._checked(weights)

    def _checked(self, weights: Tensor) -> Tensor:
        usable = weights.shape == (self.rows,) and bool((weights >= 0).all())
        cumulative = weights.double().cumsum(0)
        if not usable or not 0 < float(cumulative[-1]) < float("inf"):
            raise DataError(f"weights must be {self.rows} finite numbers from 0, not all of them 0")
        return cumulative / cumulative[-1]

    @property
    def id(self) -> str:
        """Hash of names, shapes, values and weights."""
        columns: dict[str, Tensor] = self.tensors._asdict()
        drawn = {} if self._cumulative is None else {" weights": self._cumulative}
        return tensors_id(columns | drawn)

    def draw(self, size: int, generator: torch.Generator) -> Int[Tensor, " size"]:
        """Return the rows of one batch."""
        if self._cumulative is None:
            return torch.randint(self.rows, (size,), generator=generator)
        places = torch.rand(size, generator=generator, dtype=torch.float64)
        return torch.searchsorted(self._cumulative, places, right=True)

    def batch(self, rows: Int[Tensor, " rows"]) -> Batch:
        """Return the tensors of rows."""
        columns = cast("Any", type(self.tensors))
        return columns(*(one.index_select(0, rows) for one in self.tensors))
