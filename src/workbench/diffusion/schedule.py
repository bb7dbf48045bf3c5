"""Noise schedules as pure functions: how much signal is left at each noise level."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.core.errors import ConfigError
from workbench.diffusion.config import ScheduleName

__all__ = ["cosine_betas", "linear_betas", "signal_levels"]

_BETA_MAX = 0.999
_REFERENCE_STEPS = 1000


def cosine_betas(*, steps: int, offset: float = 0.008) -> Float[Tensor, " steps"]:
    """Return the variances of the cosine schedule, first step first.

    Args:
        steps: Noise levels, >= 1.
        offset: Keeps the first steps from vanishing; dimensionless.

    Returns:
        ``(steps,)`` float64 betas in (0, 0.999].

    Raises:
        ConfigError: If ``steps`` < 1.

    Source:
        Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 17.
    """
    _check(steps)
    times = torch.arange(steps + 1, dtype=torch.float64) / steps
    levels = torch.cos((times + offset) / (1 + offset) * math.pi / 2) ** 2
    return (1 - levels[1:] / levels[:-1]).clamp(max=_BETA_MAX)


def linear_betas(*, steps: int, first: float = 1e-4, last: float = 0.02) -> Float[Tensor, " steps"]:
    """Return the variances of the linear schedule, scaled to the number of steps.

    Args:
        steps: Noise levels, >= 1.
        first: Beta of the first of 1,000 steps.
        last: Beta of the last of 1,000 steps.

    Returns:
        ``(steps,)`` float64 betas in (0, 0.999].

    Raises:
        ConfigError: If ``steps`` < 1.

    Source:
        Ho et al. 2020, arXiv:2006.11239, section 4; scaled so that the total noise does not
        depend on the number of steps.
    """
    _check(steps)
    scale = _REFERENCE_STEPS / steps
    betas = torch.linspace(first * scale, last * scale, steps, dtype=torch.float64)
    return betas.clamp(max=_BETA_MAX)


def signal_levels(name: ScheduleName, *, steps: int) -> Float[Tensor, " levels"]:
    """Return the share of signal variance at each noise level, level 0 being clean.

    Args:
        name: Schedule.
        steps: Noise levels, >= 1.

    Returns:
        ``(steps + 1,)`` float64, from 1 down to nearly 0: the products of 1 − beta.

    Raises:
        ConfigError: If ``steps`` < 1.

    Source:
        Ho et al. 2020, arXiv:2006.11239, eq. 4 (alpha-bar).
    """
    betas = cosine_betas(steps=steps) if name == "cosine" else linear_betas(steps=steps)
    return torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - betas, dim=0)])


def _check(steps: int) -> None:
    if steps < 1:
        raise ConfigError(f"steps is {steps}; a schedule needs at least 1")
