"""The network: a residual MLP that guesses the clean residual from a noisy one."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from workbench.diffusion.config import PhaseConfig

__all__ = ["Denoiser", "time_features"]

_LONGEST_PERIOD = 10_000.0


def time_features(times: Float[Tensor, " batch"], *, width: int) -> Float[Tensor, "batch {width}"]:
    """Return sines and cosines of times in [0, 1] at geometric frequencies; the width is even.

    Source:
        Vaswani et al. 2017, arXiv:1706.03762, section 3.5; times are stretched to [0, 1000].
    """
    half = width // 2
    exponents = torch.arange(half, dtype=times.dtype, device=times.device) / half
    angles = 1000 * times[:, None] * torch.exp(-math.log(_LONGEST_PERIOD) * exponents)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class _Block(nn.Module):
    """Pre-norm residual block, modulated by time."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.expand = nn.Linear(hidden, hidden)
        self.contract = nn.Linear(hidden, hidden)

    def forward(
        self, state: Float[Tensor, "batch hidden"], time: Float[Tensor, "batch hidden"]
    ) -> Float[Tensor, "batch hidden"]:
        inner = nn.functional.gelu(self.expand(self.norm(state)) + time)
        correction: Tensor = self.contract(inner)
        return state + correction


class Denoiser(nn.Module):
    """Guess of the clean residual, given the noisy one, the noise level and the prompt.

    The output layers start at zero: before training the guess is no correction at all, and the
    sanitizer is the identity.
    """

    def __init__(self, config: PhaseConfig) -> None:
        super().__init__()
        self.hidden = config.hidden
        self.from_residual = nn.Linear(config.dim, config.hidden, bias=False)
        self.from_prompt = nn.Linear(config.dim, config.hidden)
        self.from_time = nn.Linear(config.hidden, config.hidden)
        self.blocks = nn.ModuleList(_Block(config.hidden) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.hidden)
        self.to_residual = nn.Linear(config.hidden, config.dim)
        nn.init.zeros_(self.to_residual.weight)
        nn.init.zeros_(self.to_residual.bias)

    def forward(
        self,
        noisy: Float[Tensor, "batch dim"],
        times: Float[Tensor, " batch"],
        prompt: Float[Tensor, "batch dim"],
    ) -> Float[Tensor, "batch dim"]:
        """Return the guess for noise levels in [0, 1]; all vectors are of about unit variance."""
        time = self.from_time(time_features(times, width=self.hidden))
        state = self.from_residual(noisy) + self.from_prompt(prompt)
        for block in self.blocks:
            state = block(state, time)
        guess: Tensor = self.to_residual(self.norm(state))
        return guess
