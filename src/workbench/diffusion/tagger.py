"""The tagger: which tokens are the request, whether it is harmful, and what it means unwrapped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from workbench.core.errors import ConfigError
from workbench.core.fields import refuse_unknown
from workbench.diffusion.layers import encoder_layers
from workbench.embedding.encoder import MINILM_DIM, MINILM_LAYERS

__all__ = ["Heads", "Tagger", "TaggerBatch", "TaggerConfig", "Tags"]

_TAG_SHARE, _WRAPPED_SHARE, _VECTOR_SHARE = 2.0, 0.3, 2.0
"""Weights of the losses beside detection's, chosen once on validation."""


@dataclass(frozen=True, kw_only=True)
class TaggerConfig:
    """Size and freedom of a tagger."""

    hidden: int = 384
    """Width of its heads: the one knob of size."""
    tuned_layers: int = 2
    """Layers of the encoder that are trained further, from the last; 0 keeps it as published."""
    dropout: float = 0.1
    """Share of activations hidden in training."""

    def __post_init__(self) -> None:
        if self.hidden < 1:
            raise ConfigError(f"hidden is {self.hidden}; it must be at least 1")
        if not 0 <= self.tuned_layers <= MINILM_LAYERS:
            raise ConfigError(f"tuned_layers is {self.tuned_layers}; choose 0 to {MINILM_LAYERS}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout is {self.dropout}; it must be in [0, 1)")

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TaggerConfig:
        """Return the config that :meth:`to_json` wrote; refuse an unknown field."""
        refuse_unknown(values, known=[one.name for one in fields(cls)], where="tagger")
        return cls(**values)


class TaggerBatch(NamedTuple):
    """Windows of some texts, and what is known about them."""

    states: Float[Tensor, "windows tokens dim"]
    """Of the layer below the tuned ones, padded."""
    mask: Bool[Tensor, "windows tokens"]
    """Whether a token is there."""
    owners: Int[Tensor, " windows"]
    """Text of each window."""
    payload: Float[Tensor, "windows tokens"]
    """1 where a token belongs to the request."""
    payload_known: Float[Tensor, "windows tokens"]
    """0 where nobody knows, as in a retelling, and at special tokens."""
    harmful: Float[Tensor, " texts"]
    wrapped: Float[Tensor, " texts"]
    wrapped_known: Float[Tensor, " texts"]
    target: Float[Tensor, "texts dim"]
    """Unit rows: the published encoder's vector of the request."""


class Tags(NamedTuple):
    """What a tagger says of texts."""

    payload: Float[Tensor, " rows"]
    """Logit that a token belongs to the request, of each token that is there."""
    harm: Float[Tensor, " texts"]
    """Logit that the request is harmful."""
    wrapped: Float[Tensor, " texts"]
    """Logit that the request wears a wrapper."""
    vectors: Float[Tensor, "texts dim"]
    """Unit rows: where the published encoder would put the request without its wrapper."""


class Heads(nn.Module):
    """What is read off the states of the last layer; two gates pool them, for harm and meaning."""

    def __init__(self, hidden: int, *, dropout: float) -> None:
        super().__init__()
        self.payload = nn.Linear(MINILM_DIM, 1)
        self.harm_gate = nn.Linear(MINILM_DIM, 1)
        self.vector_gate = nn.Linear(MINILM_DIM, 1)
        self.detect = nn.Sequential(
            nn.Linear(MINILM_DIM, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, 2)
        )
        last = nn.Linear(hidden, MINILM_DIM)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.correct = nn.Sequential(
            nn.LayerNorm(MINILM_DIM), nn.Linear(MINILM_DIM, hidden), nn.GELU(), last
        )

    def forward(
        self, states: Float[Tensor, "rows dim"], owners: Int[Tensor, " rows"], *, texts: int
    ) -> Tags:
        """Return the tags of texts from the states of their tokens, windows end to end."""
        detected = self.detect(_pool(states, self.harm_gate(states)[:, 0], owners, texts=texts))
        pooled = _pool(states, self.vector_gate(states)[:, 0], owners, texts=texts)
        vectors = nn.functional.normalize(pooled + self.correct(pooled), dim=1)
        return Tags(self.payload(states)[:, 0], detected[:, 0], detected[:, 1], vectors)


class Tagger(nn.Module):
    """The tuned layers and the heads; before training its vector is the encoder's own, nearly.

    Args:
        config: Its size.
    """

    def __init__(self, config: TaggerConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = encoder_layers(config.tuned_layers, dropout=config.dropout)
        self.heads = Heads(config.hidden, dropout=config.dropout)

    def forward(
        self,
        states: Float[Tensor, "windows tokens dim"],
        mask: Bool[Tensor, "windows tokens"],
        owners: Int[Tensor, " windows"],
        *,
        texts: int,
    ) -> Tags:
        """Return the tags of texts from the states below the tuned layers."""
        for layer in self.layers:
            states = layer(states, mask)
        owner = owners[:, None].expand(mask.shape)[mask]
        tags: Tags = self.heads(states[mask], owner, texts=texts)
        return tags

    def loss(self, batch: TaggerBatch, generator: Generator) -> Float[Tensor, ""]:  # noqa: ARG002
        """Return the weighted sum of the losses of all heads."""
        tags = self(batch.states, batch.mask, batch.owners, texts=len(batch.harmful))
        loss: Tensor = (
            binary_cross_entropy_with_logits(tags.harm, batch.harmful)
            + _TAG_SHARE
            * _known(tags.payload, batch.payload[batch.mask], batch.payload_known[batch.mask])
            + _WRAPPED_SHARE * _known(tags.wrapped, batch.wrapped, batch.wrapped_known)
            + _VECTOR_SHARE * (1 - (tags.vectors * batch.target).sum(dim=1)).mean()
        )
        return loss

    @property
    def parameters_trained(self) -> int:
        """Number of trained weights."""
        return sum(one.numel() for one in self.parameters())


def _known(logits: Tensor, labels: Tensor, known: Tensor) -> Tensor:
    errors = binary_cross_entropy_with_logits(logits, labels, reduction="none")
    mean: Tensor = (errors * known).sum() / known.sum().clamp(min=1)
    return mean


def _pool(rows: Tensor, gate: Tensor, owner: Tensor, *, texts: int) -> Tensor:
    """Return the mean of each text's rows, weighted by a softmax of the gate over them."""
    # Mixed precision on a GPU gives half a gate and a whole exponential, which do not add up.
    gate = gate.to(torch.promote_types(gate.dtype, torch.float32))
    floor = torch.full((texts,), torch.finfo(gate.dtype).min, dtype=gate.dtype, device=gate.device)
    highest = floor.scatter_reduce(0, owner, gate.detach(), "amax")
    weights = (gate - highest[owner]).exp()
    total = torch.zeros_like(floor).index_add(0, owner, weights)
    sums = weights.new_zeros(texts, rows.shape[1]).index_add(0, owner, weights[:, None] * rows)
    return sums / total[:, None]
