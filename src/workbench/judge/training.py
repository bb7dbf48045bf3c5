"""Fitting a linear probe, and its error on topics that it was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from workbench.core.errors import ConfigError, DataError
from workbench.judge.calibrate import Flags, Floats, fit_platt, threshold_at
from workbench.judge.judge_set import JudgeSet
from workbench.judge.measure import Measurement, measure

__all__ = ["BenchConfig", "FittedProbe", "fit_probe", "fit_vectorizers", "tfidf", "vectorizers"]

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """How the probes are trained and where they flag."""

    false_positive_rate: float = 0.05
    """Share of benign texts of held-out topics that may be flagged."""
    folds: int = 5
    """Parts of the cross-validation; texts of one topic share a part."""
    embedding_c: float = 3.0
    """Inverse L2 strength on encoder vectors; 1 to 10 measured alike on held-out topics."""
    text_c: float = 10.0
    """Inverse L2 strength on TF-IDF; 1 measured .03 AUROC worse on held-out topics."""
    seed: int = 0
    """Of the parts of the cross-validation."""

    def __post_init__(self) -> None:
        if not 0 <= self.false_positive_rate < 1:
            raise ConfigError(
                f"false_positive_rate is {self.false_positive_rate}; set it in [0, 1)"
            )
        if self.folds < 2 or min(self.embedding_c, self.text_c) <= 0:  # noqa: PLR2004
            raise ConfigError(f"bench needs folds >= 2 and positive strengths, got {asdict(self)}")


Represent = Callable[[Rows, Rows], tuple[Any, Any]]
"""(rows to learn from, rows to give) → the features of both, ``(rows, width)``, maybe sparse."""

_VECTORIZERS: tuple[dict[str, Any], ...] = (
    {"analyzer": "char_wb", "ngram_range": (3, 5)},
    {"analyzer": "word", "ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b"},
)


def vectorizers(learned: Sequence[tuple[Sequence[str], Floats]] = ()) -> list[Any]:
    """Return the TF-IDF vectorizers of characters (3 to 5) and words (1 to 2).

    Args:
        learned: Terms in the order of their columns, and their idf, per vectorizer that was
            fitted before; nothing for new ones.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    made = []
    for number, options in enumerate(_VECTORIZERS):
        vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=2, **options)
        if learned:
            terms, idf = learned[number]
            vectorizer.vocabulary = {term: column for column, term in enumerate(terms)}
            vectorizer.idf_ = idf
        made.append(vectorizer)
    return made


def tfidf(fitted: Sequence[Any], texts: Sequence[str]) -> Any:
    """Return the features of texts side by side, sparse, ``(len(texts), terms)``."""
    from scipy.sparse import hstack

    return hstack([vectorizer.transform(texts) for vectorizer in fitted], "csr")


def fit_vectorizers(texts: Sequence[str]) -> list[Any]:
    """Return vectorizers that know the terms which at least two of the texts have."""
    return [vectorizer.fit(texts) for vectorizer in vectorizers()]


@dataclass(frozen=True, kw_only=True)
class FittedProbe:
    """A linear model whose sigmoid is a calibrated probability, and its error."""

    weights: Floats
    bias: float
    threshold: float
    measurement: Measurement
    """On texts of topics that neither the model nor its calibration had seen."""


def fit_probe(
    judge_id: str, represent: Represent, judge_set: JudgeSet, *, c: float, config: BenchConfig
) -> FittedProbe:
    """Return a probe trained on the whole judge set, and measured by grouped cross-validation.

    Each part of the topics is scored by a model trained on the others; a Platt scaling learnt on
    the scores of the others makes them probabilities. The threshold is chosen, and the error
    measured, on these; the probe that is returned is calibrated on all of them.

    Args:
        judge_id: Id to file the figures under.
        represent: Features of the judge set's texts, learnt from some of them.
        judge_set: Texts, labels and topics.
        c: Inverse L2 strength.
        config: How to hold out, and the false-positive rate.

    Raises:
        DataError: If there are fewer topics than parts.
    """
    unsafe = judge_set.labels == "harmful"
    folds = _folds(judge_set, config)
    rows = np.arange(len(unsafe))
    decisions = np.empty(len(unsafe))
    for train, test in folds:
        known, unknown = represent(train, test)
        weights, bias = _fit_linear(known, unsafe[train], c=c)
        decisions[test] = unknown @ weights + bias
    probabilities = np.empty(len(unsafe))
    for train, test in folds:
        probabilities[test] = fit_platt(decisions[train], unsafe[train])(decisions[test])
    threshold = threshold_at(
        probabilities[judge_set.labels == "benign"], false_positive_rate=config.false_positive_rate
    )
    platt = fit_platt(decisions, unsafe)
    weights, bias = _fit_linear(represent(rows, rows)[0], unsafe, c=c)
    return FittedProbe(
        weights=weights * platt.slope,
        bias=bias * platt.slope + platt.intercept,
        threshold=threshold,
        measurement=measure(
            judge_id, probabilities, judge_set.labels, judge_set.topics, threshold=threshold
        ),
    )


def _fit_linear(features: Any, unsafe: Flags, *, c: float) -> tuple[Floats, float]:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=c, class_weight="balanced", max_iter=1000).fit(features, unsafe)
    return model.coef_[0].astype(np.float64), float(model.intercept_[0])


def _folds(judge_set: JudgeSet, config: BenchConfig) -> list[tuple[Rows, Rows]]:
    from sklearn.model_selection import StratifiedGroupKFold

    topics = len(set(judge_set.topics.tolist()))
    fewest = min(int((judge_set.labels == label).sum()) for label in set(judge_set.labels.tolist()))
    if min(topics, fewest) < config.folds:
        raise DataError(
            f"the judge set has {topics} topics and {fewest} texts of the rarest label; "
            f"holding out {config.folds} parts needs as many of both"
        )
    splitter = StratifiedGroupKFold(config.folds, shuffle=True, random_state=config.seed)
    folds = splitter.split(judge_set.texts, judge_set.labels, judge_set.topics)
    return [(train, test) for train, test in folds]
