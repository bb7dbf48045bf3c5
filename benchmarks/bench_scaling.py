"""Scaling laws against published runs: speed, a published forecast, a break, and honest intervals.

    python benchmarks/bench_scaling.py [FOLDER]

FOLDER holds ``scaling/gadre`` and ``scaling/bnsl``; see ``docs/scaling.md`` for where they are
from. Without it the folder ``shared/data`` beside the project is taken.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from measure import ROOT, publish
from workbench.scaling.compare import Misses, choose, laws_below, rollout
from workbench.scaling.fit import MISS_SD, Law, aicc, draw_misses, fit_law
from workbench.scaling.law import BROKEN, FORMS, JOINT, POWER, TIED, loss_at
from workbench.scaling.optimizer import minimize, project

SMALL = ["d=96_l=8_h=4", "d=512_l=8_h=4", "d=576_l=24_h=8", "d=1024_l=24_h=8"]
PUBLISHED = {"alpha": 166.211, "beta": 366.687, "b": -0.272851, "E": 1.836648}
"""Gadre et al. 2024, arXiv:2403.08540: five small RedPajama runs, loss on C4."""
CHINCHILLA = np.array([1.82, 482.01, 2085.43, 0.3478, 0.3658])
"""E, A, B, alpha, beta of the replication, Besiroglu et al. 2024, arXiv:2404.10102."""
RESAMPLES = 120
SDS = (0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04)


class Told(NamedTuple):
    """One rollout: the law of what was below, and what came."""

    series: str
    law: Law
    past: list[float]
    size: float
    actual: float
    is_next: bool


def main() -> None:
    """Measure and publish."""
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.parent / "shared" / "data"
    runs = pd.read_csv(data / "scaling" / "gadre" / "gadre_104_runs.csv")
    addition = pd.read_csv(data / "scaling" / "bnsl" / "addition4.csv")
    rows = [*speed(), *published(runs), *breaks(addition), *coverage(runs, addition)]
    publish("scaling", rows)


def row(what: str, measured: float, unit: str, limit: str = "") -> dict[str, Any]:
    """Return a row of the table."""
    return {"what": what, "measured": measured, "unit": unit, "limit": limit}


def speed() -> list[dict[str, Any]]:
    """Return CPU seconds of the joint law's fit as Hoffmann et al. and the replication made it."""
    rng = np.random.default_rng(0)
    n = 10 ** rng.uniform(7.5, 10.3, 240)
    sizes = np.log([n, n * 10 ** rng.uniform(0, 2, 240)])
    center = sizes.mean(axis=1, keepdims=True)
    e, a, b, alpha, beta = CHINCHILLA
    loss = e + a * np.exp(-alpha * sizes[0]) + b * np.exp(-beta * sizes[1])
    logs = np.log(loss) + rng.normal(0, 0.01, 240)
    grid = [(0, 5, 10, 15, 20, 25)] * 2 + [(-1, -0.5, 0, 0.5, 1)] + [(0, 0.5, 1, 1.5, 2)] * 2
    log_a, log_b, log_e, alphas, betas = np.array(list(product(*grid)), dtype=float).T
    around = [log_e, log_a - alphas * center[0], log_b - betas * center[1], alphas, betas]
    starts = np.column_stack(around)
    began = time.process_time()
    fits, cost = minimize(JOINT, starts, sizes - center, logs[None])
    middle = time.process_time()
    best = fits[[int(np.argmin(cost))]]
    fitted = np.log(loss_at(JOINT, best, sizes - center)[0])
    errors = (logs - fitted)[rng.integers(0, 240, (4000, 240))]
    minimize(JOINT, np.repeat(best, 4000, axis=0), sizes - center, fitted + errors)
    ended = time.process_time()
    agreeing = float(np.mean(cost <= cost.min() * 1.001))
    return [
        row("4,500 starts, 5 parameters, 240 runs", middle - began, "CPU s"),
        row("  + 4,000 resamples", ended - began, "CPU s", "<= 15"),
        row("  starts within 0.1 % of the best", 100 * agreeing, "%"),
    ]


