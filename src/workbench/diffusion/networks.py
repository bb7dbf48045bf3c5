"""Networks that predict vectors from noisy ones and a prompt; ``hidden`` sets every size."""

from __future__ import annotations

import math
from typing import Any, Final, Literal, NamedTuple, TypeAlias, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from workbench.diffusion.process import to_latent

__all__ = ["NETWORKS", "Network", "NetworkKind", "Prompt", "Reading", "Trunk", "time_features"]

NetworkKind: TypeAlias = Literal["mlp", "gate", "attention"]
NETWORKS: Final[tuple[NetworkKind, ...]] = ("mlp", "gate", "attention")
"""What a network reads: the pooled vector, also a gated mean of tokens, also all the tokens."""

_LONGEST_PERIOD = 10_000.0


class Prompt(NamedTuple):
    """Prompts of a batch as networks read them."""

    pooled: Float[Tensor, "batch dim"]
    """Unit rows."""
    tokens: Float[Tensor, "batch tokens dim"]
    """States of the last layer, padded; none are needed by a network of kind ``mlp``."""
    mask: Bool[Tensor, "batch tokens"]
    """Whether a token is there; false is padding."""
    condition: Float[Tensor, "batch conditions"]
    """Signals beside the text, see :mod:`workbench.diffusion.condition`; zeros are unknown."""


class Reading(NamedTuple):
    """What a network keeps of prompts, computed once for all steps and candidates."""

    state: Float[Tensor, "batch 1 hidden"]
    modulation: Float[Tensor, "batch 1 hidden"]
    pull: Float[Tensor, "batch 1 dim"]
    """Latent residual of the gated mean of tokens."""
    memories: tuple[tuple[Tensor, Tensor], ...]
    """Keys and values of each block, ``(batch, heads, tokens + 1, hidden / heads)``."""
    visible: Bool[Tensor, "batch 1 1 tokens_and_none"]


def time_features(times: Float[Tensor, "*batch"], *, width: int) -> Float[Tensor, "*batch width"]:
    """Return sines and cosines of times in [0, 1] at geometric frequencies; the width is even.

    Source:
        Vaswani et al. 2017, arXiv:1706.03762, section 3.5; times are stretched to [0, 1000].
    """
    half = width // 2
    exponents = torch.arange(half, dtype=times.dtype, device=times.device) / half
    angles = 1000 * times[..., None] * torch.exp(-math.log(_LONGEST_PERIOD) * exponents)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class _Gate(nn.Module):
    """A weight per token, learned; all alike before training."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.inner = nn.Linear(dim, hidden // 2)
        self.to_state = nn.Linear(dim, hidden, bias=False)
        self.score = nn.Linear(hidden // 2, 1, bias=False)
        nn.init.zeros_(self.score.weight)

    def forward(self, tokens: Tensor, normed: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return unit means of tokens, gated and plain, each ``(batch, dim)``; zero without any."""
        scores = self.score(torch.tanh(self.inner(normed)))[..., 0]
        low = torch.finfo(scores.dtype).min
        weights = torch.softmax(scores.masked_fill(~mask, low), dim=-1) * mask
        gated = (weights[:, None] @ tokens)[:, 0]
        plain = (mask.to(tokens.dtype)[:, None] @ tokens)[:, 0]
        return nn.functional.normalize(gated, dim=-1), nn.functional.normalize(plain, dim=-1)


