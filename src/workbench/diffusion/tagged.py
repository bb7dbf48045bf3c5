"""From pairs to what the tagger trains on: texts with their requests marked, in like lengths."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int
from torch import Tensor

from workbench.core.errors import DataError
from workbench.core.identity import content_id, text_id
from workbench.diffusion.arrays import RETOLD
from workbench.diffusion.tagger import TaggerBatch, TaggerConfig
from workbench.embedding.encoder import MINILM_LAYERS, Encoder, FloatArray, MiniLM
from workbench.embedding.states import StateCache

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TaggedData", "TaggedText", "emphasis", "states_below", "tagged_data", "tagged_texts"]

_BATCH_TOKENS = 6_000
"""Most tokens of a batch, padding included: long texts come fewer at a time."""
_ALIKE = 512
_SHARES = {"wrapped": 0.5, "bare": 0.35, "retold": 0.15}
"""Of the texts drawn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaggedText:
    """A text, and what is known about the request in it."""

    text: str
    core: str
    """The request."""
    start: int
    """Where it starts in the text, letter by letter; -1 where it is not there so."""
    harmful: bool
    wrapped: bool | None
    """Whether the request can be taken out of what is around it; None where nobody knows."""
    family: str
    """Wrapper family; empty where it is bare."""


def tagged_texts(frame: pd.DataFrame) -> list[TaggedText]:
    """Return the prompts of pairs, and their requests and clean sides as they are without wrapper.

    The second pass of the sanitizer reads bare requests, so these are learned too. A response is
    no prompt, and is left out.
    """
    found: dict[str, TaggedText] = {}
    columns = ["adversarial", "clean", "core", "category", "relation", "wrapper_family"]
    for adversarial, clean, named, category, relation, family in frame[columns].itertuples(
        index=False
    ):
        harmful, core = category != "benign", named or adversarial
        told = _tagged(adversarial, core, harmful=harmful, family=family)
        found.setdefault(adversarial, told)
        if told.start >= 0:
            found.setdefault(core, _tagged(core, core, harmful=harmful, family=""))
        if relation != "response":
            # the request that a harmful prompt was made of is harmful itself
            bare = _tagged(clean, clean, harmful=harmful and relation == "dewrap", family="")
            found.setdefault(clean, bare)
    return list(found.values())


def _tagged(text: str, core: str, *, harmful: bool, family: str) -> TaggedText:
    start = text.find(core)
    wrapped: bool | None = bool(family) and not family.startswith(RETOLD)
    if start < 0 and not family:
        wrapped = None
    return TaggedText(
        text=text, core=core, start=start, harmful=harmful, wrapped=wrapped, family=family
    )


def emphasis(rows: Sequence[TaggedText]) -> npt.NDArray[np.float64]:
    """Return how often to draw each text: the kinds have fixed shares, whatever their counts.

    Bare and retold ones alone teach what harm is when no wrapper gives it away, and being short
    they take little time.
    """
    kinds = np.array(
        ["wrapped" if row.wrapped else "retold" if row.family else "bare" for row in rows]
    )
    found, places, counts = np.unique(kinds, return_inverse=True, return_counts=True)
    each = np.array([_SHARES[kind] for kind in found.tolist()]) / counts
    return np.asarray(each[places])


