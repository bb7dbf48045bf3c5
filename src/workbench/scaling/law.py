"""Scaling laws ``L(x) = E + Σ A_k · x_k^(−α_k)`` with intervals, and whether to believe them.

Two methods: Huber on log loss from many starts, which gives the law; and variable projection
(grid over the exponents, non-negative least squares for the rest), which checks it and gives the
comparison with "more x does not help at all".

Source:
    Hoffmann et al. 2022, arXiv:2203.15556, approach 3; Besiroglu et al. 2024, arXiv:2404.10102.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workbench.core.errors import ConfigError, DataError
from workbench.store.results import CurvePoint, Interval

__all__ = ["PowerLaw", "fit_power_law", "project"]

Floats = NDArray[np.float64]

_EXTRAPOLATION_SD = 0.03
"""Standard deviation allowed for the law being the wrong curve, in log loss, per fitted range (in
log x) beyond it, which no resampling of the fitted runs can show. Set by hand on a rollout over the
runs of arXiv:2403.08540, of which it covers 25 of 26; so that figure is no independent test."""

_HUBER_DELTA = 1e-3
_ITERATIONS = 250
_ALPHA_LOW, _ALPHA_HIGH = 0.01, 4.0
_START_FLOORS = (0.02, 0.3, 0.6, 0.8, 0.95)
_START_ALPHAS = (0.05, 0.2, 0.5, 1.0, 2.0)
_PROJECTION_GRID = 60


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """A fitted law with the draws that its intervals are read from."""

    floor: float
    """E: the loss that more x does not remove."""
    scales: tuple[float, ...]
    """A per axis."""
    exponents: tuple[float, ...]
    """α per axis."""
    starts: int
    starts_agreeing: int
    """Starts that ended within 0.1 % of the best objective."""
    effective_runs: float
    """Runs, less what seeds of one size share by lying off the law together."""
    aicc_gain: float
    """AICc of the constant less AICc of the law, both over ``effective_runs``: > 2 speaks for the
    law."""
    constant: float
    """Geometric mean of the losses: the forecast of "more x does not help"."""
    second_method: tuple[float, ...]
    """E, then A per axis, then α per axis, by variable projection."""
    draws: Floats
    """``(draws, 1 + 2·axes)``: E, A, α of the law refitted to resampled losses."""
    noise: Floats
    """``(draws,)`` scatter of a new run around its law, in log loss."""
    doubt: Floats
    """``(draws,)`` standard normal: how far each draw leaves the law beyond the fitted range."""
    x_low: tuple[float, ...]
    x_high: tuple[float, ...]
    """Fitted range per axis."""

    @property
    def beats_constant(self) -> bool:
        """Whether the runs tell the law from no improvement at all (AICc gain > 2)."""
        return self.aicc_gain > 2.0  # noqa: PLR2004 (Burnham and Anderson's usual threshold)

    @property
    def is_identified(self) -> bool:
        """Whether there is a law, each α in an interval narrower than itself and off its bounds."""
        axes = len(self.exponents)
        low, high = np.quantile(self.draws[:, 1 + axes :], [0.025, 0.975], axis=0)
        narrow = (high - low) < np.asarray(self.exponents)
        inside = (low > 1.01 * _ALPHA_LOW) & (high < 0.99 * _ALPHA_HIGH)
        return self.beats_constant and bool(np.all(narrow & inside))

    @property
    def form(self) -> str:
        """The law in words, and whether the runs identify it."""
        terms = " + ".join(f"A{mark} · x{mark}^(−α{mark})" for mark in self._marks)
        short = "" if self.is_identified else " (E, A and α not identified by these runs)"
        return f"L(x) = E + {terms}{short}"

    @property
    def _marks(self) -> list[str]:
        axes = len(self.exponents)
        return [""] if axes == 1 else [f"_{axis + 1}" for axis in range(axes)]

    def curve(self, x: ArrayLike) -> list[CurvePoint]:
        """Return the law at each x with the 95 % interval of a new run there.

        The interval holds the uncertainty of the law, the scatter of runs and, beyond the fitted
        range, an allowance for the law being the wrong curve.
        """
        columns = np.asarray(x, dtype=float).reshape(-1, len(self.exponents))
        low, high = np.log(self.x_low), np.log(self.x_high)
        beyond = np.maximum(np.log(columns) - high, low - np.log(columns)) / (high - low)
        allowance = _EXTRAPOLATION_SD * np.maximum(beyond, 0).max(axis=1)
        scatter = self.noise[:, None] + self.doubt[:, None] * allowance
        logs = np.log(_loss(self.draws, columns)) + scatter
        bounds = np.exp(np.quantile(logs, [0.025, 0.975], axis=0))
        theta = np.array([[self.floor, *self.scales, *self.exponents]])
        rows = np.column_stack([columns[:, 0], _loss(theta, columns)[0], *bounds]).tolist()
        return [
            {"x": at, "loss": value, "low": min(low, value), "high": max(high, value)}
            for at, value, low, high in rows
        ]

    def interval(self, x: float | Sequence[float]) -> Interval:
        """Return the loss of a new run at one x with its 95 % interval."""
        point = self.curve(np.atleast_2d(np.asarray(x, dtype=float)))[0]
        return {"value": point["loss"], "low": point["low"], "high": point["high"]}

    def parameters(self) -> dict[str, Interval]:
        """Return E, A, alpha (``A_1``, ``alpha_1``, ... with several axes), with 95 % intervals."""
        names = ["E", *(f"A{m}" for m in self._marks), *(f"alpha{m}" for m in self._marks)]
        values = [self.floor, *self.scales, *self.exponents]
        bounds = np.quantile(self.draws, [0.025, 0.975], axis=0)
        return {
            name: {"value": value, "low": float(min(low, value)), "high": float(max(high, value))}
            for name, value, low, high in zip(names, values, *bounds, strict=True)
        }


def fit_power_law(
    x: ArrayLike,
    loss: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    seed: int = 0,
    bootstrap: int = 400,
) -> PowerLaw:
    """Return the law that the runs follow, with intervals.

    Args:
        x: Sizes, > 0; ``(n,)`` for one axis, ``(n, axes)`` for several.
        loss: Losses, > 0; ``(n,)``.
        clusters: What runs share beyond their size, usually the seed; ``(n,)``. Their common
            deviation is resampled as a whole.
        seed: Of the resampling.
        bootstrap: Number of resamples, >= 20.

    Raises:
        DataError: If sizes or losses are not positive and finite, or an axis has fewer than
            three sizes (a law of three parameters needs three).
        ConfigError: If ``bootstrap`` < 20.

    Source:
        Hoffmann et al. 2022, arXiv:2203.15556, eq. 10 and appendix D.3 (Huber, δ = 1e-3).
    """
    columns, losses = _checked(x, loss)
    if bootstrap < 20:  # noqa: PLR2004
        raise ConfigError(f"bootstrap={bootstrap}: intervals need at least 20 resamples")
    axes = columns.shape[1]
    center = np.exp(np.log(columns).mean(axis=0))  # keeps A and α from trading places
    scaled, logs = columns / center, np.log(losses)
    starts = _starts(logs, axes)
    fits, objectives = _fit(starts, scaled, np.tile(logs, (len(starts), 1)))
    best = fits[int(np.argmin(objectives))]
    fitted = np.log(_loss(best[None], scaled)[0])
    groups = np.arange(len(logs)) if clusters is None else _numbered(np.asarray(clusters))
    rng = np.random.default_rng(seed)
    free = max(len(logs) - 1 - 2 * axes, 1)
    errors, noise = _resample(logs - fitted, groups, free=free, draws=bootstrap, rng=rng)
    # From the best fit and from a flat one: the draws must be free to leave the basin.
    begins = (np.tile(begin, (bootstrap, 1)) for begin in (best, starts[len(starts) // 2]))
    (first, cost), (second, other) = (_fit(begin, scaled, fitted + errors) for begin in begins)
    draws = np.where((cost <= other)[:, None], first, second)
    projected, squares = project(scaled, losses)
    off = logs - np.log(_loss(projected[None], scaled)[0])
    effective = _effective_runs(off, _numbered(columns), parameters=1 + 2 * axes)
    theta, second_theta, draws = (_uncentered(part, center) for part in (best, projected, draws))
    return PowerLaw(
        floor=float(theta[0]),
        scales=tuple(theta[1 : 1 + axes].tolist()),
        exponents=tuple(theta[1 + axes :].tolist()),
        starts=len(starts),
        starts_agreeing=int(np.sum(objectives <= objectives.min() * 1.001 + 1e-12)),
        effective_runs=effective,
        aicc_gain=_aicc_gain(float(logs.var()), squares / len(logs), effective, 2 + 2 * axes),
        constant=float(np.exp(logs.mean())),
        second_method=tuple(second_theta.tolist()),
        draws=draws,
        noise=noise,
        doubt=rng.standard_normal(bootstrap),
        x_low=tuple(columns.min(axis=0).tolist()),
        x_high=tuple(columns.max(axis=0).tolist()),
    )


def project(x: ArrayLike, loss: ArrayLike) -> tuple[Floats, float]:
    """Return (E, A..., α...) by variable projection, and its squared errors of log loss.

    Args:
        x: Sizes, > 0; ``(n, axes)`` or ``(n,)``.
        loss: Losses, > 0; ``(n,)``.

    Source:
        Golub & Pereyra 1973, variable projection; relative errors, which are errors of log loss
        to first order.
    """
    from scipy.optimize import minimize, nnls

    losses = np.asarray(loss, dtype=float)
    columns = np.asarray(x, dtype=float).reshape(len(losses), -1)

    def solve(alphas: Floats) -> tuple[Floats, float]:
        terms = np.column_stack([np.ones(len(losses)), columns**-alphas]) / losses[:, None]
        return nnls(terms, np.ones(len(losses)))

    def remainder(alphas: Floats) -> float:
        return float(solve(alphas)[1])

    axes = columns.shape[1]
    grid = np.geomspace(_ALPHA_LOW, _ALPHA_HIGH, _PROJECTION_GRID if axes == 1 else 12)
    found = minimize(
        remainder,
        min(map(np.array, product(grid, repeat=axes)), key=remainder),
        method="Nelder-Mead",
        bounds=[(_ALPHA_LOW, _ALPHA_HIGH)] * axes,
        options={"xatol": 1e-7, "fatol": 1e-13, "maxiter": 800},
    ).x
    theta = np.concatenate([solve(found)[0], found])
    errors = np.log(_loss(theta[None], columns)[0]) - np.log(losses)
    return theta, float(np.sum(errors**2))


def _checked(x: ArrayLike, loss: ArrayLike) -> tuple[Floats, Floats]:
    losses = np.asarray(loss, dtype=float)
    columns = np.asarray(x, dtype=float)
    if len(losses) != len(columns):
        raise DataError(f"{len(columns)} sizes but {losses.size} losses; give one loss per run")
    columns = columns.reshape(len(losses), -1)
    if not all((np.isfinite(part) & (part > 0)).all() for part in (losses, columns)):
        raise DataError("sizes and losses must be finite and above 0; leave out failed runs")
    for axis, sizes in enumerate(columns.T, start=1):
        if (count := len(np.unique(sizes))) < 3:  # noqa: PLR2004
            raise DataError(
                f"{count} different sizes on axis {axis}: a scaling law needs at least 3; "
                "train at more sizes"
            )
    return columns, losses


def _numbered(labels: NDArray[Any]) -> NDArray[np.intp]:
    """Return 0, 1, 2, ... for equal rows of ``(n,)`` or ``(n, axes)`` labels."""
    return np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)


def _loss(theta: Floats, columns: Floats) -> Floats:
    """Return ``(fits, n)`` losses of ``(fits, 1 + 2·axes)`` E, A, α at ``(n, axes)``."""
    axes = columns.shape[1]
    powers = np.exp(-theta[:, 1 + axes :, None] * np.log(columns).T[None])
    total: Floats = theta[:, :1] + np.einsum("fa,fan->fn", theta[:, 1 : 1 + axes], powers)
    return total


def _starts(logs: Floats, axes: int) -> Floats:
    rows = np.array(list(product(_START_FLOORS, *[_START_ALPHAS] * axes)))
    floors = np.exp(logs.min()) * rows[:, :1]
    middle = np.exp(np.median(logs))  # where the law starts at x = 1
    scales = np.maximum((middle - floors) / axes, 1e-3 * middle)
    return np.concatenate([floors, np.repeat(scales, axes, axis=1), rows[:, 1:]], axis=1)


def _fit(starts: Floats, columns: Floats, logs: Floats) -> tuple[Floats, Floats]:
    """Return fits and Huber objectives of all rows at once: Levenberg–Marquardt, reweighted.

    Args:
        starts: ``(fits, 1 + 2·axes)`` E, A, α.
        columns: ``(n, axes)`` sizes around 1.
        logs: ``(fits, n)`` log losses to fit.
    """
    axes = columns.shape[1]
    at = -np.log(columns).T[None]
    lowest, highest = logs.min() - 14, logs.max() + 14
    damping = np.full(len(starts), 1e-2)

    def evaluated(theta: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Return theta, each term's share of the loss, errors of log loss, Huber objectives."""
        terms = np.exp(theta[:, 1 : 1 + axes, None] + theta[:, 1 + axes :, None] * at)
        floors = np.broadcast_to(np.exp(theta[:, :1, None]), (len(theta), 1, at.shape[2]))
        terms = np.concatenate([floors, terms], axis=1)
        total = terms.sum(axis=1)
        errors = np.log(total) - logs
        inside = np.minimum(np.abs(errors), _HUBER_DELTA)
        cost = (inside * (np.abs(errors) - 0.5 * inside)).sum(axis=1)
        return theta, terms / total[:, None], errors, cost

    first = np.concatenate([np.log(starts[:, : 1 + axes]), starts[:, 1 + axes :]], axis=1)
    theta, shares, errors, cost = evaluated(first)
    for _ in range(_ITERATIONS):
        slopes = np.concatenate([shares, shares[:, 1:] * at], axis=1)
        weights = np.minimum(1.0, _HUBER_DELTA / np.maximum(np.abs(errors), 1e-300))
        weighted = slopes * weights[:, None]
        normal = np.einsum("fpn,fqn->fpq", weighted, slopes)
        gradient = np.einsum("fpn,fn->fp", weighted, errors)
        trace = np.einsum("fpp->fp", normal)
        ridge = damping[:, None] * (trace + 1e-9 * trace.max(axis=1, keepdims=True) + 1e-15)
        matrix = normal + np.eye(theta.shape[1]) * ridge[:, :, None]
        trial = theta - np.clip(np.linalg.solve(matrix, gradient[:, :, None])[:, :, 0], -2, 2)
        trial[:, : 1 + axes] = np.clip(trial[:, : 1 + axes], lowest, highest)
        trial[:, 1 + axes :] = np.clip(trial[:, 1 + axes :], _ALPHA_LOW, _ALPHA_HIGH)
        tried = evaluated(trial)
        better = tried[3] < cost
        gain = np.max(np.where(better, (cost - tried[3]) / np.maximum(cost, 1e-300), 0))
        damping = np.clip(np.where(better, damping / 3, damping * 4), 1e-12, 1e8)
        for old, new in zip((theta, shares, errors, cost), tried, strict=True):
            old[better] = new[better]
        if gain < 1e-9 and (damping > 1e6).all():  # noqa: PLR2004 (no row moves any more)
            break
    return np.concatenate([np.exp(theta[:, : 1 + axes]), theta[:, 1 + axes :]], axis=1), cost


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


def _aicc_gain(flat: float, squares: float, runs: float, parameters: int) -> float:
    """Return AICc of the constant (2 parameters) less that of the law, for Gaussian errors.

    Errors are mean squares of log loss, runs are effective ones; minus infinity comes back where
    they cannot afford the law's parameters.
    """
    if runs <= parameters + 1:
        return float("-inf")

    def aicc(error: float, used: int) -> float:
        return runs * float(np.log(max(error, 1e-24))) + 2 * used * runs / (runs - used - 1)

    return aicc(flat, 2) - aicc(squares, parameters)


def _uncentered(theta: Floats, center: Floats) -> Floats:
    """Return E, A, α for plain x from those for ``x / center``."""
    axes = len(center)
    scales = theta[..., 1 : 1 + axes] * center ** theta[..., 1 + axes :]
    return np.concatenate([theta[..., :1], scales, theta[..., 1 + axes :]], axis=-1)
