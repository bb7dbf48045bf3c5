"""How far two judges agree, beyond what chance would give."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from workbench.core.errors import DataError

__all__ = ["Agreement", "agreement"]


class Agreement(NamedTuple):
    """Two judges on the same texts."""

    share: float
    """Share of texts on which both say the same."""
    kappa: float
    """Cohen's kappa: 1 perfect, 0 as by chance; 0 too where chance alone would always agree."""


def agreement(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> Agreement:
    """Return how far two judges' flags agree.

    Raises:
        DataError: If the two have different lengths, or none.

    Source:
        Cohen 1960, "A coefficient of agreement for nominal scales".
    """
    if len(first) != len(second) or not len(first):
        raise DataError(
            f"agreement needs flags of the same texts; got {len(first)} and {len(second)}"
        )
    share = float((first == second).mean())
    rate, other_rate = float(first.mean()), float(second.mean())
    chance = rate * other_rate + (1 - rate) * (1 - other_rate)
    return Agreement(share, (share - chance) / (1 - chance) if chance < 1 else 0.0)
