"""Backtest by rollout, the forecast of the next phase, and the verdict on both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from workbench.core.errors import ConfigError
from workbench.scaling.energy import estimate
from workbench.scaling.law import PowerLaw, fit_power_law

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["backtest", "fit_axis", "forecast", "grid", "verdict"]

_SCALES_SAMPLES = {"pairs", "parameters"}
"""Axes along which a run takes proportionally more work; the others vary what the pairs are."""


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
    rows = []
    for at in range(3, len(sizes)):
        below = frame[frame[axis] < sizes[at]]
        law = fit_axis(below, axis=axis, seed=seed, bootstrap=bootstrap)
        told = law.interval(float(sizes[at]))
        actual = float(frame.loc[frame[axis] == sizes[at], "loss"].mean())
        stayed = float(below.loc[below[axis] == sizes[at - 1], "loss"].mean())
        rows.append(
            {
                "x_fit_max": float(sizes[at - 1]),
                "x_predicted": float(sizes[at]),
                "predicted": told["value"],
                "low": told["low"],
                "high": told["high"],
                "actual": actual,
                "error_pct": 100 * (told["value"] / actual - 1),
                "constant_error_pct": 100 * (stayed / actual - 1),
            }
        )
    return rows


def forecast(
    law: PowerLaw,
    frame: pd.DataFrame,
    *,
    axis: str,
    x: float,
    usd_per_core_hour: float,
    samples: float = 0.0,
) -> dict[str, object]:
    """Return what one run at ``x`` would reach and cost, from seconds measured per sample.

    Args:
        law: The fitted law of the axis.
        frame: The training frame it was fitted to.
        axis: Name of the axis.
        x: Planned size, > 0.
        usd_per_core_hour: Price of one busy core for an hour.
        samples: Training samples planned; 0 for as many as the largest runs took, scaled with x
            along ``pairs`` and ``parameters``.

    Returns:
        x, loss (Interval), train_s, usd, kwh, gco2, samples, constant (loss if more x does not
        help) and ``note``.

    Raises:
        ConfigError: If ``x`` is not above 0 or ``samples`` is negative.
    """
    if x <= 0 or samples < 0:
        raise ConfigError(f"forecast at {axis}={x:g}, samples={samples:g}: sizes must be above 0")
    largest = frame[frame[axis] == frame[axis].max()]
    growth = x / float(frame[axis].max()) if axis in _SCALES_SAMPLES else 1.0
    planned = samples or float(largest["samples"].mean()) * growth
    share = planned / float(largest["samples"].sum())
    cpu_s = float(largest["cpu_s"].sum()) * share
    energy = estimate(cpu_s)
    note = (
        f"{planned:,.0f} samples at the speed measured in the {len(largest)} largest runs; CPU "
        "seconds of whole notebooks, start-up included; price and energy estimated. On the law: "
        + _trust(law, axis=axis)
    )
    return {
        "x": float(x),
        "loss": law.interval(float(x)),
        "train_s": float(largest["train_s"].sum()) * share,
        "usd": cpu_s / 3600 * usd_per_core_hour,
        "kwh": energy.kwh,
        "gco2": energy.gco2,
        "samples": planned,
        "constant": law.constant,
        "note": note,
    }


def grid(law: PowerLaw, *, until: float, points: int = 40) -> list[float]:
    """Return sizes, even in log, from the smallest fitted one to ``until`` or the largest."""
    last = max(until, law.x_high[0])
    return [float(x) for x in np.geomspace(law.x_low[0], last, points)]


def verdict(frame: pd.DataFrame, law: PowerLaw, *, axis: str, baselines: dict[str, float]) -> str:
    """Return one sentence: which method won at the largest size, and whether the law holds."""
    largest = frame[frame[axis] == frame[axis].max()]
    loss = float(largest["loss"].mean())
    spread = float(largest["loss"].std(ddof=1)) if len(largest) > 1 else float("nan")
    seeds = f"mean of {len(largest)} seeds" + (f", sd {spread:.4f}" if len(largest) > 1 else "")
    name, best = min(baselines.items(), key=lambda item: item[1])
    margin = abs(loss - best)
    if margin <= (spread if len(largest) > 1 else 0.0):
        who = f"diffusion ({loss:.4f}, {seeds}) and {name} ({best:.4f}) cannot be told apart"
    elif loss < best:
        who = f"diffusion ({loss:.4f}, {seeds}) beats the best baseline, {name} ({best:.4f})"
    else:
        who = f"{name} ({best:.4f}) beats diffusion ({loss:.4f}, {seeds})"
    size = f"{frame[axis].max():g} {axis.replace('_', ' ')}"
    return f"At {size}, {who} in loss on unseen requests and wrappers; {_trust(law, axis=axis)}"


def _trust(law: PowerLaw, *, axis: str) -> str:
    name = axis.replace("_", " ")
    alpha = law.parameters()["alpha"]
    band = f"α = {alpha['value']:.2f}, 95 % interval {alpha['low']:.2f} to {alpha['high']:.2f}"
    evidence = f"AICc gain {law.aicc_gain:+.1f}"
    if not law.beats_constant:
        return (
            f"the runs do not show that more {name} helps: a constant loss of {law.constant:.4f} "
            f"explains them as well as the law ({evidence})."
        )
    if not law.identifies_exponents:
        return f"more {name} helps ({evidence}), but the runs do not pin the exponent ({band})."
    return f"more {name} helps ({evidence}; {band})."
