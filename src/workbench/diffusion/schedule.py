"""Schedules as pure functions: how much of the clean end is left at each noise level."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.core.errors import ConfigError

__all__ = ["ScheduleKind", "bridge_levels", "signal_levels"]

ScheduleKind: TypeAlias = Literal["cosine", "linear"]

_BETA_MAX = 0.999
_LINEAR_STEPS = 1_000
_LINEAR_BETAS = (1e-4, 0.02)  # at 1,000 steps


def signal_levels(
    *, steps: int, kind: ScheduleKind = "cosine", offset: float = 0.008
) -> Float[Tensor, " levels"]:
    """Return the share of signal variance at each noise level, level 0 being clean.

    Args:
        steps: Noise levels, >= 1.
        kind: Cosine, or linear betas; the latter are scaled so that, whatever the steps, the end
            is as near to noise as after the paper's 1,000.
        offset: Keeps the first steps of the cosine from vanishing; dimensionless.

    Returns:
        ``(steps + 1,)`` float64, from 1 down to nearly 0: the products of 1 − beta.

    Raises:
        ConfigError: If ``steps`` < 1.

    Source:
        Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 17 (cosine); Ho et al. 2020,
        arXiv:2006.11239, section 4 (linear, 1e-4 to 0.02); betas capped at 0.999.
    """
    times = _times(steps)
    if kind == "cosine":
        levels = torch.cos((times + offset) / (1 + offset) * math.pi / 2) ** 2
        betas = 1 - levels[1:] / levels[:-1]
    else:
        low, high = (beta * _LINEAR_STEPS / steps for beta in _LINEAR_BETAS)
        betas = torch.linspace(low, high, steps, dtype=torch.float64)
    kept = torch.cumprod(1 - betas.clamp(max=_BETA_MAX), dim=0)
    return torch.cat([torch.ones(1, dtype=torch.float64), kept])


def bridge_levels(*, steps: int) -> Float[Tensor, " levels"]:
    """Return the weight of the clean end at each level of a bridge, 1 at level 0 and 0 at the top.

    The betas are symmetric, small at both ends: their square root rises evenly up to the middle.

    Args:
        steps: Levels, >= 1.

    Returns:
        ``(steps + 1,)`` float64: the share of the bridge's whole variance that is still to come.

    Raises:
        ConfigError: If ``steps`` < 1.

    Source:
        Liu et al. 2023, arXiv:2302.05872, section 4 (symmetric schedule), with the weights of
        eq. 11: 1 − sigma² over the sum of sigma² and its counterpart from the other end.
    """
    times = _times(steps)
    middles = (times[1:] + times[:-1]) / 2
    spent = torch.cumsum(torch.minimum(middles, 1 - middles) ** 2, dim=0)
    return torch.cat([torch.ones(1, dtype=torch.float64), 1 - spent / spent[-1]])


def _times(steps: int) -> Float[Tensor, " levels"]:
    if steps < 1:
        raise ConfigError(f"steps is {steps}; a schedule needs at least 1")
    return torch.arange(steps + 1, dtype=torch.float64) / steps
