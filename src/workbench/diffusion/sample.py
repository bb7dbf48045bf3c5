"""Samplers as pure functions: from noise and a prompt to a residual."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.core.errors import ConfigError
from workbench.diffusion.process import Guess

__all__ = ["ddim", "ddpm", "level_path", "seeded_noise"]


def level_path(*, levels: int, steps: int) -> list[int]:
    """Return the noise levels that a sampler visits, from ``levels`` down to 0, evenly.

    Raises:
        ConfigError: If ``steps`` is not in 1 to ``levels``.
    """
    if not 1 <= steps <= levels:
        raise ConfigError(f"sampling steps are {steps}; choose 1 to {levels}")
    return [round(levels * (steps - index) / steps) for index in range(steps + 1)]


def seeded_noise(like: Float[Tensor, "batch dim"], *, seed: int) -> Float[Tensor, "batch dim"]:
    """Return standard normal noise of a shape; the same seed gives the same noise anywhere."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)


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
        prompt: Prompt latents, ``(batch, dim)``.
        start: Value at the highest noise level, ``(batch, dim)``: noise, or zero for its mean.
        signal: Signal levels of the schedule, ``(T + 1,)``.
        steps: Denoiser calls, 1 to T.

    Raises:
        ConfigError: If ``steps`` is not in 1 to T.

    Source:
        Song et al. 2021, arXiv:2010.02502, eq. 12 with sigma = 0.
    """
    levels = signal.shape[0] - 1
    path = level_path(levels=levels, steps=steps)
    state = start
    for here, there in pairwise(path):
        times = torch.full((len(state),), here / levels, dtype=state.dtype, device=state.device)
        clean = guess(state, times, prompt)
        kept, kept_next = float(signal[here]), float(signal[there])
        noise = (state - kept**0.5 * clean) / (1 - kept) ** 0.5
        state = kept_next**0.5 * clean + (1 - kept_next) ** 0.5 * noise
    return state


def ddpm(
    guess: Guess,
    prompt: Float[Tensor, "batch dim"],
    *,
    start: Float[Tensor, "batch dim"],
    signal: Float[Tensor, " levels"],
    steps: int,
    seed: int,
) -> Float[Tensor, "batch dim"]:
    """Return residuals drawn by ancestral sampling; the same seed draws the same.

    Args:
        guess: Denoiser.
        prompt: Prompt latents, ``(batch, dim)``.
        start: Noise at the highest level, ``(batch, dim)``.
        signal: Signal levels of the schedule, ``(T + 1,)``.
        steps: Denoiser calls, 1 to T.
        seed: Seed of the noise that each step adds.

    Raises:
        ConfigError: If ``steps`` is not in 1 to T.

    Source:
        Ho et al. 2020, arXiv:2006.11239, eq. 6 and 7, between the levels visited.
    """
    levels = signal.shape[0] - 1
    path = level_path(levels=levels, steps=steps)
    generator = torch.Generator().manual_seed(seed)
    state = start
    for here, there in pairwise(path):
        times = torch.full((len(state),), here / levels, dtype=state.dtype, device=state.device)
        clean = guess(state, times, prompt)
        kept, kept_next = float(signal[here]), float(signal[there])
        step_kept = kept / kept_next
        mean = (
            kept_next**0.5 * (1 - step_kept) * clean + step_kept**0.5 * (1 - kept_next) * state
        ) / (1 - kept)
        variance = (1 - kept_next) * (1 - step_kept) / (1 - kept)
        fresh = torch.randn(state.shape, generator=generator, dtype=state.dtype).to(state.device)
        state = mean + variance**0.5 * fresh
    return state
