"""The last layers of the encoder as modules that can be trained further."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from workbench.embedding.encoder import MINILM_DIM, MINILM_LAYERS, minilm_folder

__all__ = ["EncoderLayer", "encoder_layers", "published_names"]

_HEADS = 12
_WIDE = 4 * MINILM_DIM
_EPSILON = 1e-12
_PARTS = {
    "project": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "join": ("attention.output.dense",),
    "attention_norm": ("attention.output.LayerNorm",),
    "widen": ("intermediate.dense",),
    "narrow": ("output.dense",),
    "norm": ("output.LayerNorm",),
}
"""Our name → names as published, side by side."""
# oneDNN and torch keep what they prepared for 1,024 shapes each, and batches of texts have ever
# other shapes; both read this at their first product
for _limit in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    os.environ.setdefault(_limit, "16")
_HAS_ONE_DNN: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


class EncoderLayer(nn.Module):
    """One layer of MiniLM, with dropout while it is trained.

    Source:
        Devlin et al. 2019, arXiv:1810.04805.
    """

    def __init__(self, *, dropout: float) -> None:
        super().__init__()
        self.project = _Linear(MINILM_DIM, 3 * MINILM_DIM)
        self.join = _Linear(MINILM_DIM, MINILM_DIM)
        self.attention_norm = nn.LayerNorm(MINILM_DIM, eps=_EPSILON)
        self.widen = _Linear(MINILM_DIM, _WIDE)
        self.narrow = _Linear(_WIDE, MINILM_DIM)
        self.norm = nn.LayerNorm(MINILM_DIM, eps=_EPSILON)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        states: Float[Tensor, "windows tokens dim"],
        mask: Bool[Tensor, "windows tokens"],
    ) -> Float[Tensor, "windows tokens dim"]:
        """Return the states of the next layer; tokens out of the mask are not looked at."""
        windows, tokens, _ = states.shape
        projected = self.project(states).view(windows, tokens, 3, _HEADS, -1)
        query, key, value = projected.permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask[:, None, None, :]
        )
        joined = self.join(attended.transpose(1, 2).reshape(states.shape))
        states = self.attention_norm(states + self.dropout(joined))
        narrow = self.narrow(nn.functional.gelu(self.widen(states)))
        normed: Tensor = self.norm(states + self.dropout(narrow))
        return normed


def encoder_layers(count: int, *, dropout: float) -> nn.ModuleList:
    """Return the last ``count`` layers with their published weights."""
    published = load_file(minilm_folder() / "model.safetensors")
    layers = nn.ModuleList(EncoderLayer(dropout=dropout) for _ in range(count))
    with torch.no_grad():
        for number, layer in enumerate(layers, MINILM_LAYERS - count):
            for part, names in _PARTS.items():
                for kind in ("weight", "bias"):
                    whole = [published[f"encoder.layer.{number}.{name}.{kind}"] for name in names]
                    getattr(getattr(layer, part), kind).copy_(torch.cat(whole))
    return layers


def published_names(layers: nn.ModuleList) -> Mapping[str, Tensor]:
    """Return the weights of the last layers under the names that MiniLM's have."""
    named = {}
    for number, layer in enumerate(layers, MINILM_LAYERS - len(layers)):
        for part, names in _PARTS.items():
            for kind in ("weight", "bias"):
                whole = getattr(getattr(layer, part), kind).detach()
                for name, tensor in zip(names, whole.chunk(len(names)), strict=True):
                    named[f"encoder.layer.{number}.{name}.{kind}"] = tensor.contiguous()
    return named


class _OneDnn(torch.autograd.Function):
    """A linear layer by oneDNN, forward and backward: on AMD twice as fast as MKL, torch's own."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(states, weight)
        return _product(states, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        states, weight = ctx.saved_tensors
        slope = gradients[0].contiguous()
        rows = slope.reshape(-1, slope.shape[-1])
        inner = states.reshape(-1, states.shape[-1])
        to_states = None
        if ctx.needs_input_grad[0]:
            to_states = _product(slope, weight.t().contiguous(), None)
        to_weight = _product(rows.t().contiguous(), inner.t().contiguous(), None)
        return to_states, to_weight, rows.sum(0)


class _Linear(nn.Linear):
    def forward(self, states: Tensor) -> Tensor:
        if states.device.type == "cpu" and _HAS_ONE_DNN:
            product: Tensor = _OneDnn.apply(  # type: ignore[no-untyped-call]
                states, self.weight, self.bias
            )
            return product
        return super().forward(states)


def _product(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    # what torch.compile uses on CPUs
    product: Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001
        states, weight, bias, "none", [], ""
    )
    return product


def _flops(states: Any, weight: Any, *_: Any, **__: Any) -> int:
    """Return the operations of a product, which torch does not count by itself."""
    rows = 1
    for size in states[:-1]:
        rows *= size
    return 2 * rows * int(weight[0]) * int(weight[1])


if _HAS_ONE_DNN:  # torch for macOS is built without
    register_flop_formula(torch.ops.mkldnn._linear_pointwise)(_flops)  # noqa: SLF001
