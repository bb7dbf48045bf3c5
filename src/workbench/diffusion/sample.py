"""Samplers as pure functions of one signature: from a start and a prompt to residuals.

Each takes ``(guess, prompt, *, start, signal, steps, generator)``: a guess of the clean residual,
what it is asked with, the state at the top level, the schedule's levels from clean to top, how
often to ask, and where noise comes from. Without a generator no noise is added, which leaves the
mean of each step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any, Final, TypeAlias

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from workbench.diffusion.process import Guess, PromptT

__all__ = [
    "BRIDGE_SAMPLERS", "NOISE_SAMPLERS", "Sampler", "bridge", "ddim", "ddpm", "dpm_solver_pp",
    "level_path", "one_step",
]  # fmt: skip

Residuals: TypeAlias = Float[Tensor, "*batch dim"]
Levels: TypeAlias = Float[Tensor, " levels"]
Sampler: TypeAlias = Callable[..., Tensor]


def level_path(*, levels: int, steps: int) -> list[int]:
    """Return the noise levels that a sampler visits, from ``levels`` down to 0, evenly."""
    return [round(levels * (steps - index) / steps) for index in range(steps + 1)]


def ddim(
    guess: Guess[PromptT],
    prompt: PromptT,
    *,
    start: Residuals,
    signal: Levels,
    steps: int,
    generator: Generator | None = None,  # noqa: ARG001  # one signature for all samplers
) -> Residuals:
    """Return residuals, following the deterministic path.

    Args:
        guess: Denoiser.
        prompt: Prompt latents.
        start: Value at the highest noise level: noise, or zero for its mean.
        signal: Signal levels of the schedule, ``(T + 1,)``.
        steps: Denoiser calls, 1 to T.
        generator: Not used.

    Source:
        Song et al. 2021, arXiv:2010.02502, eq. 12 with sigma = 0.
    """
    state = start
    for kept, kept_next, times in _steps(state, signal=signal, steps=steps):
        clean = guess(state, times, prompt)
        noise = (state - kept**0.5 * clean) / (1 - kept) ** 0.5
        state = kept_next**0.5 * clean + (1 - kept_next) ** 0.5 * noise
    return state


def ddpm(
    guess: Guess[PromptT],
    prompt: PromptT,
    *,
    start: Residuals,
    signal: Levels,
    steps: int,
    generator: Generator | None = None,
) -> Residuals:
    """Return residuals drawn step by step from the posterior given the guess; see :func:`ddim`.

    Source:
        Ho et al. 2020, arXiv:2006.11239, eq. 6 and 7, between the levels that are visited.
    """
    state = start
    for kept, kept_next, times in _steps(state, signal=signal, steps=steps):
        clean = guess(state, times, prompt)
        passed = kept / kept_next
        to_clean = kept_next**0.5 * (1 - passed) / (1 - kept)
        to_state = passed**0.5 * (1 - kept_next) / (1 - kept)
        deviation = math.sqrt((1 - kept_next) * (1 - passed) / (1 - kept))
        state = to_clean * clean + to_state * state + deviation * _noise(state, generator)
    return state


def dpm_solver_pp(
    guess: Guess[PromptT],
    prompt: PromptT,
    *,
    start: Residuals,
    signal: Levels,
    steps: int,
    generator: Generator | None = None,  # noqa: ARG001  # one signature for all samplers
) -> Residuals:
    """Return residuals, following the deterministic path to second order; see :func:`ddim`.

    The first step has no predecessor and the last ends at infinite signal: both are of first
    order.

    Source:
        Lu et al. 2022, arXiv:2211.01095, algorithm 2 (DPM-Solver++(2M)).
    """
    state, previous, stride_before = start, None, 0.0
    for kept, kept_next, times in _steps(state, signal=signal, steps=steps):
        clean = slope = guess(state, times, prompt)
        stride = _half_log_snr(kept_next) - _half_log_snr(kept)
        if previous is not None and math.isfinite(stride):
            slope = clean + (clean - previous) * stride / (2 * stride_before)
        shrink = ((1 - kept_next) / (1 - kept)) ** 0.5
        state = shrink * state - kept_next**0.5 * math.expm1(-stride) * slope
        previous, stride_before = clean, stride
    return state


def one_step(
    guess: Guess[PromptT],
    prompt: PromptT,
    *,
    start: Residuals,
    signal: Levels,  # noqa: ARG001  # one signature for all samplers
    steps: int,  # noqa: ARG001
    generator: Generator | None = None,  # noqa: ARG001
) -> Residuals:
    """Return the guess at the top level, whatever the steps; see :func:`ddim`."""
    return guess(start, start.new_ones(start.shape[:-1]), prompt)


def bridge(
    guess: Guess[PromptT],
    prompt: PromptT,
    *,
    start: Residuals,
    signal: Levels,
    steps: int,
    generator: Generator | None = None,
) -> Residuals:
    """Return residuals drawn along a bridge that starts at the prompt, where the residual is zero.

    Without a generator this is the path of optimal transport.

    Args:
        guess: Denoiser.
        prompt: Prompt latents.
        start: Zeros.
        signal: Levels of :func:`workbench.diffusion.schedule.bridge_levels`, ``(T + 1,)``.
        steps: Denoiser calls, 1 to T.
        generator: Draws the noise of each step.

    Source:
        Liu et al. 2023, arXiv:2302.05872, eq. 4 and algorithm 2; without noise, proposition 3.4.
    """
    state = start
    for weight, weight_next, times in _steps(state, signal=signal, steps=steps):
        clean = guess(state, times, prompt)
        left = (1 - weight_next) / (1 - weight)
        deviation = math.sqrt((1 - weight_next) * (1 - left))
        state = (1 - left) * clean + left * state + deviation * _noise(state, generator)
    return state


NOISE_SAMPLERS: Final[Mapping[str, Sampler]] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "dpm_solver_pp": dpm_solver_pp,
    "one_step": one_step,
}
"""Samplers that start from noise, by name."""
BRIDGE_SAMPLERS: Final[Mapping[str, Sampler]] = {"bridge": bridge, "one_step": one_step}
"""Samplers that start from the prompt, by name."""


def _steps(state: Residuals, *, signal: Levels, steps: int) -> Iterator[tuple[float, float, Any]]:
    """Give the level's value, that of the next one, and the times of all rows, step by step."""
    levels = signal.shape[0] - 1
    for here, there in pairwise(level_path(levels=levels, steps=steps)):
        times = state.new_full(state.shape[:-1], here / levels)
        yield float(signal[here]), float(signal[there]), times


def _half_log_snr(kept: float) -> float:
    return math.inf if kept == 1 else 0.5 * math.log(kept / (1 - kept))


def _noise(like: Tensor, generator: Generator | None) -> Tensor:
    if generator is None:
        return torch.zeros_like(like)
    return torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)
