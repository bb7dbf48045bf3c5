"""Ensembles of priors: their mean, and how much their members differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from workbench.core.errors import ConfigError
from workbench.diffusion.networks import Prompt
from workbench.diffusion.prior import Prior

__all__ = ["Ambiguity", "Ensemble", "ambiguity", "diversity"]


class Ambiguity(NamedTuple):
    """Squared errors of an ensemble: ``ensemble = members - ambiguity``."""

    ensemble: float
    """Error of the mean of the members."""
    members: float
    """Mean error of the members."""
    ambiguity: float
    """Mean squared distance of the members from their mean: what the ensemble gains."""


class Ensemble(nn.Module):
    """Specialists that answer together; the roadmap has 3 and 5.

    Args:
        members: Priors of one width, at least 2.
    """

    def __init__(self, members: Sequence[Prior]) -> None:
        super().__init__()
        if len(members) < 2 or len({one.config.dim for one in members}) > 1:  # noqa: PLR2004
            raise ConfigError(
                f"an ensemble needs at least 2 members of one width; it got widths "
                f"{[one.config.dim for one in members]}"
            )
        self.members = nn.ModuleList(members)

    def answers(self, prompt: Prompt, **sampling: Any) -> Float[Tensor, "members batch dim"]:
        """Return the unit vectors of each member; arguments as in :meth:`Prior.sample`."""
        members = cast("list[Prior]", self.members)
        return torch.stack([one.sample(prompt, **sampling)[:, 0] for one in members])

    def sample(self, prompt: Prompt, **sampling: Any) -> Float[Tensor, "batch 1 dim"]:
        """Return the normalized mean of the members' vectors, one candidate."""
        mean = self.answers(prompt, **sampling).mean(dim=0)
        vectors: Tensor = nn.functional.normalize(mean, dim=-1)
        return vectors[:, None]


def diversity(answers: Float[Tensor, "members batch dim"]) -> float:
    """Return the mean of 1 − cosine over all pairs of members: 0 where they are all alike."""
    cosines = torch.einsum("abd,cbd->ac", answers, answers) / answers.shape[1]
    members = len(answers)
    others = (cosines.sum() - cosines.trace()) / (members * (members - 1))
    return float(1 - others)


def ambiguity(
    answers: Float[Tensor, "members batch dim"], target: Float[Tensor, "batch dim"]
) -> Ambiguity:
    """Return what members and their plain mean are off, and the gap between the two.

    Source:
        Krogh & Vedelsby 1995, "Neural network ensembles, cross validation, and active learning",
        eq. 6 with equal weights.
    """
    mean = answers.mean(dim=0)
    return Ambiguity(
        ensemble=_squared_error(mean, target),
        members=_squared_error(answers, target),
        ambiguity=_squared_error(answers, mean),
    )


def _squared_error(rows: Tensor, other: Tensor) -> float:
    return float((rows - other).square().sum(dim=-1).mean())