class _CrossAttention(nn.Module):
    """Lets states attend over tokens, or to a learned none."""

    def __init__(self, dim: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.none = nn.Parameter(torch.zeros(1, 1, dim))
        self.norm = nn.LayerNorm(hidden)
        self.query = nn.Linear(hidden, hidden, bias=False)
        self.key_value = nn.Linear(dim, 2 * hidden, bias=False)
        self.output = nn.Linear(hidden, hidden)

    def memorize(self, normed: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values of tokens, none first."""
        seen = torch.cat([self.none.expand(len(normed), -1, -1), normed], dim=1)
        key, value = self.key_value(seen).chunk(2, dim=-1)
        return self._split(key), self._split(value)

    def forward(self, state: Tensor, memory: tuple[Tensor, Tensor], visible: Tensor) -> Tensor:
        """Return states ``(batch, candidates, hidden)`` with what they attended to added."""
        query = self._split(self.query(self.norm(state)))
        found = nn.functional.scaled_dot_product_attention(query, *memory, attn_mask=visible)
        correction: Tensor = self.output(found.transpose(1, 2).flatten(2))
        return state + correction

    def _split(self, rows: Tensor) -> Tensor:
        batch, count, _ = rows.shape
        return rows.view(batch, count, self.heads, -1).transpose(1, 2)


class _Block(nn.Module):
    """Pre-norm residual block, modulated by time and condition."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.expand = nn.Linear(hidden, hidden)
        self.contract = nn.Linear(hidden, hidden)

    def forward(self, state: Tensor, modulation: Tensor) -> Tensor:
        inner = nn.functional.gelu(self.expand(self.norm(state)) + modulation)
        correction: Tensor = self.contract(inner)
        return state + correction


class Trunk(nn.Module):
    """States of noisy latent residuals, their times and the prompt, for heads to answer from.

    Prompts are read once (:meth:`read`) for any number of candidates and steps (:meth:`states`).

    Args:
        kind: What is read of a prompt, one of :data:`NETWORKS`.
        dim: Width of the embedding.
        conditions: Width of the condition.
        hidden: Width of the states, a multiple of 2 and of ``heads``.
        blocks: Residual blocks.
        heads: Heads of each block's cross-attention.
        pulls: Whether the gated mean of the tokens is itself an answer that heads correct; so it
            is where they say clean residuals.
    """

    def __init__(
        self,
        kind: NetworkKind,
        *,
        dim: int,
        conditions: int,
        hidden: int,
        blocks: int,
        heads: int,
        pulls: bool,
    ) -> None:
        super().__init__()
        self.hidden = hidden
        self.pulls = pulls
        self.from_noisy = nn.Linear(dim, hidden, bias=False)
        self.from_pooled = nn.Linear(dim, hidden)
        self.from_time = nn.Linear(hidden, hidden)
        self.from_condition = nn.Linear(conditions, hidden, bias=False)
        self.blocks = nn.ModuleList(_Block(hidden) for _ in range(blocks))
        self.gate = None if kind == "mlp" else _Gate(dim, hidden)
        attentions = blocks if kind == "attention" else 0
        self.attentions = nn.ModuleList(
            _CrossAttention(dim, hidden, heads) for _ in range(attentions)
        )
        self.norm = nn.LayerNorm(hidden)

    def read(self, prompt: Prompt) -> Reading:
        """Return what is kept of prompts: without tokens, or with none, the pooled vector."""
        state = self.from_pooled(to_latent(prompt.pooled))
        pull = torch.zeros_like(prompt.pooled)
        memories: tuple[tuple[Tensor, Tensor], ...] = ()
        if self.gate is not None:
            normed = self.gate.norm(prompt.tokens)
            gated, plain = self.gate(prompt.tokens, normed, prompt.mask)
            state = state + self.gate.to_state(to_latent(gated))
            pull = to_latent(gated - plain) if self.pulls else pull
            attentions = cast("list[_CrossAttention]", self.attentions)
            memories = tuple(one.memorize(normed) for one in attentions)
        visible = nn.functional.pad(prompt.mask, (1, 0), value=True)[:, None, None]
        modulation = self.from_condition(prompt.condition)
        return Reading(state[:, None], modulation[:, None], pull[:, None], memories, visible)

    def states(
        self,
        noisy: Float[Tensor, "batch candidates dim"],
        times: Float[Tensor, "batch candidates"],
        reading: Reading,
    ) -> Float[Tensor, "batch candidates hidden"]:
        """Return normalized states of the last block, for times in [0, 1]."""
        features = time_features(times, width=self.hidden)
        modulation = self.from_time(features) + reading.modulation
        state = self.from_noisy(noisy) + reading.state
        for number, block in enumerate(self.blocks):
            if self.attentions:
                memory = reading.memories[number]
                state = self.attentions[number](state, memory, reading.visible)
            state = block(state, modulation)
        normed: Tensor = self.norm(state)
        return normed

    def direct_states(self, reading: Reading) -> Float[Tensor, "batch 1 hidden"]:
        """Return the states at the top level, where nothing is known but the prompt."""
        zero = torch.zeros_like(reading.pull)
        return self.states(zero, zero[..., 0] + 1, reading)


class Network(Trunk):
    """One prediction per noisy residual; none at all before training, like the gate's.

    Arguments as in :class:`Trunk`.
    """

    def __init__(self, kind: NetworkKind, *, dim: int, hidden: int, **rest: Any) -> None:
        super().__init__(kind, dim=dim, hidden=hidden, **rest)
        self.output = nn.Linear(hidden, dim)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def predict(
        self,
        noisy: Float[Tensor, "batch candidates dim"],
        times: Float[Tensor, "batch candidates"],
        reading: Reading,
    ) -> Float[Tensor, "batch candidates dim"]:
        """Return predictions for times in [0, 1]; vectors are of about unit variance."""
        prediction: Tensor = reading.pull + self.output(self.states(noisy, times, reading))
        return prediction

    def direct(self, reading: Reading) -> Float[Tensor, "batch 1 dim"]:
        """Return the prediction where nothing is known but the prompt."""
        prediction: Tensor = reading.pull + self.output(self.direct_states(reading))
        return prediction

    def forward(
        self,
        noisy: Float[Tensor, "batch dim"],
        times: Float[Tensor, " batch"],
        prompt: Prompt,
    ) -> Float[Tensor, "batch dim"]:
        """Return one prediction per prompt."""
        return self.predict(noisy[:, None], times[:, None], self.read(prompt))[:, 0]