class TaggedData:
    """Rows for the trainer: batches of like lengths, every text as often as any other.

    Args:
        rows: Texts to train on.
        cache: States of the layer below the tuned ones; what it lacks is computed.
        encoder: The published encoder, for the vectors of the requests.
        weights: How often each row is drawn, relative to the others; None draws all alike.
        tell: Told how many texts are computed, of how many.

    Raises:
        DataError: If there are no rows.
    """

    def __init__(
        self,
        rows: list[TaggedText],
        *,
        cache: StateCache,
        encoder: Encoder,
        weights: npt.NDArray[np.float64] | None = None,
        tell: Callable[[int, int], None] | None = None,
    ) -> None:
        if not rows:
            raise DataError("no texts to train the tagger on; grow the pair set")
        self.rows = rows
        self._cache = cache
        cache.fill([row.text for row in rows], tell=tell)
        self._payload, self._lengths = _marks(rows, cache)
        cores = sorted({row.core for row in rows})
        places = {core: place for place, core in enumerate(cores)}
        self._targets = torch.from_numpy(np.ascontiguousarray(encoder.encode(cores)))
        self._core = torch.tensor([places[row.core] for row in rows])
        self._harmful = torch.tensor([float(row.harmful) for row in rows])
        self._wrapped = torch.tensor([float(row.wrapped or 0) for row in rows])
        self._wrapped_known = torch.tensor([float(row.wrapped is not None) for row in rows])
        # as padded; each window to the longest of its text, which is all that is known so far
        totals = np.array([len(several) * max(several) for several in self._lengths])
        self._order = np.argsort(totals, kind="stable")
        self._counts = np.maximum(_BATCH_TOKENS // totals[self._order], 1)
        self._stretches = list(_stretches(self._counts))
        self.weights = np.ones(len(rows)) if weights is None else np.asarray(weights)

    @property
    def id(self) -> str:
        """Hash of texts, labels, weights and encoder."""
        labels = [(row.text, row.core, row.harmful, row.wrapped) for row in self.rows]
        weighed = text_id(self.weights.tobytes().hex())
        return content_id([self._cache.encoder.id, weighed, labels])

    def weighted(self, weights: npt.NDArray[np.float64]) -> TaggedData:
        """Return the same rows, drawn as often as other weights say."""
        other = copy.copy(self)
        other.weights = weights
        return other

    def draw(self, size: int, generator: torch.Generator) -> Int[Tensor, " rows"]:
        """Return the rows of one batch of like lengths, at most ``size``."""
        most = np.array(
            [
                min(int(self._counts[own.stop - 1]), size, own.stop - own.start)
                for own in self._stretches
            ]
        )
        # a batch of short texts holds more of them, so it must come less often
        shares = np.array([self.weights[self._order[own]].sum() for own in self._stretches])
        each = np.cumsum(shares / most)
        place = float(torch.rand(1, generator=generator, dtype=torch.float64)) * each[-1]
        number = min(int(np.searchsorted(each, place, side="right")), len(each) - 1)
        rows = self._order[self._stretches[number]]
        weights = torch.from_numpy(self.weights[rows])
        count = min(int(most[number]), int((weights > 0).sum()))
        return torch.from_numpy(rows)[torch.multinomial(weights, count, generator=generator)]

    def batch(self, rows: Int[Tensor, " rows"]) -> TaggerBatch:
        """Return the tensors of rows."""
        numbers = rows.tolist()
        found = self._cache.get([self.rows[number].text for number in numbers])
        windows = [
            (owner, states, marks)
            for owner, (number, whole) in enumerate(zip(numbers, found, strict=True))
            for states, marks in zip(*self._split(number, whole), strict=True)
        ]
        longest = max(len(states) for _, states, _ in windows)
        states = torch.zeros(len(windows), longest, found[0].shape[1])
        mask = torch.zeros(len(windows), longest, dtype=torch.bool)
        payload, known = torch.zeros_like(mask).float(), torch.zeros_like(mask).float()
        for place, (owner, part, marks) in enumerate(windows):
            size = len(part)
            states[place, :size] = torch.from_numpy(part)
            mask[place, :size] = True
            payload[place, :size] = torch.from_numpy(marks).float()
            known[place, 1 : size - 1] = float(self.rows[numbers[owner]].start >= 0)
        return TaggerBatch(
            states=states,
            mask=mask,
            owners=torch.tensor([owner for owner, _, _ in windows]),
            payload=payload,
            payload_known=known,
            harmful=self._harmful[rows],
            wrapped=self._wrapped[rows],
            wrapped_known=self._wrapped_known[rows],
            target=self._targets[self._core[rows]],
        )

    def batches(self) -> Iterator[tuple[npt.NDArray[np.int64], TaggerBatch]]:
        """Give every row once, in order of length: their numbers, and the tensors."""
        place = 0
        while place < len(self._order):
            count = int(self._counts[min(place + int(self._counts[place]), len(self._order)) - 1])
            rows = self._order[place : place + count]
            yield rows, self.batch(torch.from_numpy(rows))
            place += count

    def _split(
        self, number: int, whole: FloatArray
    ) -> tuple[list[FloatArray], list[npt.NDArray[np.bool_]]]:
        edges = np.cumsum(self._lengths[number])[:-1]
        return np.split(whole, edges), np.split(self._payload[number], edges)


def tagged_data(
    frame: pd.DataFrame,
    *,
    cache: StateCache,
    encoder: Encoder,
    most: int = 0,
    tell: Callable[[int, int], None] | None = None,
) -> TaggedData:
    """Return the data that a tagger takes, from pairs; computes states once.

    Args:
        frame: Pairs.
        cache: Of the states below the tagger's own layers, see :func:`states_below`.
        encoder: The published encoder.
        most: Take that many texts at random; 0 takes all.
        tell: Told how many texts are computed, of how many.

    Raises:
        DataError: If there are no pairs.
        StoreError: If the cache cannot be written.
    """
    rows = tagged_texts(frame)
    if most:
        order = np.random.default_rng(0).permutation(len(rows))[:most]
        rows = [rows[number] for number in order.tolist()]
    return TaggedData(rows, cache=cache, encoder=encoder, weights=emphasis(rows), tell=tell)


def states_below(config: TaggerConfig, folder: Path) -> StateCache:
    """Return the cache of states that a tagger of that config starts from, kept in a folder."""
    return StateCache(folder, MiniLM(layers=MINILM_LAYERS - config.tuned_layers))


def _stretches(counts: npt.NDArray[np.int64]) -> Iterator[slice]:
    """Give stretches of like lengths: four batches of their longest text, or ``_ALIKE`` texts."""
    stop = len(counts)
    while stop:
        start = max(stop - min(4 * int(counts[stop - 1]), _ALIKE), 0)
        yield slice(start, stop)
        stop = start


def _marks(
    rows: list[TaggedText], cache: StateCache
) -> tuple[list[npt.NDArray[np.bool_]], list[list[int]]]:
    """Return whether each token is of the request, and the lengths of the windows, of each row."""
    marks, lengths = [], []
    spans = cache.encoder.spans([row.text for row in rows])
    for row, windows in zip(rows, spans, strict=True):
        whole = np.concatenate(windows)
        end = row.start + len(row.core)
        inside = (whole[:, 0] < end) & (whole[:, 1] > row.start) & (whole[:, 1] > whole[:, 0])
        marks.append(inside & (row.start >= 0))
        lengths.append([len(window) for window in windows])
    return marks, lengths
