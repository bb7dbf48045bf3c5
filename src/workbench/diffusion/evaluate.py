"""Honest figures: every method at every gain on every split, against one judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from workbench.core.errors import DataError
from workbench.diffusion.arrays import encode_pairs, harmless
from workbench.diffusion.baselines import Translator, mean_loss
from workbench.diffusion.reader import Reader
from workbench.diffusion.sanitizer import Sanitizer, Sighting
from workbench.embedding.encoder import Encoder, FloatArray
from workbench.judge.probe import Bench
from workbench.store.results import FrontierRow

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TEST_SPLITS", "dewrap_losses", "frontier", "relative_reduction"]

TEST_SPLITS = ("test_intents", "test_wrappers", "test_both")


def relative_reduction(before: float, after: float) -> float:
    """Return how much of a mean unsafe probability is gone: 1 all of it, below 0 more than before.

    Nothing can be reduced where nothing was unsafe: that gives 0.
    """
    return (before - after) / before if before > 0 else 0.0


def dewrap_losses(
    reader: Reader,
    methods: Sequence[Translator],
    frame: pd.DataFrame,
    *,
    encoder: Encoder,
) -> dict[str, float]:
    """Return 1 − cosine to the bare request, of the tagger and of methods, on ``test_both``.

    On the prompts that hold their request in a wrapper, both unseen.

    Args:
        reader: Of the tagger; its loss is called ``tagger``.
        methods: Move vectors.
        frame: Pairs of all splits.
        encoder: Published encoder, whose vectors the tagger gives and the methods move.

    Raises:
        DataError: If there are none.
    """
    rows = frame[(frame["split"] == "test_both") & (frame["wrapper_family"] != "")]
    held = [core in text for core, text in zip(rows["core"], rows["adversarial"], strict=True)]
    rows = rows[held]
    if rows.empty:
        raise DataError("split test_both has no wrapped requests to measure on; grow the pair set")
    prompts, cores = encode_pairs(rows, encoder=encoder, target="core")
    read = np.stack([tags.vector for tags in reader(rows["adversarial"].tolist())])
    losses = {one.name: mean_loss(one.vectors(prompts), cores) for one in methods}
    return {"tagger": mean_loss(read, cores)} | losses


def frontier(
    methods: Sequence[Translator],
    sanitizer: Sanitizer | None,
    frame: pd.DataFrame,
    *,
    encoder: Encoder,
    bench: Bench,
    gains: Sequence[float],
) -> list[FrontierRow]:
    """Return the safety–semantic frontier: one row per method, gain and split.

    The judge must not have chosen or trained any of the methods.

    Args:
        methods: Move vectors; baselines included.
        sanitizer: Gives texts, whose vectors are compared; a blocked prompt becomes no text, is
            safe, and is left out of the semantic mean. Its gain multiplies the odds of harm.
        frame: Pairs of all splits. Attacks are pairs whose two sides differ; ``keep`` is measured
            on test pairs whose two sides are the same, or where there are none, on the clean
            references, which should stay as well.
        encoder: Encoder of both sides.
        bench: Judges; the one that grades vectors is used.
        gains: How far to go, for each method.

    Raises:
        DataError: If a split has no attacks, or no split has a harmful one. A split that lacks
            only the harmful ones is left out: there is nothing to measure safety on.
    """
    movers = [*map(_vector_mover, methods)]
    if sanitizer:
        movers.append(_TextMover(sanitizer, encoder))
    judge = bench.embedding
    benign = _Texts.of(harmless(frame[frame["split"].isin(TEST_SPLITS)]), encoder=encoder)
    keep = {
        (mover.name, gain): 1 - mean_loss(*_sent(mover(benign, gain), benign.vectors))
        for mover in movers
        for gain in gains
    }
    rows: list[FrontierRow] = []
    for split in TEST_SPLITS:
        attacks, clean, is_harmful = _attacks(frame, split=split, encoder=encoder)
        if not is_harmful.any():
            continue
        before = float(np.mean(judge.score_vectors(attacks.vectors[is_harmful])))
        for mover in movers:
            for gain in gains:
                output = mover(attacks, gain)
                blocked = ~output.any(axis=1)
                unsafe = np.where(blocked, 0.0, judge.score_vectors(output))[is_harmful]
                rows.append(
                    {
                        "method": mover.name,
                        "gain": float(gain),
                        "split": split,
                        "semantic": 1 - mean_loss(*_sent(output, clean)),
                        "safety": relative_reduction(before, float(np.mean(unsafe))),
                        "unsafe": float(np.mean(unsafe >= judge.threshold)),
                        "keep": keep[mover.name, gain],
                    }
                )
    if not rows:
        raise DataError(f"no harmful requests in {', '.join(TEST_SPLITS)} to measure safety on")
    return rows


class _Texts(NamedTuple):
    texts: list[str]
    vectors: FloatArray

    @classmethod
    def of(cls, texts: list[str], *, encoder: Encoder) -> _Texts:
        return cls(texts, encoder.encode(texts))


class _Mover(Protocol):
    @property
    def name(self) -> str:
        """Name in tables."""

    def __call__(self, given: _Texts, gain: float) -> FloatArray:
        """Return unit rows, or zeros where nothing is sent on."""


@dataclass(frozen=True)
class _VectorMover:
    method: Translator
    name: str

    def __call__(self, given: _Texts, gain: float) -> FloatArray:
        return self.method.vectors(given.vectors, gain=gain)


def _vector_mover(method: Translator) -> _Mover:
    return _VectorMover(method, method.name)


class _TextMover:
    """The sanitizer as a method; it looks at texts once for all gains."""

    name = "sanitizer"

    def __init__(self, sanitizer: Sanitizer, encoder: Encoder) -> None:
        self._sanitizer = sanitizer
        self._encoder = encoder
        self._looked_at: list[str] = []
        self._seen: list[Sighting] = []

    def __call__(self, given: _Texts, gain: float) -> FloatArray:
        if self._looked_at is not given.texts:
            self._looked_at, self._seen = given.texts, self._sanitizer.look(given.texts)
        results = self._sanitizer.decide(given.texts, self._seen, gain=gain)
        vectors = self._encoder.encode([one.text for one in results])
        vectors[[one.decision == "block" for one in results]] = 0
        return vectors


def _sent(output: FloatArray, reference: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the rows of both for what was sent on."""
    sent = output.any(axis=1)
    return output[sent], reference[sent]


def _attacks(
    frame: pd.DataFrame, *, split: str, encoder: Encoder
) -> tuple[_Texts, FloatArray, npt.NDArray[np.bool_]]:
    """Return a split's attacks, their clean sides, and which ones safety is about."""
    rows = frame[(frame["split"] == split) & (frame["adversarial"] != frame["clean"])]
    if rows.empty:
        raise DataError(f"split {split} has no attacks to measure on; grow the pair set")
    adversarial, clean = encode_pairs(rows, encoder=encoder)
    attacks = _Texts(rows["adversarial"].tolist(), adversarial)
    return attacks, clean, (rows["category"] != "benign").to_numpy()