def published(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the published forecast, made again, and the same recipe on C4 with our interval."""
    rows = []
    for data, column in (("rpj", "loss_c4_val"), ("c4_original", "loss_c4_val")):
        own = runs[runs["train_set"] == data]
        is_small = own["model"].isin(SMALL) & (own["cc_mult"] == 1)
        few = own[is_small | ((own["model"] == SMALL[0]) & (own["cc_mult"] == 16))]
        columns, loss = few[["N", "D"]].to_numpy(float), few[column].to_numpy()
        center = np.log(columns).mean(axis=0)
        theta, _ = project(TIED, (np.log(columns) - center).T, loss, is_relative=False)
        e, a, b, exponent = TIED.plain(theta[None], center)[0]
        ours = {"alpha": a, "beta": b * 6 ** (exponent / 2), "b": -exponent, "E": e}
        if data == "rpj":
            rows += [
                row(f"published {name}", ours[name], f"= {ours[name]:.6f}", f"{value}")
                for name, value in PUBLISHED.items()
            ]
        law = fit_law(columns, loss, form=TIED)
        large = own[own["model"].str.startswith("open_lm")]
        for model, multiple, n, d, actual in zip(
            *(large[name].tolist() for name in ("model", "cc_mult", "N", "D", column)), strict=True
        ):
            told = e + a * n**-exponent + b * d**-exponent
            interval = law.interval([n, d])
            inside = "inside" if interval["low"] <= actual <= interval["high"] else "OUTSIDE"
            wide = 100 * (interval["high"] / interval["value"] - 1)
            name = f"{data} {model} × {multiple:g}: miss"
            rows.append(row(name, 100 * (told / actual - 1), "%", f"{inside}, + {wide:.0f} %"))
    return rows


def breaks(addition: pd.DataFrame) -> list[dict[str, Any]]:
    """Return how well the one-break curve extrapolates, fitted to the points that are to be."""
    is_fit = (addition["split"] == "fit").to_numpy()
    x, loss = (
        addition[name].to_numpy(float) for name in ("x_train_set_size", "y_test_cross_entropy")
    )
    began = time.process_time()
    law = fit_law(x[is_fit], loss[is_fit], form=BROKEN, bootstrap=RESAMPLES)
    took = time.process_time() - began
    errors = np.log(law.at(x[~is_fit]) / loss[~is_fit])
    rmsle = float(np.sqrt(np.mean(errors**2)))
    return [
        row("one break, addition: extrapolation RMSLE", rmsle, "", "< .02"),
        row("  starts agreeing", 100 * law.starts_agreeing / law.starts, "%"),
        row("  fit with intervals", took, "CPU s"),
    ]


def series(runs: pd.DataFrame) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return every sweep among the runs, over N at one multiplier or over D of one model."""
    losses = [c for c in runs.columns if c.startswith("loss_") and not c.endswith("95")]
    found = {}
    for by, axis in (("cc_mult", "N"), ("model", "D")):
        for (data, value), part in runs.groupby(["train_set", by]):
            if part[axis].nunique() > 3:
                for name in losses:
                    found[f"{data} {value}|{name}"] = (
                        part[axis].to_numpy(float), part[name].to_numpy(),
                    )  # fmt: skip
    return found


def rollouts(name: str, x: np.ndarray, loss: np.ndarray) -> list[Told]:
    """Return all rollouts of a sweep: the next size, and every larger one."""
    sizes = len(np.unique(x))
    misses: Misses = {f.name: rollout(x, loss, form=f) for f in FORMS if f.least_sizes <= sizes}
    found = []
    for size, law in laws_below(x, loss, misses=misses, bootstrap=RESAMPLES):
        form = choose(misses, before=size)
        past = [miss.per_step for miss in misses[form.name] if miss.size < size]
        found += [
            Told(name, law, past, float(later), float(loss[x == later].mean()), later == size)
            for later in np.unique(x[x >= size])
        ]
    return found


def covered(told: Sequence[Told], *, sd: float = MISS_SD) -> tuple[float, float]:
    """Return the share inside 95 % intervals, and the median half width, in percent."""
    inside, widths = [], []
    for one in told:
        rng = np.random.default_rng(0)
        misses = draw_misses(one.past, draws=RESAMPLES, rng=rng, sd=sd)
        interval = replace(one.law, misses=misses).interval(one.size)
        inside.append(interval["low"] <= one.actual <= interval["high"])
        widths.append((interval["high"] - interval["low"]) / 2 / interval["value"])
    return 100 * float(np.mean(inside)), 100 * float(np.median(widths))


def coverage(runs: pd.DataFrame, addition: pd.DataFrame) -> list[dict[str, Any]]:
    """Return what the intervals cover, their allowance chosen on one half and tested on the other.

    Halves are of sweeps (data × multiplier, data × model), every second one in alphabetical order,
    with all eight losses of a sweep on one side. The allowance is the least that lets 95 % of all
    rollouts of one half, to the next and to further sizes, lie inside.
    """
    sweeps = series(runs)
    names = sorted({name.partition("|")[0] for name in sweeps})
    told = [one for name, (x, loss) in sweeps.items() for one in rollouts(name, x, loss)]
    is_half = {name: position % 2 == 0 for position, name in enumerate(names)}
    rows = []
    for first, way in ((True, "half A → half B"), (False, "half B → half A")):
        own, rest = (
            [one for one in told if (is_half[one.series.partition("|")[0]] == first) == is_own]
            for is_own in (True, False)
        )
        sd = next((sd for sd in SDS if covered(own, sd=sd)[0] >= 95), SDS[-1])
        rows += [row(f"{way}: least allowance that covers 95 %", sd, "log loss per √step")]
        for what, is_next in (("next", True), ("further", False)):
            ones = [one for one in rest if one.is_next == is_next]
            share, width = covered(ones, sd=sd)
            rows += [row(f"  covers of the other {len(ones)}, {what} size", share, "%", ">= 90")]
            rows += [row("  median half width", width, "%")]
    rows += alone(sweeps)
    nearest, far = ([one for one in told if one.is_next == is_next] for is_next in (True, False))
    x, loss = (
        addition[name].to_numpy(float) for name in ("x_train_set_size", "y_test_cross_entropy")
    )
    broken = [one for one in rollouts("addition", x, loss) if one.is_next]
    c4 = [one for one in nearest if one.series.endswith("loss_c4_val")]
    for what, ones in (
        ("next size", nearest), ("next size, loss on C4 alone", c4), ("further sizes", far),
        ("across the break", broken),
    ):  # fmt: skip
        share, width = covered(ones)
        errors = [float(np.log(one.law.at(one.size)[0] / one.actual)) for one in ones]
        rmsle = float(np.sqrt(np.mean(np.square(errors))))
        rows += [row(f"as shipped ({MISS_SD}), {what}: {len(ones)} rollouts", share, "%", ">= 90")]
        rows += [
            row("  median half width", width, "%"),
            row("  RMSLE of what was chosen", rmsle, ""),
        ]
    return rows


def alone(sweeps: dict[str, tuple[np.ndarray, np.ndarray]]) -> list[dict[str, Any]]:
    """Return the RMSLE of each form alone, and of the one that AICc prefers below each size."""
    errors: dict[str, list[float]] = {}
    picked: list[str] = []
    for x, loss in sweeps.values():
        order = np.argsort(x)
        at, losses = np.log(x[order]), loss[order]
        forms = [form for form in FORMS if form.least_sizes < len(at)]
        misses = {f.name: {one.size: one.error for one in rollout(x, loss, form=f)} for f in forms}
        for count in range(3, len(at)):
            size, scores = float(x[order][count]), {}
            for form in forms:
                if size in misses[form.name]:
                    sizes = at[None, :count] - at[:count].mean()
                    _, squares = project(form, sizes, losses[:count])
                    score = aicc(squares / count, runs=count, used=len(form.names))
                    scores[form.name] = score
                    errors.setdefault(form.name, []).append(misses[form.name][size])
            best = min(scores, key=lambda name: scores[name])
            picked.append(best if np.isfinite(scores[best]) else POWER.name)
            errors.setdefault("what AICc prefers", []).append(misses[picked[-1]][size])
    rows = []
    for name, found in errors.items():
        rmsle = float(np.sqrt(np.mean(np.square(found))))
        rows.append(row(f"{name} alone: {len(found)} rollouts", rmsle, "RMSLE"))
    other = sum(name != POWER.name for name in picked) / len(picked)
    return [*rows, row("  AICc prefers another than the power law", 100 * other, "%")]


if __name__ == "__main__":
    main()
