"""Two probes on different representations, trained on the judge set alone.

They are cheap graders with a known error: each carries a report measured on held-out topics, and
every number that rests on a probe is to be shown beside it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
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
from workbench.judge.measure import Measurement, measure
from workbench.judge.training import (
    BenchConfig,
    FittedProbe,
    Rows,
    fit_probe,
    fit_vectorizers,
    tfidf,
    vectorizers,
)
from workbench.store.artifacts import write_json_atomic
from workbench.store.database import Store
from workbench.store.results import JudgeReport

__all__ = [
    "Bench",
    "EmbeddingProbe",
    "Judge",
    "TextProbe",
    "evaluate_bench",
    "load_bench",
    "train_bench",
]


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
    measurements: list[Measurement]
    """What the reports are drawn from, with calibration error and share of harmful flagged."""

    @property
    def judges(self) -> list[Judge]:
        """Both judges, the embedding probe first."""
        return [self.embedding, self.text]


def train_bench(
    store: Store,
    encoder: Encoder,
    *,
    config: BenchConfig | None = None,
    judge_file: Path | None = None,
) -> Bench:
    """Return the bench; trains it and writes the artifact unless the same one is there.

    Args:
        store: Where the artifact of kind ``judge`` lies.
        encoder: Encoder of the embedding probe.
        config: How to train; the defaults where absent.
        judge_file: Judge set to train on; the shipped one where absent.

    Raises:
        DataError: If the judge set is malformed, or too small to hold topics out.
        StoreError: If the artifact cannot be written.
    """
    config = config or BenchConfig()
    judge_set = load_judge_set(judge_file)
    identity = {
        "judge_set": judge_set.sha256,
        "encoder": encoder.id,
        "config": asdict(config),
        "code": {file.name: file_sha256(file) for file in Path(__file__).parent.glob("*.py")},
        "scikit-learn": version("scikit-learn"),
    }
    bench_id = content_id(identity)
    with FileLock(store.home / "judge.lock"):  # notebooks side by side train it once
        if not store.artifacts.exists("judge", bench_id):
            with store.artifacts.create("judge", bench_id, identity) as folder:
                _train(bench_id, judge_set, encoder, config, folder=folder)
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
    idfs = [arrays[f"idf.{number}"] for number in range(len(said["terms"]))]
    return Bench(
        id=bench_id,
        embedding=EmbeddingProbe(**embedding, weights=arrays["embedding"], encoder=encoder),
        text=TextProbe(
            **text, weights=arrays["text"], learned=list(zip(said["terms"], idfs, strict=True))
        ),
        reports=said["reports"],
        measurements=said["measurements"],
    )


def evaluate_bench(
    bench: Bench,
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    groups: Sequence[str] | None = None,
) -> list[Measurement]:
    """Return what each judge gets wrong on texts from elsewhere, e.g. a published benchmark.

    Args:
        bench: Judges to measure.
        texts: Texts that are not in the judge set.
        labels: ``harmful``, ``benign`` or ``lookalike`` of each.
        groups: Topic of each, for the intervals; each text its own where absent.

    Raises:
        DataError: If the lengths differ, a label is unknown, or texts are all safe or all unsafe.
    """
    topics = groups if groups is not None else [str(number) for number in range(len(texts))]
    return [
        measure(judge.id, judge.score(texts), np.asarray(labels), topics, threshold=judge.threshold)
        for judge in bench.judges
    ]


def _train(
    bench_id: str, judge_set: JudgeSet, encoder: Encoder, config: BenchConfig, *, folder: Path
) -> None:
    embedding_id, text_id = f"embedding@{bench_id[:12]}", f"text@{bench_id[:12]}"
    texts = judge_set.texts
    vectors = encoder.encode(texts).astype(np.float64)

    def terms(learn: Rows, give: Rows) -> tuple[Any, Any]:
        fitted = fit_vectorizers([texts[row] for row in learn])
        return tfidf(fitted, [texts[row] for row in learn]), tfidf(
            fitted, [texts[row] for row in give]
        )

    embedding = fit_probe(
        embedding_id,
        lambda learn, give: (vectors[learn], vectors[give]),
        judge_set,
        c=config.embedding_c,
        config=config,
    )
    text = fit_probe(text_id, terms, judge_set, c=config.text_c, config=config)
    learned = [(v.get_feature_names_out().tolist(), v.idf_) for v in fit_vectorizers(texts)]
    arrays = {"embedding": embedding.weights, "text": text.weights}
    arrays |= {f"idf.{number}": idf for number, (_, idf) in enumerate(learned)}
    save_file(arrays, folder / "arrays.safetensors")
    fitted = {
        embedding_id: (f"logistic regression on vectors of {encoder.id}", embedding),
        text_id: ("logistic regression on TF-IDF of characters 3-5 and words 1-2", text),
    }
    said = {
        "judges": [
            {"id": judge_id, "threshold": probe.threshold, "bias": probe.bias}
            for judge_id, (_, probe) in fitted.items()
        ],
        "terms": [known for known, _ in learned],
        "reports": [
            _report(judge_set, representation, probe) for representation, probe in fitted.values()
        ],
        "measurements": [probe.measurement for _, probe in fitted.values()],
    }
    write_json_atomic(folder / "bench.json", said)


def _report(judge_set: JudgeSet, representation: str, probe: FittedProbe) -> JudgeReport:
    measured = probe.measurement
    return JudgeReport(
        id=measured["id"],
        representation=representation,
        auroc_benign=measured["auroc"]["benign"],
        auroc_lookalike=measured["auroc"]["lookalike"],
        threshold=probe.threshold,
        false_positive_rate=measured["flag_rate"]["benign"],
        lookalike_flag_rate=measured["flag_rate"]["lookalike"],
        trained_on=judge_set.sha256,
    )
