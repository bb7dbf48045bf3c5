"""Backtest by rollout, the forecast of the next phase, and the verdict on both."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.core.errors import ConfigError
from workbench.scaling.energy import estimate
from workbench.scaling.law import PowerLaw, fit_power_law
from workbench.scaling.runs import best_run, mean_baselines

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["backtest", "describe", "fit_axis", "forecast", "verdict"]

_CURVE_POINTS = 40


def fit_axis(frame: pd.DataFrame, *, axis: str, seed: int = 0, bootstrap: int = 400) -> PowerLaw:
    """Return the law of ``loss`` along one axis of a training frame, clustered by training seed.

    Raises:
        ConfigError: If the runs have no such axis.
        DataError: If it has fewer than three sizes.
    """
    if axis not in frame:
        raise ConfigError(
            f"no axis {axis!r} in the training runs; columns: {', '.join(map(str, frame.columns))}"
        )
    x, loss, clusters = (frame[name].to_numpy() for name in (axis, "loss", "seed"))
    return fit_power_law(x, loss, clusters=clusters, seed=seed, bootstrap=bootstrap)


def backtest(
    frame: pd.DataFrame, *, axis: str, seed: int = 0, bootstrap: int = 200
) -> list[dict[str, float]]:
    """Return how well the law, fitted below each size, foretold the mean loss at that size.

    One row per size that has at least three sizes below it: x_fit_max, x_predicted, predicted,
    low, high, actual, error_pct, and constant_error_pct of "it stays as it was" for comparison.
    """
    sizes = np.sort(frame[axis].unique())
    means = frame.groupby(axis)["loss"].mean()
    rows = []
    for last, size in pairwise(sizes[2:]):
        below = frame[frame[axis] < size]
        told = fit_axis(below, axis=axis, seed=seed, bootstrap=bootstrap).interval(float(size))
        rows.append(
            {
                "x_fit_max": float(last),
                "x_predicted": float(size),
                "predicted": told["value"],
                "low": told["low"],
                "high": told["high"],
                "actual": float(means[size]),
                "error_pct": 100 * (told["value"] / float(means[size]) - 1),
                "constant_error_pct": 100 * float(means[last] / means[size] - 1),
            }
        )
    return rows


def forecast(
    law: PowerLaw, frame: pd.DataFrame, *, axis: str, x: float, usd_per_core_hour: float
) -> dict[str, object]:
    """Return what one run at ``x`` would reach and cost, from the mean of the largest runs.

    More ``pairs`` take proportionally more samples, more ``parameters`` more work per sample; the
    other axes vary what the pairs are, not how much work they make.

    ``frame`` holds the runs that the law was fitted to; ``constant`` in what comes back is the loss
    if more ``x`` does not help.

    Raises:
        ConfigError: If ``x`` is not above 0.
    """
    if not x > 0:
        raise ConfigError(f"forecast at {axis}={x:g}: the size must be above 0")
    largest = frame[frame[axis] == frame[axis].max()]
    mean = largest[["samples", "train_s", "cpu_s"]].mean()
    growth = x / float(frame[axis].max())
    work = growth if axis in {"pairs", "parameters"} else 1.0
    samples = float(mean["samples"]) * (growth if axis == "pairs" else 1.0)
    cpu_s = float(mean["cpu_s"]) * work
    energy = estimate(cpu_s)
    note = (
        f"{samples:,.0f} samples at the speed measured in the {len(largest)} largest runs; CPU "
        "seconds of whole notebooks, start-up included; price and energy estimated. On the law: "
        + _trust(law, axis=axis)
    )
    return {
        "x": float(x),
        "loss": law.interval(float(x)),
        "train_s": float(mean["train_s"]) * work,
        "usd": cpu_s / 3600 * usd_per_core_hour,
        "kwh": energy.kwh,
        "gco2": energy.gco2,
        "samples": samples,
        "constant": law.constant,
        "note": note,
    }


def describe(
    law: PowerLaw, frame: pd.DataFrame, *, axis: str, x: float, usd_per_core_hour: float, seed: int
) -> dict[str, Any]:
    """Return all that a law and its runs tell, as ``store.results.LawsResult`` has it.

    Args as :func:`forecast`; ``seed`` is that of the backtest.
    """
    best, baselines = best_run(frame), mean_baselines(frame, axis=axis)
    points = frame.rename(columns={axis: "x"})[["run_id", "x", "loss", "seed"]]
    sizes = np.geomspace(law.x_low[0], max(x, law.x_high[0]), _CURVE_POINTS)
    return {
        "axis": axis,
        "form": law.form,
        "parameters": law.parameters(),
        "starts": law.starts,
        "starts_agreeing": law.starts_agreeing,
        "points": points.to_dict("records"),
        "curve": law.curve(sizes),
        "backtest": backtest(frame, axis=axis, seed=seed),
        "forecast": forecast(law, frame, axis=axis, x=x, usd_per_core_hour=usd_per_core_hour),
        "baselines": baselines,
        "best_model": best["model"],
        "best_run": best["run_id"],
        "verdict": verdict(frame, law, axis=axis, baselines=baselines),
    }


def verdict(frame: pd.DataFrame, law: PowerLaw, *, axis: str, baselines: dict[str, float]) -> str:
    """Return one sentence: which method won at the largest size, and whether the law holds.

    Diffusion and the best baseline are compared run by run, which share pairs and seed: a 95 %
    interval of Student's t over the differences.
    """
    from scipy.special import stdtrit

    largest = frame[frame[axis] == frame[axis].max()]
    loss, count = float(largest["loss"].mean()), len(largest)
    name, best = min(baselines.items(), key=lambda item: item[1])
    gaps = largest["loss"] - largest[f"baseline_{name}"]
    gap = float(gaps.mean())
    half = float("inf")
    if count > 1:
        half = float(stdtrit(count - 1, 0.975) * gaps.std(ddof=1)) / count**0.5
    us, them = f"diffusion ({loss:.4f})", f"{name} ({best:.4f})"
    by = f"{abs(gap):.4f} ± {half:.4f} over {count} seeds"
    if abs(gap) <= half:
        who = f"{us} and the best baseline, {them}, cannot be told apart (by {by})"
    else:
        winner, loser = (us, f"the best baseline, {them}") if gap < 0 else (them, us)
        who = f"{winner} beats {loser} by {by}"
    size = f"{frame[axis].max():g} {axis.replace('_', ' ')}"
    return f"At {size}, {who} in loss on unseen requests and wrappers; {_trust(law, axis=axis)}"


def _trust(law: PowerLaw, *, axis: str) -> str:
    name = axis.replace("_", " ")
    runs = f"{law.effective_runs:.1f} effective runs"
    evidence = (
        f"AICc gain {law.aicc_gain:+.1f} on {runs}"
        if math.isfinite(law.aicc_gain)
        else f"{runs}, too few to prefer a law of three parameters"
    )
    if not law.beats_constant:
        return (
            f"the runs do not show that more {name} helps: a constant loss of {law.constant:.4f} "
            f"explains them as well as the law ({evidence})."
        )
    if not law.is_identified:
        return (
            f"more {name} helps up to {law.x_high[0]:g} ({evidence}), but no saturating law is "
            "identified by these runs: neither how fast the loss falls nor where it stops, so what "
            "lies beyond is a guess within its interval."
        )
    alpha = law.parameters()["alpha"]
    band = f"α = {alpha['value']:.2f}, 95 % interval {alpha['low']:.2f} to {alpha['high']:.2f}"
    return f"more {name} helps ({evidence}; {band})."
