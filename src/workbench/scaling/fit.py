"""A fitted law with intervals, and whether to believe it.

Huber on log loss from many starts gives the law, variable projection checks it, and resampled
losses, clustered by seed, give its intervals. No resampling of the fitted runs can show that the
curve is the wrong one; beyond them the interval holds an allowance for that, which starts from
what laws missed elsewhere and follows what this one missed in its own rollout.

Source:
    Hoffmann et al. 2022, arXiv:2203.15556, approach 3; Besiroglu et al. 2024, arXiv:2404.10102.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workbench.core.errors import ConfigError, DataError
from workbench.scaling.law import POWER, Floats, Form, loss_at
from workbench.scaling.optimizer import minimize, project, spread
from workbench.store.results import CurvePoint, Interval

__all__ = ["MISS_SD", "Law", "aicc", "checked", "draw_misses", "fit_law"]

MISS_SD = 0.03
"""What a law misses one step beyond its runs, in log loss, before it has missed anything itself. A
step is the mean distance of its sizes in log x; misses grow with the root of the steps, as those of
a random walk. The mean of what each half of the rollouts over the runs of arXiv:2403.08540 asks
for; that of each half is tested on the other one in ``benchmarks/bench_scaling.py``."""
_MISS_WEIGHT = 4.0
"""How many rollouts of its own that counts for."""
_LEAST_BOOTSTRAP = 20


@dataclass(frozen=True, kw_only=True)
class Law:
    """A fitted law with the draws that its intervals are read from."""

    form: Form
    best: Floats
    """``(parameters,)``, logs of the scales and the shapes, for sizes around ``center``."""
    center: Floats
    """``(axes,)`` log sizes."""
    starts: int
    starts_agreeing: int
    """Starts that ended within 0.1 % of the best objective."""
    effective_runs: float
    """Runs, less what seeds of one size share by lying off the law together."""
    squares: float
    """Mean squared error of log loss of the second method."""
    aicc_gain: float
    """AICc of the constant less AICc of the law, both over ``effective_runs``: > 2 speaks for the
    law."""
    constant: float
    """Geometric mean of the losses: the forecast of "more x does not help"."""
    second_method: tuple[float, ...]
    """The parameters by variable projection."""
    draws: Floats
    """``(draws, parameters)`` of the law refitted to resampled losses."""
    noise: Floats
    """``(draws,)`` scatter of a new run around its law, in log loss."""
    misses: Floats
    """``(draws,)`` how far each draw leaves the law one step beyond the fitted range."""
    x_low: tuple[float, ...]
    x_high: tuple[float, ...]
    """Fitted range per axis."""
    step: Floats
    """``(axes,)`` mean distance of the sizes in log x."""

    @property
    def beats_constant(self) -> bool:
        """Whether the runs tell the law from no improvement at all (AICc gain > 2)."""
        return self.aicc_gain > 2.0  # noqa: PLR2004 (Burnham and Anderson's usual threshold)

    @property
    def is_identified(self) -> bool:
        """Whether there is a law, each shape in an interval narrower than itself and off bounds."""
        count = len(self.form.scales)
        low, high = np.quantile(self.draws[:, count:], [0.025, 0.975], axis=0)
        least, most = np.array(self.form.bounds).reshape(-1, 2).T
        inside = (low > least + 0.01 * abs(least)) & (high < most - 0.01 * abs(most))
        narrow = high - low < np.abs(self.best[count:])
        return self.beats_constant and bool(np.all(inside & narrow))

    @property
    def words(self) -> str:
        """The law in words, and whether the runs identify it."""
        names = ", ".join(self.form.names)
        short = "" if self.is_identified else f" ({names} not identified by these runs)"
        return self.form.words + short

    def at(self, x: ArrayLike) -> Floats:
        """Return the loss at each of ``(n,)`` or ``(n, axes)`` sizes."""
        told: Floats = loss_at(self.form, self.best[None], self._centered(x))[0]
        return told

    def curve(self, x: ArrayLike) -> list[CurvePoint]:
        """Return the law at each x with the 95 % interval of a new run there.

        The interval holds the uncertainty of the law, the scatter of runs and, beyond the fitted
        range, the allowance for the law being the wrong curve.
        """
        sizes = self._centered(x)
        low, high = (np.log(end) - self.center for end in (self.x_low, self.x_high))
        past = np.maximum(sizes.T - high, low - sizes.T) / self.step
        beyond = np.sqrt(np.maximum(past, 0).max(axis=1))
        scatter = self.noise[:, None] + self.misses[:, None] * beyond
        logs = np.log(loss_at(self.form, self.draws, sizes)) + scatter
        bounds = np.exp(np.quantile(logs, [0.025, 0.975], axis=0))
        plain = np.exp(sizes[0] + self.center[0])
        rows = np.column_stack([plain, self.at(x), *bounds]).tolist()
        return [
            {"x": at, "loss": value, "low": min(low, value), "high": max(high, value)}
            for at, value, low, high in rows
        ]

    def interval(self, x: float | Sequence[float]) -> Interval:
        """Return the loss of a new run at one x with its 95 % interval."""
        point = self.curve(np.atleast_2d(np.asarray(x, dtype=float)))[0]
        return {"value": point["loss"], "low": point["low"], "high": point["high"]}

    def plain(self) -> tuple[Floats, Floats]:
        """Return ``(parameters,)`` and their ``(draws, parameters)`` for plain sizes."""
        both = np.concatenate([self.best[None], self.draws])
        best, *draws = self.form.plain(both, self.center)
        return best, np.array(draws)

    def parameters(self) -> dict[str, Interval]:
        """Return the parameters by name, with 95 % intervals."""
        best, draws = self.plain()
        bounds = np.quantile(draws, [0.025, 0.975], axis=0)
        return {
            name: {"value": value, "low": float(min(low, value)), "high": float(max(high, value))}
            for name, value, low, high in zip(self.form.names, best.tolist(), *bounds, strict=True)
        }

    def _centered(self, x: ArrayLike) -> Floats:
        columns = np.asarray(x, dtype=float).reshape(-1, self.form.axes)
        return np.array(np.log(columns) - self.center).T


def fit_law(
    x: ArrayLike,
    loss: ArrayLike,
    *,
    form: Form = POWER,
    clusters: ArrayLike | None = None,
    misses: Sequence[float] = (),
    seed: int = 0,
    bootstrap: int = 400,
) -> Law:
    """Return the law that the runs follow, with intervals.

    Args:
        x: Sizes, > 0; ``(n,)`` for one axis, ``(n, axes)`` for several.
        loss: Losses, > 0; ``(n,)``.
        form: The curve.
        clusters: What runs share beyond their size, usually the seed; ``(n,)``. Their common
            deviation is resampled as a whole.
        misses: What it missed in its own rollout, in log loss over the root of the steps.
        seed: Of the resampling.
        bootstrap: Number of resamples, >= 20.

    Raises:
        DataError: If sizes or losses are not positive and finite, or an axis has fewer sizes than
            the form needs.
        ConfigError: If ``bootstrap`` < 20.
    """
    columns, losses = checked(x, loss, form)
    if bootstrap < _LEAST_BOOTSTRAP:
        raise ConfigError(f"bootstrap={bootstrap}: intervals need at least 20 resamples")
    center, logs = np.log(columns).mean(axis=0), np.log(losses)
    sizes, used = (np.log(columns) - center).T, len(form.names)
    starts = spread(form, sizes, logs)
    fits, objectives = minimize(form, starts, sizes, logs[None])
    best = fits[int(np.argmin(objectives))]
    fitted = np.log(loss_at(form, best[None], sizes)[0])
    groups = np.arange(len(logs)) if clusters is None else _numbered(np.asarray(clusters))
    rng = np.random.default_rng(seed)
    free = max(len(logs) - used, 1)
    errors, noise = _resample(logs - fitted, groups, free=free, draws=bootstrap, rng=rng)
    draws, _ = minimize(form, np.tile(best, (bootstrap, 1)), sizes, fitted + errors)
    projected, squares = project(form, sizes, losses)
    off = logs - np.log(loss_at(form, projected[None], sizes)[0])
    effective = _effective_runs(off, _numbered(columns), parameters=used)
    flat = aicc(float(logs.var()), runs=effective, used=1)
    own = aicc(squares / len(logs), runs=effective, used=used)
    spacing = [np.ptp(axis) / (len(np.unique(axis)) - 1) for axis in sizes]
    return Law(
        form=form,
        best=best,
        center=center,
        starts=len(starts),
        starts_agreeing=int(np.sum(objectives <= objectives.min() * 1.001 + 1e-12)),
        effective_runs=effective,
        squares=squares / len(logs),
        aicc_gain=flat - own if np.isfinite(own) else float("-inf"),
        constant=float(np.exp(logs.mean())),
        second_method=tuple(form.plain(projected[None], center)[0].tolist()),
        draws=draws,
        noise=noise,
        misses=draw_misses(misses, draws=bootstrap, rng=rng),
        x_low=tuple(columns.min(axis=0).tolist()),
        x_high=tuple(columns.max(axis=0).tolist()),
        step=np.array(spacing),
    )


def checked(x: ArrayLike, loss: ArrayLike, form: Form) -> tuple[Floats, Floats]:
    """Return sizes ``(n, axes)`` and losses ``(n,)`` that the form can be fitted to.

    Raises:
        DataError: As :func:`fit_law`.
    """
    losses = np.asarray(loss, dtype=float)
    columns = np.asarray(x, dtype=float)
    if len(losses) != len(columns):
        raise DataError(f"{len(columns)} sizes but {losses.size} losses; give one loss per run")
    columns = columns.reshape(len(losses), -1)
    if columns.shape[1] != form.axes:
        raise DataError(f"{form.name} has {form.axes} axes, the sizes have {columns.shape[1]}")
    if not all((np.isfinite(part) & (part > 0)).all() for part in (losses, columns)):
        raise DataError("sizes and losses must be finite and above 0; leave out failed runs")
    for axis, sizes in enumerate(columns.T, start=1):
        if (count := len(np.unique(sizes))) < form.least_sizes:
            raise DataError(
                f"{count} different sizes on axis {axis}: {form.name} needs at least "
                f"{form.least_sizes}; train at more sizes"
            )
    return columns, losses


def aicc(squares: float, *, runs: float, used: int) -> float:
    """Return AICc for Gaussian errors; infinity where the runs cannot afford the parameters.

    Args:
        squares: Mean squared error of log loss.
        runs: Effective runs.
        used: Parameters of the law; the scatter is one more.
    """
    count = used + 1
    if runs <= count + 1:
        return float("inf")
    return runs * float(np.log(max(squares, 1e-24))) + 2 * count * runs / (runs - count - 1)


def draw_misses(
    past: Sequence[float], *, draws: int, rng: np.random.Generator, sd: float = MISS_SD
) -> Floats:
    """Return ``(draws,)`` of a Student t: the scale ``sd``, updated by what was missed.

    Args:
        past: Log loss over the root of the steps.
        draws: How many.
        rng: Where from.
        sd: What is expected before there is a past.
    """
    degrees = _MISS_WEIGHT + len(past)
    scale = (_MISS_WEIGHT * sd**2 + np.sum(np.square(past))) / degrees
    drawn: Floats = rng.standard_t(degrees, size=draws) * np.sqrt(scale)
    return drawn


def _numbered(labels: NDArray[Any]) -> NDArray[np.intp]:
    """Return 0, 1, 2, ... for equal rows of ``(n,)`` or ``(n, axes)`` labels."""
    return np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)


def _resample(
    residuals: Floats, groups: NDArray[np.intp], *, free: int, draws: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Return ``(draws, n)`` errors for refits, and ``(draws,)`` scatter of a new run.

    A cluster's mean residual is drawn as a whole and what remains run by run, both with the scale
    of a Student t: few clusters and few runs make wide intervals, as they should.
    """
    count = int(groups.max()) + 1
    means = np.zeros(count)
    if count < len(residuals):  # else each run is its own cluster and nothing is shared
        means = np.bincount(groups, residuals) / np.bincount(groups)

    def scales(values: Floats, degrees: int) -> Floats:
        sd: Floats = np.sqrt(np.sum(values**2) / rng.chisquare(degrees, size=draws))
        return sd

    rest_scale = scales(residuals - means[groups], free)
    mean_scale = scales(means, max(count - 1, 1))
    shared = rng.standard_normal((draws, count)) * mean_scale[:, None]
    errors = shared[:, groups] + rng.standard_normal((draws, len(residuals))) * rest_scale[:, None]
    return errors, rng.standard_normal(draws) * np.hypot(rest_scale, mean_scale)


def _effective_runs(errors: Floats, sizes: NDArray[np.intp], *, parameters: int) -> float:
    """Return how many independent runs these are worth: n over Kish's design effect.

    Seeds of one size that lie off the law together repeat each other. Their intraclass correlation
    is taken between sizes, less the degrees of freedom that the law used up there.

    Source:
        Kish 1965, Survey Sampling, ch. 5 (design effect); Fisher 1925, ch. 7 (intraclass r).
    """
    counts = np.bincount(sizes)
    repeats = len(errors) - len(counts)
    if not repeats:
        return float(len(errors))
    means = np.bincount(sizes, errors) / counts
    between = float(counts @ means**2) / max(len(counts) - parameters, 1)
    within = float(np.sum((errors - means[sizes]) ** 2)) / repeats
    each = len(errors) / len(counts)
    total = between + (each - 1) * within
    share = max(between - within, 0.0) / total if total else 0.0
    return len(errors) / (1 + (each - 1) * share)
