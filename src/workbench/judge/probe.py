"""Two probes on different representations, trained on the judge set alone.

They are cheap graders with a known error: each carries a report measured on held-out topics, and
every number that rests on a probe is to be shown beside it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from filelock import FileLock
from safetensors.numpy import load_file, save_file

from workbench.core.errors import StoreError
from workbench.core.identity import content_id, file_sha256
from workbench.embedding.encoder import Encoder, FloatArray
from workbench.judge.calibrate import Floats, sigmoid
from workbench.judge.judge_set import JudgeSet, load_judge_set
from workbench.judge.training import EMBEDDING_C, TEXT_C, Rows, fit_probe, tfidf, vectorizers
from workbench.store.artifacts import write_json_atomic
from workbench.store.database import Store
from workbench.store.results import JudgeReport

__all__ = ["Bench", "EmbeddingProbe", "Judge", "TextProbe", "load_bench", "train_bench"]


class Judge(Protocol):
    """What says how likely a text is unsafe."""

    @property
    def id(self) -> str:
        """Name and bench: equal ids, equal scores."""

    @property
    def threshold(self) -> float:
        """Probability from which a text counts as unsafe."""

    def score(self, texts: Sequence[str]) -> Floats:
        """Return ``(len(texts),)`` probabilities that a text is unsafe."""


@dataclass(frozen=True, kw_only=True)
class EmbeddingProbe:
    """Calibrated logistic regression on the vectors of an encoder."""

    id: str
    threshold: float
    weights: Floats
    bias: float
    encoder: Encoder

    def score(self, texts: Sequence[str]) -> Floats:
        """Return the probability that each text is unsafe; encodes what the cache lacks."""
        return self.score_vectors(self.encoder.encode(texts))

    def score_vectors(self, vectors: FloatArray) -> Floats:
        """Return ``(n,)`` probabilities for ``(n, dim)`` vectors of the probe's encoder."""
        return sigmoid(vectors.astype(np.float64) @ self.weights + self.bias)


@dataclass(frozen=True, kw_only=True)
class TextProbe:
    """Calibrated logistic regression on TF-IDF of characters and words; needs no encoder."""

    id: str
    threshold: float
    weights: Floats
    bias: float
    learned: list[tuple[list[str], Floats]]
    """Terms and their idf, per vectorizer."""

    def score(self, texts: Sequence[str]) -> Floats:
        """Return the probability that each text is unsafe; imports sklearn at the first call."""
        if not texts:
            return np.empty(0)
        return sigmoid(tfidf(self._vectorizers, texts) @ self.weights + self.bias)

    @cached_property
    def _vectorizers(self) -> list[Any]:
        return vectorizers(self.learned)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The judges of a run, with their own error."""

    id: str
    embedding: EmbeddingProbe
    text: TextProbe
    reports: list[JudgeReport]

    @property
    def judges(self) -> list[Judge]:
        """Both judges, the embedding probe first."""
        return [self.embedding, self.text]


def train_bench(store: Store, encoder: Encoder, *, judge_file: Path | None = None) -> Bench:
    """Return the bench of the shipped judge set, or of another.

    Trains it and writes an artifact of kind ``judge``, unless the same one is there.

    Raises:
        DataError: If the judge set is malformed, or too small to hold topics out.
        StoreError: If the artifact cannot be written.
    """
    judge_set = load_judge_set(judge_file)
    identity = {
        "judge_set": judge_set.sha256,
        "encoder": encoder.id,
        "code": {file.name: file_sha256(file) for file in Path(__file__).parent.glob("*.py")},
        "scikit-learn": version("scikit-learn"),
    }
    bench_id = content_id(identity)
    with FileLock(store.home / "judge.lock"):  # notebooks side by side train it once
        if not store.artifacts.exists("judge", bench_id):
            with store.artifacts.create("judge", bench_id, identity) as folder:
                _train(bench_id, judge_set, encoder, folder=folder)
    return load_bench(store, encoder, bench_id)


def load_bench(store: Store, encoder: Encoder, bench_id: str) -> Bench:
    """Return a bench that was trained before.

    Raises:
        DataError: If there is none of that id.
        StoreError: If it was trained on vectors of another encoder.
    """
    folder = store.artifacts.path("judge", bench_id)
    needed = store.artifacts.metadata("judge", bench_id)["encoder"]
    if needed != encoder.id:
        raise StoreError(f"judge {bench_id} needs encoder {needed}, got {encoder.id}; open that")
    said = json.loads((folder / "bench.json").read_text(encoding="utf-8"))
    arrays = load_file(folder / "arrays.safetensors")
    embedding, text = said["judges"]
    learned = [(terms, arrays[f"idf.{number}"]) for number, terms in enumerate(said["terms"])]
    return Bench(
        id=bench_id,
        embedding=EmbeddingProbe(**embedding, weights=arrays["embedding"], encoder=encoder),
        text=TextProbe(**text, weights=arrays["text"], learned=learned),
        reports=said["reports"],
    )


def _train(bench_id: str, judge_set: JudgeSet, encoder: Encoder, *, folder: Path) -> None:
    texts = judge_set.texts
    vectors = encoder.encode(texts).astype(np.float64)

    def some(rows: Rows) -> list[str]:
        return [texts[row] for row in rows]

    def terms(learn: Rows, give: Rows) -> tuple[Any, Any]:
        fitted = [vectorizer.fit(some(learn)) for vectorizer in vectorizers()]
        return tfidf(fitted, some(learn)), tfidf(fitted, some(give))

    probes = {
        "embedding": (
            f"logistic regression on vectors of {encoder.id}",
            fit_probe(lambda *both: (vectors[both[0]], vectors[both[1]]), judge_set, c=EMBEDDING_C),
        ),
        "text": (
            "logistic regression on TF-IDF of characters 3-5 and words 1-2",
            fit_probe(terms, judge_set, c=TEXT_C),
        ),
    }
    fitted = [vectorizer.fit(texts) for vectorizer in vectorizers()]
    arrays = {name: probe.weights for name, (_, probe) in probes.items()}
    arrays |= {f"idf.{number}": vectorizer.idf_ for number, vectorizer in enumerate(fitted)}
    save_file(arrays, folder / "arrays.safetensors")
    judges, reports = [], []
    for name, (representation, probe) in probes.items():
        judge_id, found = f"{name}@{bench_id[:12]}", probe.measurement
        judges.append({"id": judge_id, "threshold": probe.threshold, "bias": probe.bias})
        reports.append(
            JudgeReport(
                id=judge_id,
                representation=representation,
                auroc_benign=found["auroc"]["benign"],
                auroc_lookalike=found["auroc"]["lookalike"],
                threshold=probe.threshold,
                false_positive_rate=found["flag_rate"]["benign"],
                lookalike_flag_rate=found["flag_rate"]["lookalike"],
                recall=found["flag_rate"]["harmful"],
                calibration_error=found["calibration_error"],
                trained_on=judge_set.sha256,
            )
        )
    known = [vectorizer.get_feature_names_out().tolist() for vectorizer in fitted]
    said = {"judges": judges, "terms": known, "reports": reports}
    write_json_atomic(folder / "bench.json", said)
