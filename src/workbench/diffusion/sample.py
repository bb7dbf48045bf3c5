"""The sampler as a pure function: from noise and a prompt to a residual."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.diffusion.process import Guess

__all__ = ["ddim", "level_path"]


def level_path(*, levels: int, steps: int) -> list[int]:
    """Return the noise levels that a sampler visits, from ``levels`` down to 0, evenly."""
    return [round(levels * (steps - index) / steps) for index in range(steps + 1)]


def ddim(
    guess: Guess,
    prompt: Float[Tensor, "batch dim"],
    *,
    start: Float[Tensor, "batch dim"],
    signal: Float[Tensor, " levels"],
    steps: int,
) -> Float[Tensor, "batch dim"]:
    """Return residuals, following the deterministic path.

    Args:
        guess: Denoiser.
        prompt: Prompt latents.
        start: Value at the highest noise level: noise, or zero for its mean.
        signal: Signal levels of the schedule, ``(T + 1,)``.
        steps: Denoiser calls, 1 to T.

    Source:
        Song et al. 2021, arXiv:2010.02502, eq. 12 with sigma = 0.
    """
    levels = signal.shape[0] - 1
    state = start
    for here, there in pairwise(level_path(levels=levels, steps=steps)):
        times = torch.full((len(state),), here / levels, dtype=state.dtype)
        clean = guess(state, times, prompt)
        kept, kept_next = float(signal[here]), float(signal[there])
        noise = (state - kept**0.5 * clean) / (1 - kept) ** 0.5
        state = kept_next**0.5 * clean + (1 - kept_next) ** 0.5 * noise
    return state
