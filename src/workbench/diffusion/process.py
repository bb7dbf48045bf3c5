"""The forward processes: residuals, their noising, what a network predicts of them, and its loss.

What is diffused is the correction, ``√dim · (clean − adversarial)``: of about unit variance per
component, and zero where nothing has to change. So zero is the prompt itself, which is where the
bridge begins.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, TypeAlias, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.embedding.encoder import FloatArray

__all__ = [
    "Guess", "Prediction", "add_bridge_noise", "add_noise", "apply_correction", "guess_loss",
    "prediction_target", "to_clean", "to_latent",
]  # fmt: skip

PromptT = TypeVar("PromptT")
Guess: TypeAlias = Callable[[Tensor, Tensor, PromptT], Tensor]
"""(noisy residuals, their times as fractions, prompts) → guesses of the clean residuals."""

Prediction: TypeAlias = Literal["x0", "eps", "v"]
"""What a network says: the clean residual, the noise, or the velocity between the two."""


def to_latent(vectors: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
    """Return unit vectors, or differences of such, at about unit variance per component.

    Source:
        Ramesh et al. 2022, arXiv:2204.06125 (code of the prior: embeddings times √dim).
    """
    return vectors * math.sqrt(vectors.shape[-1])


def add_noise(
    residual: Float[Tensor, "*batch dim"],
    *,
    noise: Float[Tensor, "*batch dim"],
    levels: Int[Tensor, "*batch"],
    signal: Float[Tensor, " levels"],
) -> Float[Tensor, "*batch dim"]:
    """Return residuals at noise levels: ``√ā · residual + √(1 − ā) · noise``.

    ``levels`` are 0 to T, of each row; ``signal`` is the schedule's, ``(T + 1,)``.

    Source:
        Ho et al. 2020, arXiv:2006.11239, eq. 4.
    """
    kept = signal[levels].to(residual.dtype)[..., None]
    return kept.sqrt() * residual + (1 - kept).sqrt() * noise


def add_bridge_noise(
    residual: Float[Tensor, "*batch dim"],
    *,
    noise: Float[Tensor, "*batch dim"],
    levels: Int[Tensor, "*batch"],
    signal: Float[Tensor, " levels"],
) -> Float[Tensor, "*batch dim"]:
    """Return points of the bridge from clean residuals to zero, the prompt, at its levels.

    With ``w`` the weight of the clean end, ``w · residual + √(w (1 − w)) · noise``; the bridge's
    whole variance is 1.

    Source:
        Liu et al. 2023, arXiv:2302.05872, eq. 11 with X1 = 0.
    """
    weight = signal[levels].to(residual.dtype)[..., None]
    return weight * residual + (weight * (1 - weight)).sqrt() * noise


def prediction_target(
    residual: Float[Tensor, "*batch dim"],
    *,
    noise: Float[Tensor, "*batch dim"],
    kept: Float[Tensor, "*#batch 1"],
    prediction: Prediction,
) -> Float[Tensor, "*batch dim"]:
    """Return what a network should say at a share ``kept`` of signal variance.

    Source:
        Salimans & Ho 2022, arXiv:2202.00512, section 4 and appendix D (v = αε − σx).
    """
    if prediction == "x0":
        return residual
    if prediction == "eps":
        return noise
    return kept.sqrt() * noise - (1 - kept).sqrt() * residual


def to_clean(
    output: Float[Tensor, "*batch dim"],
    *,
    noisy: Float[Tensor, "*batch dim"],
    kept: Float[Tensor, "*#batch 1"],
    prediction: Prediction,
) -> Float[Tensor, "*batch dim"]:
    """Return the guess of the clean residual that a network's output stands for.

    Source:
        Salimans & Ho 2022, arXiv:2202.00512, section 4 and appendix D (x = αz − σv).
    """
    if prediction == "x0":
        return output
    if prediction == "eps":
        return (noisy - (1 - kept).sqrt() * output) / kept.sqrt()
    return kept.sqrt() * noisy - (1 - kept).sqrt() * output


def guess_loss(
    guess: Float[Tensor, "*batch dim"], residual: Float[Tensor, "*batch dim"]
) -> Float[Tensor, ""]:
    """Return the mean squared error of guesses, every noise level weighing 1.

    The usual weights (SNR, min-SNR) go to zero at pure noise, which is where one-step sampling
    asks its only question.

    Source:
        Salimans & Ho 2022, arXiv:2202.00512, section 4 (weights of x-prediction).
    """
    return torch.nn.functional.mse_loss(guess, residual)


def apply_correction(vectors: FloatArray, prediction: FloatArray, *, gain: float) -> FloatArray:
    """Return ``normalize(x + gain · (prediction − x))``, row by row.

    Vectors are unit rows ``(n, dim)``, predictions of any length; gain 0 leaves the vectors, 1
    gives the prediction, more overshoots.
    """
    moved = vectors + np.float32(gain) * (prediction - vectors)
    lengths = np.linalg.norm(moved, axis=1, keepdims=True)
    return np.asarray(moved / np.maximum(lengths, np.float32(1e-12)), dtype=np.float32)
