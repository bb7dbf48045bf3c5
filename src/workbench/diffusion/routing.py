"""What to do with a prompt: how harm is judged from two readings, and the thresholds on it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from workbench.core.errors import DataError
from workbench.core.fields import refuse_unknown
from workbench.judge.calibrate import sigmoid, threshold_at

__all__ = ["NEVER", "Decision", "Routing", "fit_routing"]

Decision = Literal["pass", "dewrap", "redirect", "block"]

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
_LEAST = 20
_L2 = 1.0


@dataclass(frozen=True, kw_only=True)
class Routing:
    """A calibrated probability of harm, and from where on a prompt is redirected.

    A wrapper around a request makes harm likelier by itself, so it has a threshold of its own.
    """

    weights: tuple[float, float, float, float]
    """Of the logits of harm of the whole prompt, of its core, of the wrapper, and the constant."""
    bare: float
    """Least probability of harm from which a bare prompt is redirected."""
    wrapped: float
    """The same for a request in a wrapper."""
    false_positive_rate: dict[str, float]
    """``bare`` and ``wrapped``: share of the benign texts that chose a threshold and exceed it."""
    recall: dict[str, float]
    """Likewise of the harmful ones."""
    texts: int
    """How many texts chose all this."""

    def risk(self, harm: Floats, core: Floats, wrapped: Floats) -> Floats:
        """Return probabilities that requests are harmful, from three logits each."""
        rows = np.stack([harm, core, wrapped, np.ones_like(harm)])
        return sigmoid(np.array(self.weights) @ rows)

    def exceeds(self, risk: float, *, is_wrapped: bool, gain: float) -> bool:
        """Return whether the risk is too high; ``gain`` multiplies the odds of harm."""
        odds, limit = gain * risk, self.wrapped if is_wrapped else self.bare
        return odds / (odds + (1 - risk)) >= limit if odds else False

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Routing:
        """Return the routing that :meth:`to_json` wrote; refuse an unknown field."""
        refuse_unknown(values, known=[one.name for one in fields(cls)], where="routing")
        return cls(**values | {"weights": tuple(values["weights"])})


NEVER: Final = Routing(
    weights=(0, 0, 0, -30.0), bare=1, wrapped=1, false_positive_rate={}, recall={}, texts=0
)
"""Takes nothing for harmful."""


def fit_routing(
    logits: Floats,
    *,
    harmful: Flags,
    wrapped: Flags,
    bare_rate: float = 0.02,
    wrapped_rate: float = 0.08,
) -> Routing:
    """Return the routing of validation texts that the tagger was not trained on.

    Where none of them is harmful, nothing can say what harm looks like: that redirects nothing.

    Args:
        logits: ``(n, 3)``: harm of the whole text, harm of its core, wrapper.
        harmful: Whether each text asks for harm, ``(n,)``.
        wrapped: Whether each wears a wrapper, ``(n,)``.
        bare_rate: Largest share of benign bare texts to redirect.
        wrapped_rate: Largest share of benign requests in wrappers to redirect.

    Raises:
        DataError: If harmful or benign texts are too few.
    """
    from sklearn.linear_model import LogisticRegression

    if not harmful.any():
        none = {"bare": 0.0, "wrapped": 0.0}
        return replace(NEVER, false_positive_rate=none, recall=none, texts=len(harmful))
    for name, count in (("harmful", harmful.sum()), ("benign", (~harmful).sum())):
        if count < _LEAST:
            raise DataError(
                f"{count} {name} texts of validation choose the routing; it takes {_LEAST}: "
                "grow the pair set"
            )
    model = LogisticRegression(C=_L2, class_weight="balanced").fit(logits, harmful)
    whole, core, worn, constant = map(float, (*model.coef_[0], model.intercept_[0]))
    risk = model.predict_proba(logits)[:, 1]
    groups = {"bare": ~wrapped, "wrapped": wrapped}
    rates = {"bare": bare_rate, "wrapped": wrapped_rate}
    limits, flagged, recall = {}, {}, {}
    for name, group in groups.items():
        benign, bad = risk[group & ~harmful], risk[group & harmful]
        # a group too small to choose by takes what all texts say
        benign = benign if len(benign) >= _LEAST else risk[~harmful]
        limits[name] = threshold_at(benign, false_positive_rate=rates[name])
        flagged[name] = float(np.mean(benign >= limits[name]))
        recall[name] = float(np.mean(bad >= limits[name])) if len(bad) else 0.0
    return Routing(
        weights=(whole, core, worn, constant),
        **limits,
        false_positive_rate=flagged,
        recall=recall,
        texts=len(harmful),
    )
