"""The network of MiniLM on torch: texts end to end, so that no product is spent on padding.

``transformers`` is the oracle of the tests but not imported here: its ``BertModel`` costs four
CPU seconds of imports in every process, torch alone costs one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, scaled_dot_product_attention

__all__ = ["Bert"]

_BATCH_TOKENS = 512  # measured: anything from 256 to 4,096 is as fast within the noise


class Bert:
    """Token ids to the states of a layer, in float32 and without dropout.

    Source:
        Devlin et al. 2019, arXiv:1810.04805.
    """

    def __init__(
        self, folder: Path, *, layers: int | None = None, tuned: Mapping[str, Tensor] | None = None
    ) -> None:
        """Read ``config.json`` and ``model.safetensors`` from a folder.

        Args:
            folder: Published files.
            layers: How many layers to go through, 0 to all; None is all.
            tuned: Weights to use in place of those of the same name.
        """
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "model.safetensors") | dict(tuned or {})
        self._words = weights["embeddings.word_embeddings.weight"]
        # Every token is of type 0 here, so the type's vector joins the positions once and for all.
        self._positions = (
            weights["embeddings.position_embeddings.weight"]
            + weights["embeddings.token_type_embeddings.weight"][0]
        )
        epsilon = float(config["layer_norm_eps"])
        self._norm = _norm(weights, "embeddings.LayerNorm", epsilon)
        self._layers = [
            _Layer(weights, f"encoder.layer.{number}.", int(config["num_attention_heads"]), epsilon)
            for number in range(int(config["num_hidden_layers"]) if layers is None else layers)
        ]
        self._pool = ThreadPoolExecutor(torch.get_num_threads(), initializer=_work_alone)

    def states(
        self, pieces: Sequence[Sequence[int]]
    ) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Give the index of each piece and its ``(tokens, width)`` states, longest piece first.

        Args:
            pieces: Token ids with the special ones, each piece at most the positions of the model.
        """
        lengths = [len(piece) for piece in pieces]
        batches = list(_batches(lengths))
        chosen = [[pieces[index] for index in batch] for batch in batches]
        for batch, states in zip(batches, self._pool.map(self._forward, chosen), strict=True):
            ends = np.cumsum([lengths[index] for index in batch])
            yield from zip(batch, np.split(states.numpy(), ends[:-1]), strict=True)

    @torch.inference_mode()
    def _forward(self, pieces: Sequence[Sequence[int]]) -> Tensor:
        ids = torch.tensor([token for piece in pieces for token in piece])
        positions = torch.cat([self._positions[: len(piece)] for piece in pieces])
        states: Tensor = self._norm(self._words[ids] + positions)
        runs = [(len(list(equal)), length) for length, equal in groupby(map(len, pieces))]
        for layer in self._layers:
            states = layer(states, runs)
        return states


def _work_alone() -> None:
    """Let this thread multiply by itself.

    Cores are filled by batches side by side: threads that wait for each other inside every
    product cost a fifth of the CPU, and nearly all of it where another process wants a core too.
    """
    torch.get_num_threads()  # torch sets a new thread's number at its first use; ours comes after
    threadpool_limits(1, user_api="openmp")


class _Layer:
    def __init__(self, weights: dict[str, Tensor], prefix: str, heads: int, epsilon: float) -> None:
        attention = [f"{prefix}attention.self.{part}" for part in ("query", "key", "value")]
        self._heads = heads
        self._project = _Linear(weights, *attention)
        self._join = _Linear(weights, f"{prefix}attention.output.dense")
        self._attention_norm = _norm(weights, f"{prefix}attention.output.LayerNorm", epsilon)
        self._widen = _Linear(weights, f"{prefix}intermediate.dense")
        self._narrow = _Linear(weights, f"{prefix}output.dense")
        self._norm = _norm(weights, f"{prefix}output.LayerNorm", epsilon)

    def __call__(self, states: Tensor, runs: Sequence[tuple[int, int]]) -> Tensor:
        states = self._attention_norm(states + self._join(self._attend(states, runs)))
        normed: Tensor = self._norm(states + self._narrow(gelu(self._widen(states))))
        return normed

    def _attend(self, states: Tensor, runs: Sequence[tuple[int, int]]) -> Tensor:
        """Attend inside each piece; ``runs`` are (pieces, tokens of each) of equal lengths."""
        joined = []
        sizes = [count * length for count, length in runs]
        projected = torch.split(self._project(states), sizes)
        for (count, length), part in zip(runs, projected, strict=True):
            query, key, value = part.view(count, length, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
            attended = scaled_dot_product_attention(query, key, value)
            joined.append(attended.transpose(1, 2).reshape(count * length, -1))
        return torch.cat(joined)


class _Linear:
    """One product for all the named layers, side by side.

    In oneDNN's format where torch has it: on AMD that is twice as fast as MKL, torch's default.
    """

    def __init__(self, weights: dict[str, Tensor], *names: str) -> None:
        self._packed: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        weight, bias = (
            torch.cat([weights[f"{name}.{kind}"] for name in names]) for kind in ("weight", "bias")
        )
        self._arguments = (weight.to_mkldnn(), bias.to_mkldnn()) if self._packed else (weight, bias)

    def __call__(self, states: Tensor) -> Tensor:
        if self._packed:
            return linear(states.to_mkldnn(), *self._arguments).to_dense()
        return linear(states, *self._arguments)


def _norm(weights: dict[str, Tensor], name: str, epsilon: float) -> nn.LayerNorm:
    norm = nn.LayerNorm(len(weights[f"{name}.bias"]), eps=epsilon)
    norm.load_state_dict({kind: weights[f"{name}.{kind}"] for kind in ("weight", "bias")})
    return norm


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Give the indices longest first, so that equal lengths meet, about 512 tokens at a time."""
    batch: list[int] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if batch and tokens + lengths[index] > _BATCH_TOKENS:
            yield batch
            batch, tokens = [], 0
        batch.append(index)
        tokens += lengths[index]
    if batch:
        yield batch
