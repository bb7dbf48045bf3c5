"""MiniLM and the heads on a GPU, for benchmarks: the product's layers, moved there."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from workbench.core.errors import ConfigError
from workbench.diffusion.layers import EncoderLayer, encoder_layers, published_names
from workbench.diffusion.reader import Reader, TextTags
from workbench.embedding.bert import Bert
from workbench.embedding.encoder import (
    MINILM_DIM,
    MINILM_LAYERS,
    FloatArray,
    MiniLM,
    minilm_folder,
)
from workbench.embedding.windows import merge

__all__ = [
    "Encoder", "Files", "Network", "WholeReader", "cpu_network", "files", "gpu_name", "network",
    "timed",
]  # fmt: skip

_PASS_TOKENS = 65_536
_ROWS = {
    "embeddings.word_embeddings.weight": 30_522,
    "embeddings.position_embeddings.weight": 512,
    "embeddings.token_type_embeddings.weight": 2,
}
_NORM = "embeddings.LayerNorm"
_EPSILON = 1e-12


class Network(nn.Module):
    """MiniLM of the product's layers, which can be moved to a device."""

    words: Tensor
    positions: Tensor

    def __init__(
        self, words: Tensor, positions: Tensor, norm: nn.LayerNorm, layers: nn.ModuleList
    ) -> None:
        super().__init__()
        self.register_buffer("words", words)
        self.register_buffer("positions", positions)
        self.norm = norm
        self.layers = layers

    @torch.inference_mode()
    def rows(self, pieces: Sequence[Sequence[int]]) -> tuple[Tensor, list[int]]:
        """Return states of all tokens, ``(tokens, 384)``, pieces end to end, and their order."""
        order = sorted(range(len(pieces)), key=lambda index: -len(pieces[index]))
        found, first = [], 0
        while first < len(order):
            count = max(_PASS_TOKENS // len(pieces[order[first]]), 1)
            found.append(self([pieces[index] for index in order[first : first + count]]))
            first += count
        return torch.cat(found), order

    def forward(self, pieces: Sequence[Sequence[int]]) -> Tensor:
        """Return the states of pieces end to end."""
        lengths = np.array([len(piece) for piece in pieces])
        there = np.arange(lengths.max()) < lengths[:, None]
        ids = np.zeros(there.shape, np.int64)
        ids[there] = np.concatenate([np.asarray(piece, np.int64) for piece in pieces])
        # places are found on the CPU: a boolean index would wait for the GPU
        padded, places, mask = [
            torch.from_numpy(one).to(self.words.device)
            for one in (ids, np.flatnonzero(there), there)
        ]
        states: Tensor = self.norm(self.words[padded] + self.positions[: int(lengths.max())])
        for layer in self.layers:
            states = layer(states, mask)
        return states.flatten(0, 1)[places]

    def states(self, pieces: Sequence[Sequence[int]]) -> Iterator[tuple[int, FloatArray]]:
        """Give the index and the states of each piece, as the product's networks do."""
        rows, order = self.rows(pieces)
        edges = np.cumsum([len(pieces[index]) for index in order])[:-1]
        yield from zip(order, np.split(rows.float().cpu().numpy(), edges), strict=True)


class Files(NamedTuple):
    """What there is of MiniLM."""

    embeddings: dict[str, Tensor]
    """Named as published."""
    layers: nn.ModuleList
    tokenizer: Path


def files(tokenizer: Path | None) -> Files:
    """Return MiniLM, with weights drawn at random where the package is not installed."""
    try:
        folder = minilm_folder()
    except ConfigError as error:
        if tokenizer is None:
            raise SystemExit(f"{error}, or give --tokenizer FILE") from None
        print("weights of MiniLM's sizes, drawn at random")
        torch.manual_seed(0)
        random = (EncoderLayer(dropout=0.0) for _ in range(MINILM_LAYERS))
        layers = nn.ModuleList(random)
        drawn = {name: torch.randn(size, MINILM_DIM) for name, size in _ROWS.items()}
        norm = {f"{_NORM}.weight": torch.ones(MINILM_DIM), f"{_NORM}.bias": torch.zeros(MINILM_DIM)}
        return Files(drawn | norm, layers, tokenizer)
    weights = load_file(folder / "model.safetensors")
    embeddings = {name: one for name, one in weights.items() if name.startswith("embeddings.")}
    layers = encoder_layers(MINILM_LAYERS, dropout=0.0)
    return Files(embeddings, layers, tokenizer or folder / "tokenizer.json")


def network(found: Files, *, layers: int = MINILM_LAYERS) -> Network:
    """Return the first layers of MiniLM."""
    words, positions, kinds = (found.embeddings[name] for name in _ROWS)
    norm = nn.LayerNorm(MINILM_DIM, eps=_EPSILON)
    norm.load_state_dict({kind: found.embeddings[f"{_NORM}.{kind}"] for kind in norm.state_dict()})
    return Network(words, positions + kinds[0], norm, copy.deepcopy(found.layers[:layers])).eval()


def cpu_network(found: Files, folder: Path) -> Bert:
    """Return the product's own network with the same weights."""
    weights = found.embeddings | dict(published_names(found.layers))
    save_file(weights, folder / "model.safetensors")
    sizes = {"num_hidden_layers": MINILM_LAYERS, "num_attention_heads": 12}
    config = json.dumps({**sizes, "layer_norm_eps": _EPSILON})
    (folder / "config.json").write_text(config, encoding="utf-8")
    return Bert(folder)


class Encoder(MiniLM):
    """MiniLM on any network; can keep what was tokenized, to leave that out of a time.

    Args:
        net: Ids to states.
        tokenizer: File of the tokenizer.
        name: Part of the id.
    """

    def __init__(self, net: Any, tokenizer: Path, *, name: str) -> None:
        from tokenizers import Tokenizer

        self.id = f"bench-{name}"
        self.network = self._network = net
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._start, self._end = self._tokenizer.encode("").ids
        self.keeps = False
        self._kept: dict[tuple[str, ...], Any] = {}

    def _cut(self, part: list[str]) -> Any:
        if not self.keeps:
            return super()._cut(part)
        key = tuple(part)
        if key not in self._kept:
            self._kept[key] = super()._cut(part)
        return self._kept[key]

    def cut(self, texts: Sequence[str]) -> Any:
        """Return the windows of texts, the text of each, and where its tokens are in that."""
        return self._cut(list(texts))


class WholeReader(Reader):
    """Reads with encoder and heads where the network is: tags alone come back."""

    encoder: Encoder

    @torch.inference_mode()
    def tags(
        self, pieces: Sequence[Sequence[int]], owners: Sequence[int], *, texts: int
    ) -> tuple[FloatArray, list[int]]:
        """Return all that the heads say, end to end, and the order of the pieces."""
        rows, order = self.encoder.network.rows(pieces)
        owner = np.repeat([owners[one] for one in order], [len(pieces[one]) for one in order])
        said = self.heads(rows.float(), torch.from_numpy(owner).to(rows.device), texts=texts)
        parts = (said.payload, said.harm, said.wrapped, said.vectors.flatten())
        return torch.cat(parts).cpu().numpy(), order

    def _read(self, texts: Sequence[str]) -> list[TextTags]:
        pieces, owners, spans = self.encoder.cut(texts)
        said, order = self.tags(pieces, owners, texts=len(texts))
        ends = np.cumsum([len(pieces[one]) for one in order])
        payload: list[Any] = [None] * len(pieces)
        for one, end in zip(order, ends.tolist(), strict=True):
            payload[one] = said[end - len(pieces[one]) + 1 : end - 1]
        harm, wrapped = said[ends[-1] :][: 2 * len(texts)].reshape(2, -1).tolist()
        vectors = said[ends[-1] + 2 * len(texts) :].reshape(len(texts), -1)
        read = []
        for number, several in groupby(range(len(pieces)), key=owners.__getitem__):
            own = list(several)
            read.append(
                TextTags(
                    harm[number],
                    wrapped[number],
                    vectors[number],
                    merge([payload[one] for one in own]),
                    merge([spans[one][1:-1] for one in own]),
                )
            )
        return read


def timed(call: Callable[[], Any], *, seconds: float, least: int = 12) -> list[float]:
    """Return milliseconds of calls, each of which waits for its results."""
    for _ in range(3):
        call()
    spent: list[float] = []
    while len(spent) < least or (sum(spent) < 1000 * seconds and len(spent) < 2000):
        started = time.perf_counter()
        call()
        spent.append(1000 * (time.perf_counter() - started))
    return spent


def gpu_name() -> str:
    """Return what the GPU calls itself."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
