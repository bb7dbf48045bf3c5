"""The noise schedule as a pure function: how much signal is left at each noise level."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.core.errors import ConfigError

__all__ = ["signal_levels"]

_BETA_MAX = 0.999


def signal_levels(*, steps: int, offset: float = 0.008) -> Float[Tensor, " levels"]:
    """Return the share of signal variance at each noise level, level 0 being clean.

    Args:
        steps: Noise levels, >= 1.
        offset: Keeps the first steps from vanishing; dimensionless.

    Returns:
        ``(steps + 1,)`` float64, from 1 down to nearly 0: the products of 1 − beta.

    Raises:
        ConfigError: If ``steps`` < 1.

    Source:
        Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 17 (cosine), betas capped at 0.999.
    """
    if steps < 1:
        raise ConfigError(f"steps is {steps}; a schedule needs at least 1")
    times = torch.arange(steps + 1, dtype=torch.float64) / steps
    levels = torch.cos((times + offset) / (1 + offset) * math.pi / 2) ** 2
    betas = (1 - levels[1:] / levels[:-1]).clamp(max=_BETA_MAX)
    return torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - betas, dim=0)])
