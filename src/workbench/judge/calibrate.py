"""Scores to probabilities that mean what they say, and the threshold that makes a flag of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from workbench.core.errors import ConfigError, DataError

__all__ = ["Platt", "expected_calibration_error", "fit_platt", "sigmoid", "threshold_at"]

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

_UNREGULARIZED = 1e6


def sigmoid(scores: Floats) -> Floats:
    """Return ``1 / (1 + exp(-scores))`` without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0, -scores)), np.float64)


class Platt(NamedTuple):
    """Platt scaling; it keeps the order of scores and needs only two numbers.

    Source:
        Platt 1999, "Probabilistic outputs for support vector machines".
    """

    slope: float
    intercept: float

    def __call__(self, scores: Floats) -> Floats:
        """Return the probability of each score."""
        return sigmoid(self.slope * scores + self.intercept)


def fit_platt(scores: Floats, unsafe: Flags) -> Platt:
    """Return the scaling of highest likelihood; give it scores of texts not trained on."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=_UNREGULARIZED).fit(scores[:, None], unsafe)
    return Platt(slope=float(model.coef_[0, 0]), intercept=float(model.intercept_[0]))


def expected_calibration_error(probabilities: Floats, unsafe: Flags, *, bins: int = 10) -> float:
    """Return the mean distance between probability and observed share, over equally full bins.

    Source:
        Naeini et al. 2015, "Obtaining well calibrated probabilities using Bayesian binning", with
        bins of equal count; Nguyen & O'Connor 2015, arXiv:1508.05154.
    """
    parts = np.array_split(np.argsort(probabilities, kind="stable"), bins)
    gaps = [abs(float(np.sum(probabilities[part] - unsafe[part]))) for part in parts]
    return sum(gaps) / len(probabilities)


def threshold_at(benign: Floats, *, false_positive_rate: float) -> float:
    """Return the lowest threshold that flags (``>=``) no more than that share of benign values.

    Raises:
        ConfigError: If the rate is not in [0, 1).
        DataError: If there are no values.
    """
    if not 0 <= false_positive_rate < 1:
        raise ConfigError(f"false_positive_rate is {false_positive_rate}; set it in [0, 1)")
    if not len(benign):
        raise DataError("no benign texts to choose a threshold on; add some")
    allowed = int(false_positive_rate * len(benign))
    return float(np.nextafter(np.sort(benign)[::-1][allowed], np.inf))
