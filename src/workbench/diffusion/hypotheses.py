"""Several answers in one pass: heads of which the nearest one learns."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from workbench.diffusion.networks import NetworkKind, Reading, Trunk

__all__ = ["MultiHypothesis", "winner_takes_most"]

_BREAK_TIES = 0.02
_RELAXATION = 0.05
_SCORE_SHARE = 0.1


class MultiHypothesis(Trunk):
    """Several answers per prompt in one pass, and how likely each is the one to believe.

    The weights of the heads start at zero and their biases nearly so: before training each answer
    is almost no correction at all, yet one of them is nearest. Arguments as in :class:`Trunk`, and
    ``hypotheses``, the answers per prompt, >= 2.
    """

    def __init__(
        self, kind: NetworkKind, *, dim: int, hidden: int, hypotheses: int, **rest: Any
    ) -> None:
        super().__init__(kind, dim=dim, hidden=hidden, **rest)
        self.hypotheses = hypotheses
        self.output = nn.Linear(hidden, hypotheses * dim)
        self.score = nn.Linear(hidden, hypotheses)
        nn.init.zeros_(self.output.weight)
        nn.init.normal_(self.output.bias, std=_BREAK_TIES)

    def forward(
        self, reading: Reading
    ) -> tuple[Float[Tensor, "batch hypotheses dim"], Float[Tensor, "batch hypotheses"]]:
        """Return latent residuals, and the logits of the chance that each is the nearest."""
        states = self.direct_states(reading)[:, 0]
        residuals = self.output(states).unflatten(-1, (self.hypotheses, -1))
        return reading.pull + residuals, self.score(states)


def winner_takes_most(
    outputs: Float[Tensor, "batch hypotheses dim"],
    scores: Float[Tensor, "batch hypotheses"],
    residual: Float[Tensor, "batch dim"],
) -> Float[Tensor, ""]:
    """Return the squared error of the nearest answers, a little of all others', and the scores'.

    The little keeps heads alive that are never nearest.

    Source:
        Rupprecht et al. 2017, arXiv:1612.00197, section 3 (relaxed winner takes all); Letzelter
        et al. 2023, arXiv:2311.01052, section 2 (scores).
    """
    errors = (outputs - residual[:, None]).square().mean(dim=-1)
    nearest = errors.argmin(dim=-1)
    winner = errors.gather(1, nearest[:, None])[:, 0]
    others = (errors.sum(dim=-1) - winner) / (errors.shape[-1] - 1)
    relaxed = (1 - _RELAXATION) * winner + _RELAXATION * others
    score_error = nn.functional.cross_entropy(scores, nearest)
    return relaxed.mean() + _SCORE_SHARE * score_error
