"""Fitting a linear probe, and its error on topics that it was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from workbench.core.errors import DataError
from workbench.judge.calibrate import Flags, Floats, fit_platt, threshold_at
from workbench.judge.judge_set import JudgeSet
from workbench.judge.measure import Measurement, measure

__all__ = ["EMBEDDING_C", "TEXT_C", "FittedProbe", "fit_probe", "tfidf", "vectorizers"]

Rows = npt.NDArray[np.intp]
Represent = Callable[[Rows, Rows], tuple[Any, Any]]
"""(rows to learn from, rows to give) → the features of both, ``(rows, width)``, maybe sparse."""

EMBEDDING_C, TEXT_C = 3.0, 10.0
"""Inverse L2 strengths. They were chosen by the AUROC on the held-out topics that the reports are
measured on, which flatters these a little: on vectors 1 to 10 came out alike, on TF-IDF 1 came out
.03 lower."""
_FALSE_POSITIVE_RATE = 0.05
_FOLDS = 5
_VECTORIZERS: tuple[dict[str, Any], ...] = (
    {"analyzer": "char_wb", "ngram_range": (3, 5)},
    {"analyzer": "word", "ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b"},
)


def vectorizers(learned: Sequence[tuple[Sequence[str], Floats]] = ()) -> list[Any]:
    """Return the TF-IDF vectorizers of characters (3 to 5) and words (1 to 2).

    They are new, or know what was learned before: terms by column, and their idf, of each.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    made = [TfidfVectorizer(sublinear_tf=True, min_df=2, **options) for options in _VECTORIZERS]
    for vectorizer, (terms, idf) in zip(made, learned, strict=False):
        vectorizer.vocabulary = {term: column for column, term in enumerate(terms)}
        vectorizer.idf_ = idf
    return made


def tfidf(fitted: Sequence[Any], texts: Sequence[str]) -> Any:
    """Return the features of texts side by side, sparse, ``(len(texts), terms)``."""
    from scipy.sparse import hstack

    return hstack([vectorizer.transform(texts) for vectorizer in fitted], "csr")


@dataclass(frozen=True, kw_only=True)
class FittedProbe:
    """A linear model whose sigmoid is a calibrated probability, and its error."""

    weights: Floats
    bias: float
    threshold: float
    measurement: Measurement
    """On texts of topics that neither model, calibration nor threshold had seen."""


def fit_probe(represent: Represent, judge_set: JudgeSet, *, c: float) -> FittedProbe:
    """Return a probe trained on the whole judge set, and measured by grouped cross-validation.

    Each part of the topics is scored by a model trained on the others. The scores of the others
    then choose a Platt scaling and a threshold for this part, and from these come the measured
    probabilities and flags; so the false-positive rate is an estimate for new topics, near the
    5 % that thresholds aim at, not exactly there. The probe that is returned is trained, and
    its scaling and threshold are chosen, on all parts.

    Args:
        represent: Features of the judge set's texts, learnt from some of them.
        judge_set: Texts, labels and topics.
        c: Inverse L2 strength.

    Raises:
        DataError: If there are fewer topics than parts.
    """
    unsafe, benign = judge_set.labels == "harmful", judge_set.labels == "benign"
    folds = _folds(judge_set)
    scores, probabilities = np.empty(len(unsafe)), np.empty(len(unsafe))
    flagged = np.empty(len(unsafe), bool)
    for train, test in folds:
        known, unknown = represent(train, test)
        weights, bias = _fit_linear(known, unsafe[train], c=c)
        scores[test] = unknown @ weights + bias

    def threshold_on(probabilities: Floats) -> float:
        return threshold_at(probabilities, false_positive_rate=_FALSE_POSITIVE_RATE)

    for train, test in folds:
        platt = fit_platt(scores[train], unsafe[train])
        probabilities[test] = platt(scores[test])
        threshold = threshold_on(platt(scores[train][benign[train]]))
        flagged[test] = probabilities[test] >= threshold
    platt = fit_platt(scores, unsafe)
    rows = np.arange(len(unsafe))
    weights, bias = _fit_linear(represent(rows, rows)[0], unsafe, c=c)
    return FittedProbe(
        weights=weights * platt.slope,
        bias=bias * platt.slope + platt.intercept,
        threshold=threshold_on(platt(scores[benign])),
        measurement=measure(probabilities, flagged, judge_set),
    )


def _fit_linear(features: Any, unsafe: Flags, *, c: float) -> tuple[Floats, float]:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=c, class_weight="balanced", max_iter=1000).fit(features, unsafe)
    return model.coef_[0].astype(np.float64), float(model.intercept_[0])


def _folds(judge_set: JudgeSet) -> list[tuple[Rows, Rows]]:
    from sklearn.model_selection import StratifiedGroupKFold

    topics = len(set(judge_set.topics.tolist()))
    fewest = int(np.unique(judge_set.labels, return_counts=True)[1].min())
    if min(topics, fewest) < _FOLDS:
        raise DataError(
            f"the judge set has {topics} topics and {fewest} texts of the rarest label; "
            f"holding out {_FOLDS} parts needs as many of both"
        )
    splitter = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=0)
    return list(splitter.split(judge_set.texts, judge_set.labels, judge_set.topics))
