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

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workbench.core.errors import ConfigError, DataError
from workbench.store.results import CurvePoint, Interval

__all__ = ["EXTRAPOLATION_SD", "PowerLaw", "fit_power_law", "project"]

Floats = NDArray[np.float64]

EXTRAPOLATION_SD = 0.03
"""Standard deviation allowed for the law being the wrong curve, in log loss, per fitted range (in
log x) beyond it, which no resampling of the fitted runs can show. Set by hand on a rollout over the
runs of arXiv:2403.08540, of which it covers 25 of 26; so that figure is no independent test."""

_HUBER_DELTA = 1e-3
_ITERATIONS = 250
_ALPHA_LOW, _ALPHA_HIGH = 0.01, 4.0
_START_FLOORS = (0.02, 0.3, 0.6, 0.8, 0.95)
_START_ALPHAS = (0.05, 0.2, 0.5, 1.0, 2.0)
_AGREEMENT = 1.001
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
    residual_sd: float
    """Of log loss around the law, over the degrees of freedom left."""
    aicc_gain: float
    """AICc of the constant less AICc of the law: > 2 speaks for the law, below for the constant."""
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
    def identifies_exponents(self) -> bool:
        """Whether each interval of α is narrower than the exponent itself and off its bounds."""
        axes = len(self.exponents)
        low, high = np.quantile(self.draws[:, 1 + axes :], [0.025, 0.975], axis=0)
        narrow = (high - low) < np.asarray(self.exponents)
        inside = (low > 1.01 * _ALPHA_LOW) & (high < 0.99 * _ALPHA_HIGH)
        return bool(np.all(narrow & inside))

    def predict(self, x: ArrayLike) -> Floats:
        """Return the loss at each x; ``(n,)`` or ``(n, axes)`` to ``(n,)``."""
        theta = np.array([[self.floor, *self.scales, *self.exponents]])
        losses: Floats = _loss(theta, _columns(x, len(self.exponents)))[0]
        return losses

    def curve(self, x: ArrayLike) -> list[CurvePoint]:
        """Return the law at each x with the 95 % interval of a new run there.

        The interval holds the uncertainty of the law, the scatter of runs and, beyond the fitted
        range, :data:`EXTRAPOLATION_SD`.
        """
        columns = _columns(x, len(self.exponents))
        low, high = np.log(self.x_low), np.log(self.x_high)
        beyond = np.maximum(np.log(columns) - high, low - np.log(columns)) / (high - low)
        allowance = EXTRAPOLATION_SD * np.maximum(beyond, 0).max(axis=1)
        scatter = self.noise[:, None] + self.doubt[:, None] * allowance
        logs = np.log(_loss(self.draws, columns)) + scatter
        bounds = np.exp(np.quantile(logs, [0.025, 0.975], axis=0))
        values = self.predict(x)
        rows = np.column_stack([columns[:, 0], values, *bounds]).tolist()
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
        axes = len(self.exponents)
        marks = [""] if axes == 1 else [f"_{axis + 1}" for axis in range(axes)]
        names = ["E", *(f"A{mark}" for mark in marks), *(f"alpha{mark}" for mark in marks)]
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
    agreeing = int(np.sum(objectives <= objectives.min() * _AGREEMENT + 1e-12))
    fitted = np.log(_loss(best[None], scaled)[0])
    named = np.arange(len(logs)) if clusters is None else np.asarray(clusters)
    groups = np.unique(named, return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    free = len(logs) - 1 - 2 * axes
    errors, noise, sd = _resample(logs - fitted, groups, free=free, draws=bootstrap, rng=rng)
    # From the best fit and from a flat one: the draws must be free to leave the basin.
    begin = np.stack([best, starts[len(starts) // 2]])
    targets = fitted + errors
    first, cost = _fit(np.repeat(begin[:1], bootstrap, 0), scaled, targets)
    second, other = _fit(np.repeat(begin[1:], bootstrap, 0), scaled, targets)
    draws = np.where((cost <= other)[:, None], first, second)
    projected, squares = project(scaled, losses)
    flat = float(np.sum((logs - logs.mean()) ** 2))
    theta, second_theta, draws = (_uncentered(part, center) for part in (best, projected, draws))
    return PowerLaw(
        floor=float(theta[0]),
        scales=tuple(theta[1 : 1 + axes].tolist()),
        exponents=tuple(theta[1 + axes :].tolist()),
        starts=len(starts),
        starts_agreeing=agreeing,
        residual_sd=sd,
        aicc_gain=_aicc_gain(flat, squares, len(logs), 2 + 2 * axes),
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
    count = _PROJECTION_GRID if axes == 1 else 12
    grid = np.geomspace(_ALPHA_LOW, _ALPHA_HIGH, count)
    best = min((np.array(point) for point in product(grid, repeat=axes)), key=remainder)
    bounds = [(_ALPHA_LOW, _ALPHA_HIGH)] * axes
    found = minimize(
        remainder,
        best,
        method="Nelder-Mead",
        bounds=bounds,
        options={"xatol": 1e-7, "fatol": 1e-13, "maxiter": 800},
    )
    linear, _ = solve(found.x)
    theta = np.concatenate([linear, found.x])
    errors = np.log(_loss(theta[None], columns)[0]) - np.log(losses)
    return theta, float(np.sum(errors**2))


def _checked(x: ArrayLike, loss: ArrayLike) -> tuple[Floats, Floats]:
    losses = np.asarray(loss, dtype=float)
    columns = np.asarray(x, dtype=float)
    columns = columns[:, None] if columns.ndim == 1 else columns
    if losses.ndim != 1 or len(losses) != len(columns):
        raise DataError(f"{len(columns)} sizes but {losses.size} losses; give one loss per run")
    good = np.isfinite(losses).all() and np.isfinite(columns).all()
    if not good or (losses <= 0).any() or (columns <= 0).any():
        raise DataError("sizes and losses must be finite and above 0; leave out failed runs")
    for axis in range(columns.shape[1]):
        sizes = np.unique(columns[:, axis])
        if len(sizes) < 3:  # noqa: PLR2004
            raise DataError(
                f"{len(sizes)} different sizes on axis {axis + 1}: a scaling law needs at least 3; "
                "train at more sizes"
            )
    return columns, losses


def _columns(x: ArrayLike, axes: int) -> Floats:
    return np.asarray(x, dtype=float).reshape(-1, axes)


def _loss(theta: Floats, columns: Floats) -> Floats:
    """Return ``(fits, n)`` losses of ``(fits, 1 + 2·axes)`` E, A, α at ``(n, axes)``."""
    axes = columns.shape[1]
    powers = np.exp(-theta[:, 1 + axes :, None] * np.log(columns).T[None])
    total: Floats = theta[:, :1] + np.einsum("fa,fan->fn", theta[:, 1 : 1 + axes], powers)
    return total


def _starts(logs: Floats, axes: int) -> Floats:
    middle, least = float(np.exp(np.median(logs))), float(np.exp(logs.min()))
    grid = product(_START_FLOORS, *[_START_ALPHAS] * axes)
    rows = np.array(list(grid))
    floors = least * rows[:, :1]
    scales = np.maximum(
        (middle - floors) / axes, 1e-3 * middle
    )  # the law meets the median at x = 1
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
    theta = np.concatenate([np.log(starts[:, : 1 + axes]), starts[:, 1 + axes :]], axis=1)
    lowest, highest = logs.min() - 14, logs.max() + 14
    damping = np.full(len(theta), 1e-2)

    def terms(theta: Floats) -> tuple[Floats, Floats]:
        parts = np.exp(theta[:, 1 : 1 + axes, None] + theta[:, 1 + axes :, None] * at)
        floors = np.broadcast_to(np.exp(theta[:, :1, None]), (len(theta), 1, at.shape[2]))
        parts = np.concatenate([floors, parts], axis=1)
        return parts, parts.sum(axis=1)

    def objective(errors: Floats) -> Floats:
        size = np.abs(errors)
        inside = np.minimum(size, _HUBER_DELTA)
        summed: Floats = (inside * (size - 0.5 * inside)).sum(axis=1)
        return summed

    parts, total = terms(theta)
    errors = np.log(total) - logs
    cost = objective(errors)
    identity = np.eye(theta.shape[1])
    for _ in range(_ITERATIONS):
        shares = parts / total[:, None]
        slopes = np.concatenate([shares, shares[:, 1:] * at], axis=1)
        weights = np.minimum(1.0, _HUBER_DELTA / np.maximum(np.abs(errors), 1e-300))
        weighted = slopes * weights[:, None]
        normal = np.einsum("fpn,fqn->fpq", weighted, slopes)
        gradient = np.einsum("fpn,fn->fp", weighted, errors)
        trace = np.einsum("fpp->fp", normal)
        ridge = damping[:, None] * (trace + 1e-9 * trace.max(axis=1, keepdims=True) + 1e-15)
        step = np.linalg.solve(normal + identity * ridge[:, :, None], gradient[:, :, None])[:, :, 0]
        trial = theta - np.clip(step, -2, 2)
        trial[:, : 1 + axes] = np.clip(trial[:, : 1 + axes], lowest, highest)
        trial[:, 1 + axes :] = np.clip(trial[:, 1 + axes :], _ALPHA_LOW, _ALPHA_HIGH)
        trial_parts, trial_total = terms(trial)
        trial_errors = np.log(trial_total) - logs
        trial_cost = objective(trial_errors)
        better = trial_cost < cost
        gain = float(np.max(np.where(better, (cost - trial_cost) / np.maximum(cost, 1e-300), 0)))
        damping = np.clip(np.where(better, damping / 3, damping * 4), 1e-12, 1e8)
        theta = np.where(better[:, None], trial, theta)
        parts = np.where(better[:, None, None], trial_parts, parts)
        total = np.where(better[:, None], trial_total, total)
        errors = np.where(better[:, None], trial_errors, errors)
        cost = np.where(better, trial_cost, cost)
        if gain < 1e-9 and (damping > 1e6).all():  # noqa: PLR2004 (no row moves any more)
            break
    found = np.concatenate([np.exp(theta[:, : 1 + axes]), theta[:, 1 + axes :]], axis=1)
    return found, cost


def _resample(
    residuals: Floats,
    groups: NDArray[np.intp],
    *,
    free: int,
    draws: int,
    rng: np.random.Generator,
) -> tuple[Floats, Floats, float]:
    """Return ``(draws, n)`` errors for refits, ``(draws,)`` scatter of a new run, and its sd.

    A cluster's mean residual is drawn as a whole and what remains run by run, both with the scale
    of a Student t: few clusters and few runs make wide intervals, as they should.
    """
    count = int(groups.max()) + 1
    means = np.zeros(count)
    if count < len(residuals):  # else each run is its own cluster and nothing is shared
        means = np.bincount(groups, residuals) / np.bincount(groups)
    rest = residuals - means[groups]
    degrees = max(free, 1)
    sd_rest = float(np.sqrt(np.sum(rest**2) / degrees))
    sd_means = float(np.sqrt(np.sum(means**2) / max(count - 1, 1)))

    def widths(of: int) -> Floats:
        return np.sqrt(of / rng.chisquare(of, size=draws))

    rest_scale = sd_rest * widths(degrees)
    mean_scale = sd_means * widths(max(count - 1, 1))
    shared = rng.standard_normal((draws, count)) * mean_scale[:, None]
    errors = shared[:, groups] + rng.standard_normal((draws, len(residuals))) * rest_scale[:, None]
    noise = rng.standard_normal(draws) * np.hypot(rest_scale, mean_scale)
    return errors, noise, float(np.hypot(sd_rest, sd_means))


def _aicc_gain(flat: float, squares: float, count: int, parameters: int) -> float:
    """Return AICc of the constant (2 parameters) less that of the law, for Gaussian errors.

    Minus infinity where the runs are too few to afford the law's parameters.
    """
    if count <= parameters + 1:
        return float("-inf")

    def aicc(total: float, used: int) -> float:
        return count * float(np.log(max(total, 1e-24) / count)) + 2 * used * count / (
            count - used - 1
        )

    return aicc(flat, 2) - aicc(squares, parameters)


def _uncentered(theta: Floats, center: Floats) -> Floats:
    """Return E, A, α for plain x from those for ``x / center``."""
    axes = len(center)
    out = np.array(theta)
    out[..., 1 : 1 + axes] *= center ** out[..., 1 + axes :]
    return out
