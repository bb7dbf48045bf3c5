"""The methods that every table shows beside diffusion: identity, constant and ridge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from workbench.core.errors import DataError
from workbench.diffusion.process import apply_correction

__all__ = ["Constant", "Identity", "Ridge", "Translator", "mean_loss"]

Vectors = npt.NDArray[np.float32]
_RIDGE_PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


class Translator(Protocol):
    """Moves vectors of prompts to where their clean versions should be."""

    @property
    def name(self) -> str:
        """Name in tables."""
        ...

    def vectors(self, X: Vectors, *, gain: float = 1.0) -> Vectors:  # noqa: N803
        """Return unit rows ``(n, dim)`` for unit rows ``(n, dim)``; deterministic."""
        ...


def mean_loss(output: Vectors, clean: Vectors) -> float:
    """Return the mean of 1 − cosine between unit rows."""
    return float(1 - np.mean(np.sum(output * clean, axis=1, dtype=np.float64)))


@dataclass(frozen=True)
class Identity:
    """Leaves every prompt as it is."""

    name: str = "identity"

    def vectors(self, X: Vectors, *, gain: float = 1.0) -> Vectors:  # noqa: ARG002, N803
        """Return the rows themselves, whatever the gain."""
        return X


@dataclass(frozen=True)
class Constant:
    """Moves every prompt to the mean of the clean training vectors."""

    mean: Vectors
    name: str = "constant"

    @classmethod
    def fit(cls, clean: Vectors) -> Constant:
        """Return the constant of clean training vectors, ``(n, dim)``."""
        mean = clean.mean(axis=0, dtype=np.float64)
        return cls(mean=(mean / np.linalg.norm(mean)).astype(np.float32))

    def vectors(self, X: Vectors, *, gain: float = 1.0) -> Vectors:  # noqa: N803
        """Return rows moved towards the constant; at gain 1 all are the constant."""
        return apply_correction(X, np.broadcast_to(self.mean, X.shape), gain=gain)


@dataclass(frozen=True)
class Ridge:
    """Linear regression of the correction on the prompt's vector, in closed form."""

    weights: Vectors
    """``(dim, dim)``."""
    offset: Vectors
    """``(dim,)``, added after the weights."""
    penalty: float
    name: str = "ridge"

    @classmethod
    def fit(
        cls,
        adversarial: Vectors,
        clean: Vectors,
        *,
        validation: tuple[Vectors, Vectors],
        penalties: Sequence[float] = _RIDGE_PENALTIES,
    ) -> Ridge:
        """Return the regression whose penalty does best on validation.

        Args:
            adversarial: Unit rows, ``(n, dim)``.
            clean: Their clean references, ``(n, dim)``.
            validation: Adversarial and clean rows that choose the penalty.
            penalties: Penalties to try, on the scale of sums over unit rows.

        Raises:
            DataError: If there are no training or no validation rows.

        Source:
            Hoerl & Kennard 1970, doi:10.1080/00401706.1970.10488634, eq. 2.1, on centred data.
        """
        if not len(adversarial) or not len(validation[0]):
            raise DataError("ridge needs training and validation pairs; grow the pair set")
        inputs = adversarial.astype(np.float64)
        residuals = clean.astype(np.float64) - inputs
        center, target_mean = inputs.mean(axis=0), residuals.mean(axis=0)
        inputs = inputs - center
        # one eigendecomposition serves every penalty
        values, basis = np.linalg.eigh(inputs.T @ inputs)
        projected = basis.T @ (inputs.T @ (residuals - target_mean))
        best: tuple[float, Ridge] | None = None
        for penalty in penalties:
            weights = basis @ (projected / (np.maximum(values, 0) + penalty)[:, None])
            model = cls(
                weights=weights.astype(np.float32),
                offset=(target_mean - center @ weights).astype(np.float32),
                penalty=penalty,
            )
            loss = mean_loss(model.vectors(validation[0]), validation[1])
            if best is None or loss < best[0]:
                best = (loss, model)
        assert best is not None
        return best[1]

    def vectors(self, X: Vectors, *, gain: float = 1.0) -> Vectors:  # noqa: N803
        """Return rows moved by the predicted correction."""
        return apply_correction(X, X + X @ self.weights + self.offset, gain=gain)
