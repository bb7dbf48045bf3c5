"""Two ways to fit a form: Huber on log loss from many starts at once, and variable projection."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import ArrayLike

from workbench.scaling.law import Floats, Form, loss_at

__all__ = ["minimize", "project", "spread"]

_HUBER_DELTA = 1e-3
_ITERATIONS = 300
_TOLERANCE = 1e-8
_CHUNK = 256
"""Rows solved side by side: few enough to stay in the processor's cache."""
_FLOORS = (0.02, 0.3, 0.6, 0.8, 0.95)
_MOST_PROJECTED = 1_000


def spread(form: Form, sizes: Floats, logs: Floats) -> Floats:
    """Return ``(starts, parameters)`` all over the form, given ``(axes, n)`` sizes, log losses."""
    floors = _FLOORS if form.has_floor else (0.0,)
    rows = np.array(list(product(floors, *form.grid(sizes))))
    middle, shapes = np.exp(np.median(logs)), rows[:, 1:]
    floor = np.exp(logs.min()) * rows[:, :1]
    others = len(form.scales) - form.has_floor
    rest = np.maximum((middle - floor) / others, 1e-3 * middle)  # the loss starts at the median
    scales = np.log(np.repeat(rest, others, axis=1))
    if form.has_floor:
        scales = np.concatenate([np.log(floor), scales], axis=1)
    at_center = form.terms(shapes, np.zeros((form.axes, 1)))[:, :, 0]
    return np.concatenate([scales - at_center, shapes], axis=1)


def minimize(form: Form, starts: Floats, sizes: Floats, logs: Floats) -> tuple[Floats, Floats]:
    """Return ``(fits, parameters)`` and their Huber objectives, each row from its own start.

    Levenberg–Marquardt on reweighted squares; rows that no longer move are taken out.

    Args:
        form: What to fit.
        starts: ``(fits, parameters)``.
        sizes: ``(axes, n)`` centered log sizes.
        logs: Log losses, ``(fits, n)``, or ``(1, n)`` for the same in every row.

    Source:
        Hoffmann et al. 2022, arXiv:2203.15556, eq. 3 and appendix D.3 (Huber, δ = 1e-3).
    """
    theta, cost = starts.copy(), np.empty(len(starts))
    logs = np.broadcast_to(logs, (len(starts), sizes.shape[1]))
    for first in range(0, len(starts), _CHUNK):
        rows = slice(first, first + _CHUNK)
        theta[rows], cost[rows] = _solve(form, theta[rows], sizes, logs[rows])
    return theta, cost


def _solve(form: Form, theta: Floats, sizes: Floats, logs: Floats) -> tuple[Floats, Floats]:
    # scales from a millionth of the losses up
    limits = [(logs.min() - 14, logs.max() + 14)] * len(form.scales) + list(form.bounds)
    low, high = np.array(limits).T
    theta = np.clip(theta, low, high)
    best, costs, live = theta.copy(), np.empty(len(theta)), np.arange(len(theta))
    shares, errors, cost = _evaluate(form, theta, sizes, logs)
    damping, still = np.full(len(theta), 1e-2), np.zeros(len(theta), dtype=int)
    for _ in range(_ITERATIONS):
        step = _step(form, theta, sizes, shares, errors, damping)
        trial = np.clip(theta - np.clip(step, -2, 2), low, high)
        tried = _evaluate(form, trial, sizes, logs)
        better = tried[2] < cost
        small = better & (cost - tried[2] <= _TOLERANCE * cost)
        for old, new in zip((theta, shares, errors, cost), (trial, *tried), strict=True):
            old[better] = new[better]
        damping = np.clip(np.where(better, damping / 3, damping * 4), 1e-12, 1e8)
        still = np.where(better & ~small, 0, still + small)
        moving = (still < 3) & (damping < 1e6)  # noqa: PLR2004 (three small steps in a row)
        if not moving.all():
            best[live], costs[live] = theta, cost
            live, theta, logs, shares = live[moving], theta[moving], logs[moving], shares[moving]
            errors, cost, damping, still = (one[moving] for one in (errors, cost, damping, still))
        if not len(live):
            break
    best[live], costs[live] = theta, cost
    return best, costs


def _evaluate(
    form: Form, theta: Floats, sizes: Floats, logs: Floats
) -> tuple[Floats, Floats, Floats]:
    """Return each term's share of the loss, errors of log loss, and Huber objectives."""
    count = len(form.scales)
    terms = np.exp(form.terms(theta[:, count:], sizes) + theta[:, :count, None])
    total = terms.sum(axis=1)
    errors = np.log(total) - logs
    inside = np.minimum(np.abs(errors), _HUBER_DELTA)
    cost = (inside * (np.abs(errors) - 0.5 * inside)).sum(axis=1)
    return terms / total[:, None], errors, cost


def _step(  # noqa: PLR0917 (the state of one iteration)
    form: Form, theta: Floats, sizes: Floats, shares: Floats, errors: Floats, damping: Floats
) -> Floats:
    shapes = form.slopes(theta[:, len(form.scales) :], sizes, shares)
    slopes = np.concatenate([shares, shapes], axis=1)
    weights = np.minimum(1.0, _HUBER_DELTA / np.maximum(np.abs(errors), 1e-300))
    weighted = slopes * weights[:, None]
    normal = weighted @ slopes.transpose(0, 2, 1)
    gradient = weighted @ errors[:, :, None]
    trace = np.einsum("fpp->fp", normal)
    ridge = damping[:, None] * (trace + 1e-9 * trace.max(axis=1, keepdims=True) + 1e-15)
    step: Floats = np.linalg.solve(normal + np.eye(theta.shape[1]) * ridge[:, :, None], gradient)
    return step[:, :, 0]


def project(
    form: Form, sizes: Floats, loss: ArrayLike, *, is_relative: bool = True
) -> tuple[Floats, float]:
    """Return parameters by variable projection and their squared errors.

    A grid over the shapes, refined; for each, non-negative least squares gives the scales.

    Args:
        form: What to fit.
        sizes: ``(axes, n)`` centered log sizes.
        loss: ``(n,)`` losses, > 0.
        is_relative: Whether errors are relative, which to first order are those of log loss, and
            what comes back are squares of errors of log loss; else plain ones.

    Source:
        Golub & Pereyra 1973, variable projection.
    """
    from scipy.optimize import minimize as refine
    from scipy.optimize import nnls

    losses = np.asarray(loss, dtype=float)
    weights = 1 / losses if is_relative else np.ones_like(losses)

    def solve(shapes: Floats) -> tuple[Floats, float]:
        terms = np.exp(form.terms(shapes[None], sizes)[0]).T * weights[:, None]
        scales, remainder = nnls(terms, losses * weights)
        return scales, float(remainder)

    def remainder(shapes: Floats) -> float:
        return solve(shapes)[1]

    found = np.zeros(0)
    if form.shapes:
        found = refine(
            remainder,
            min(map(np.array, product(*form.grid(sizes))), key=remainder),
            method="Nelder-Mead",
            bounds=list(form.bounds),
            options={"xatol": 1e-9, "fatol": 1e-14, "maxiter": _MOST_PROJECTED},
        ).x
    scales, norm = solve(found)
    theta = np.concatenate([np.log(np.maximum(scales, 1e-300)), found])
    if not is_relative:
        return theta, norm**2
    errors = np.log(loss_at(form, theta[None], sizes)[0] / losses)
    return theta, float(errors @ errors)
