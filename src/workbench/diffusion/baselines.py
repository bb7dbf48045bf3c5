"""The methods that every table shows beside diffusion: identity, constant and ridge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from workbench.diffusion.arrays import TrainingArrays
from workbench.diffusion.process import apply_correction
from workbench.embedding.encoder import FloatArray

__all__ = ["Constant", "Identity", "Ridge", "Translator", "mean_loss"]

_RIDGE_PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


class Translator(Protocol):
    """Moves vectors of prompts to where their clean versions should be."""

    @property
    def name(self) -> str:
        """Name in tables."""
        ...

    def vectors(self, X: FloatArray, *, gain: float = 1.0) -> FloatArray:  # noqa: N803
        """Return unit rows ``(n, dim)`` for unit rows ``(n, dim)``; deterministic."""
        ...


def mean_loss(output: FloatArray, clean: FloatArray) -> float:
    """Return the mean of 1 − cosine between unit rows."""
    return float(1 - np.mean(np.sum(output * clean, axis=1, dtype=np.float64)))


@dataclass(frozen=True)
class Identity:
    """Leaves every prompt as it is."""

    name: str = "identity"

    def vectors(self, X: FloatArray, *, gain: float = 1.0) -> FloatArray:  # noqa: ARG002, N803
        """Return the rows themselves, whatever the gain."""
        return X


@dataclass(frozen=True)
class Constant:
    """Moves every prompt to the mean of the clean training vectors."""

    mean: FloatArray
    name: str = "constant"

    @classmethod
    def fit(cls, clean: FloatArray) -> Constant:
        """Return the constant of clean training vectors, ``(n, dim)``."""
        mean = clean.mean(axis=0, dtype=np.float64)
        return cls(mean=(mean / np.linalg.norm(mean)).astype(np.float32))

    def vectors(self, X: FloatArray, *, gain: float = 1.0) -> FloatArray:  # noqa: N803
        """Return rows moved towards the constant; at gain 1 all are the constant."""
        return apply_correction(X, np.broadcast_to(self.mean, X.shape), gain=gain)


@dataclass(frozen=True)
class Ridge:
    """Linear regression of the correction on the prompt's vector, in closed form."""

    weights: FloatArray
    """``(dim, dim)``."""
    offset: FloatArray
    """``(dim,)``, added after the weights."""
    name: str = "ridge"

    @classmethod
    def fit(cls, arrays: TrainingArrays, *, penalties: Sequence[float] = _RIDGE_PENALTIES) -> Ridge:
        """Return the regression whose penalty does best on validation.

        Args:
            arrays: Rows to fit, and rows that choose the penalty.
            penalties: Penalties to try, on the scale of sums over unit rows.

        Source:
            Hoerl & Kennard 1970, doi:10.1080/00401706.1970.10488634, eq. 2.1, on centred data.
        """
        adversarial, clean = arrays.adversarial, arrays.clean
        inputs = adversarial.astype(np.float64)
        residuals = clean.astype(np.float64) - inputs
        center, target_mean = inputs.mean(axis=0), residuals.mean(axis=0)
        inputs = inputs - center
        # one eigendecomposition serves every penalty
        values, basis = np.linalg.eigh(inputs.T @ inputs)
        projected = basis.T @ (inputs.T @ (residuals - target_mean))

        def model(penalty: float) -> Ridge:
            weights = basis @ (projected / (np.maximum(values, 0) + penalty)[:, None])
            offset = (target_mean - center @ weights).astype(np.float32)
            return cls(weights=weights.astype(np.float32), offset=offset)

        def loss(fitted: Ridge) -> float:
            output = fitted.vectors(arrays.validation_adversarial)
            return mean_loss(output, arrays.validation_clean)

        return min(map(model, penalties), key=loss)

    def vectors(self, X: FloatArray, *, gain: float = 1.0) -> FloatArray:  # noqa: N803
        """Return rows moved by the predicted correction."""
        return apply_correction(X, X + X @ self.weights + self.offset, gain=gain)
