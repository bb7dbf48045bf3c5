"""Which law to believe: each form fitted below every size and asked for it, and AICc."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from workbench.scaling.fit import Law, aicc, checked, fit_law
from workbench.scaling.law import CONSTANT, FORMS, POWER, Form, loss_at
from workbench.scaling.optimizer import minimize, spread

__all__ = ["Comparison", "Miss", "backtest", "choose", "compare", "laws_below", "rollout"]

_RECENT = 0.6
"""What the one before the last rollout counts, the one before that this squared, and so on."""


class Miss(NamedTuple):
    """How far a form, fitted below a size, was off at that size."""

    size: float
    error: float
    """Log of the predicted loss less the mean log loss there."""
    per_step: float
    """The same over the root of the steps to it, each the mean distance of the fitted sizes."""


Misses = Mapping[str, Sequence[Miss]]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The laws of one axis, and which of them foretold the larger sizes best."""

    laws: Mapping[str, Law]
    """By name of the form, simplest first; those that have enough sizes."""
    misses: Misses

    @property
    def chosen(self) -> Law:
        """The law that forecasts."""
        return self.laws[choose(self.misses).name]

    def rows(self, x: float) -> list[dict[str, object]]:
        """Return a row per form: errors, agreement of its starts, its forecast at ``x``.

        None stands where a form has too few runs for an AICc, or no rollout.
        """
        runs, chosen = self.laws[POWER.name].effective_runs, self.chosen
        scores = {
            name: aicc(law.squares, runs=runs, used=len(law.form.names))
            for name, law in self.laws.items()
        }
        least = min(scores.values())
        return [
            {
                "form": name,
                "law": law.form.words,
                "rollout_error_pct": _error_pct(self.misses[name]),
                "rollouts": len(self.misses[name]),
                "delta_aicc": scores[name] - least if np.isfinite(scores[name]) else None,
                "starts_agreeing": f"{law.starts_agreeing} of {law.starts}",
                "forecast": law.interval(x),
                "is_chosen": law is chosen,
            }
            for name, law in self.laws.items()
        ]


def compare(
    x: ArrayLike,
    loss: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    seed: int = 0,
    bootstrap: int = 400,
) -> Comparison:
    """Return every form that ``(n,)`` sizes are enough for, fitted and rolled out.

    Args and errors as :func:`workbench.scaling.fit.fit_law`.
    """
    sizes = len(np.unique(checked(x, loss, CONSTANT)[0]))
    forms = [form for form in FORMS if form.least_sizes <= sizes]
    misses = {form.name: rollout(x, loss, form=form) for form in forms}
    fit = partial(fit_law, x, loss, clusters=clusters, seed=seed, bootstrap=bootstrap)
    laws = {form.name: fit(form=form, misses=_per_step(misses, form)) for form in forms}
    return Comparison(laws=laws, misses=misses)


def rollout(x: ArrayLike, loss: ArrayLike, *, form: Form) -> list[Miss]:
    """Return what a form missed at each size that has enough sizes below it, smallest first."""
    columns, losses = checked(x, loss, CONSTANT)
    at, logs = columns[:, 0], np.log(losses)
    sizes = np.unique(at)
    found = []
    for count, size in enumerate(sizes[form.least_sizes :], start=form.least_sizes):
        below = at < size
        center = np.log(at[below]).mean()
        fitted = np.log(at[None, below]) - center
        starts = spread(form, fitted, logs[below])
        fits, cost = minimize(form, starts, fitted, logs[None, below])
        told = loss_at(form, fits[[int(np.argmin(cost))]], np.log([[size]]) - center)
        error = float(np.log(told[0, 0]) - logs[at == size].mean())
        step = np.log(sizes[count - 1] / sizes[0]) / (count - 1)
        steps = float(np.log(size / sizes[count - 1]) / step)
        found.append(Miss(size=float(size), error=error, per_step=error / steps**0.5))
    return found


def choose(misses: Misses, *, before: float = np.inf) -> Form:
    """Return the form that missed least at the sizes below ``before``, recent ones counting most.

    The power law stays unless another was better on every size that both were asked for on
    average; without a rollout it stays, too.
    """
    best = POWER
    for form in FORMS:
        both = [
            {miss.size: miss.error for miss in misses.get(name, ()) if miss.size < before}
            for name in (form.name, best.name)
        ]
        sizes = sorted(both[0].keys() & both[1].keys())
        weights = _RECENT ** np.arange(len(sizes))[::-1]
        ours, theirs = (weights @ np.square([errors[size] for size in sizes]) for errors in both)
        best = form if ours < theirs else best
    return best


def laws_below(
    x: ArrayLike,
    loss: ArrayLike,
    *,
    misses: Misses,
    clusters: ArrayLike | None = None,
    seed: int = 0,
    bootstrap: int = 200,
) -> Iterator[tuple[float, Law]]:
    """Return each size with three sizes below it, and the law of what was known below it alone.

    The form is chosen, and its interval widened, by the misses at smaller sizes.

    Args:
        x: Sizes, > 0; ``(n,)``.
        loss: Losses, > 0; ``(n,)``.
        misses: Of the same runs, by :func:`rollout`.
        clusters: What runs share beyond their size; ``(n,)``.
        seed: Of the resampling.
        bootstrap: Number of resamples, >= 20.
    """
    columns, losses = checked(x, loss, CONSTANT)
    at = columns[:, 0]
    shared = np.arange(len(at)) if clusters is None else np.asarray(clusters)
    fit = partial(fit_law, seed=seed, bootstrap=bootstrap)
    for size in np.unique(at)[3:].tolist():
        below, form = at < size, choose(misses, before=size)
        past = _per_step(misses, form, before=size)
        yield size, fit(at[below], losses[below], form=form, clusters=shared[below], misses=past)


def backtest(
    x: ArrayLike, loss: ArrayLike, told: Iterable[tuple[float, Law]]
) -> list[dict[str, float]]:
    """Return how well :func:`laws_below` foretold the mean loss at each size.

    One row per size: x_fit_max, x_predicted, predicted, low, high, actual, error_pct, and
    constant_error_pct of "it stays as it was" for comparison.
    """
    at, logs = np.asarray(x, dtype=float), np.log(np.asarray(loss, dtype=float))
    rows = []
    for size, law in told:
        guess, last = law.interval(size), law.x_high[0]
        actual, stays = (float(np.exp(logs[at == one].mean())) for one in (size, last))
        errors = {
            "error_pct": 100 * (guess["value"] / actual - 1),
            "constant_error_pct": 100 * (stays / actual - 1),
        }
        ends = {"predicted": guess["value"], "low": guess["low"], "high": guess["high"]}
        rows.append({"x_fit_max": last, "x_predicted": size, **ends, "actual": actual, **errors})
    return rows


def _per_step(misses: Misses, form: Form, *, before: float = np.inf) -> list[float]:
    return [miss.per_step for miss in misses[form.name] if miss.size < before]


def _error_pct(misses: Sequence[Miss]) -> float | None:
    errors = [miss.error for miss in misses]
    return 100 * float(np.sqrt(np.mean(np.square(errors)))) if errors else None
