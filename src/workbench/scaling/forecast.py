"""The laws of an experiment: compared, backtested, asked for the next phase, and summed up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.core.errors import ConfigError
from workbench.core.gpus import gpus
from workbench.scaling.allocate import allocation
from workbench.scaling.claims import PROMISES
from workbench.scaling.compare import Comparison, backtest, compare, laws_below
from workbench.scaling.energy import estimate
from workbench.scaling.fit import Law
from workbench.scaling.law import POWER
from workbench.scaling.phase_cost import COST_NOTE, Prices, claimed_phases, cost, work
from workbench.scaling.runs import best_run, mean_baselines

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["AXES", "compare_axes", "compare_axis", "describe", "forecast", "promised", "verdict"]

AXES = ("wrapper_families", "requests", "pairs", "parameters", "flops")
"""What laws are fitted over, where the runs vary it at least twofold at three sizes."""

_CURVE_POINTS = 40
_LEAST_SPAN = 2.0
_NUMBERS = {2: "two", 3: "three", 6: "six"}


def compare_axis(
    frame: pd.DataFrame, *, axis: str, seed: int = 0, bootstrap: int = 400
) -> Comparison:
    """Return the laws of ``loss`` along one axis of a training frame, clustered by training seed.

    Raises:
        ConfigError: If the runs have no such axis.
        DataError: If it has fewer than three sizes.
    """
    if axis not in frame:
        raise ConfigError(
            f"no axis {axis!r} in the training runs; columns: {', '.join(map(str, frame.columns))}"
        )
    x, loss, clusters = (frame[name].to_numpy() for name in (axis, "loss", "seed"))
    return compare(x, loss, clusters=clusters, seed=seed, bootstrap=bootstrap)


def compare_axes(frame: pd.DataFrame, *, axis: str, seed: int = 0) -> dict[str, Comparison]:
    """Return the laws of the axis, and of every other one in :data:`AXES` that the runs vary.

    Axes that grow together cannot be told apart: each then has the law of both.

    Raises:
        ConfigError, DataError: As :func:`compare_axis`, for the axis itself.
    """
    found = {axis: compare_axis(frame, axis=axis, seed=seed)}
    for name in AXES:
        if name != axis and name in frame and _varies(frame[name]):
            found[name] = compare_axis(frame, axis=name, seed=seed)
    return found


def _varies(sizes: pd.Series[float]) -> bool:
    enough = sizes.nunique() >= POWER.least_sizes and sizes.min() > 0
    return bool(enough and sizes.max() >= _LEAST_SPAN * sizes.min())


def forecast(
    law: Law, frame: pd.DataFrame, *, axis: str, x: float, usd_per_core_hour: float
) -> dict[str, object]:
    """Return what one run at ``x`` would reach and cost, from the mean of the largest runs.

    More ``pairs`` or ``flops`` take proportionally more samples, more ``parameters`` more work per
    sample; the other axes vary what the pairs are, not how much work they make.

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
    more = growth if axis in {"pairs", "parameters", "flops"} else 1.0
    samples = float(mean["samples"]) * (growth if axis in {"pairs", "flops"} else 1.0)
    cpu_s = float(mean["cpu_s"]) * more
    energy = estimate(cpu_s)
    note = (
        f"{samples:,.0f} samples at the speed measured in the {len(largest)} largest runs; CPU "
        "seconds of whole notebooks, start-up included; price and energy estimated"
    )
    return {
        "x": float(x),
        "loss": law.interval(float(x)),
        "train_s": float(mean["train_s"]) * more,
        "usd": cpu_s / 3600 * usd_per_core_hour,
        "kwh": energy.kwh,
        "gco2": energy.gco2,
        "samples": samples,
        "constant": law.constant,
        "note": note,
    }


def describe(
    laws: Mapping[str, Comparison],
    frame: pd.DataFrame,
    *,
    axis: str,
    x: float,
    prices: Prices,
    seed: int,
) -> dict[str, Any]:
    """Return all that the laws and their runs tell, as ``store.results.LawsResult`` has it.

    Args:
        laws: By axis, from :func:`compare_axes`.
        frame: The runs that they were fitted to.
        axis: The one that the experiment is about.
        x: Size to forecast.
        prices: Dollars by name, from ``cost.prices``.
        seed: Of the backtest and of the allocation.
    """
    best, baselines = best_run(frame), mean_baselines(frame, axis=axis)
    points = frame.rename(columns={axis: "x"})[["run_id", "x", "loss", "seed"]]
    own, law = laws[axis], laws[axis].chosen
    sizes, loss, seeds = (frame[name].to_numpy(dtype=float) for name in (axis, "loss", "seed"))
    told = laws_below(sizes, loss, misses=own.misses, clusters=seeds, seed=seed)
    core_hour_usd = float(prices["cpu_core_hour"].usd)
    return {
        "axis": axis,
        "form": law.words,
        "parameters": law.parameters(),
        "second_method": dict(zip(law.form.names, law.second_method, strict=True)),
        "starts": law.starts,
        "starts_agreeing": law.starts_agreeing,
        "points": points.to_dict("records"),
        "curve": law.curve(np.geomspace(law.x_low[0], max(x, law.x_high[0]), _CURVE_POINTS)),
        "backtest": backtest(sizes, loss, told),
        "comparison": own.rows(x),
        "axes": [_row(name, one) for name, one in laws.items()],
        "forecast": forecast(law, frame, axis=axis, x=x, usd_per_core_hour=core_hour_usd),
        "allocation": allocation(frame, axis=axis, seed=seed),
        **_costs(frame, axis=axis, x=x, prices=prices),
        "promised": promised(laws, axis=axis),
        "baselines": baselines,
        "best_model": best["model"],
        "best_run": best["run_id"],
        "verdict": verdict(frame, own, axis=axis, baselines=baselines),
    }


def _row(axis: str, laws: Comparison) -> dict[str, object]:
    law = laws.chosen
    return {
        "axis": axis.replace("_", " "),
        "sizes": f"{law.x_low[0]:,.4g} to {law.x_high[0]:,.4g}",
        "law": law.words,
        "aicc_gain": law.aicc_gain if math.isfinite(law.aicc_gain) else None,
        "starts_agreeing": f"{law.starts_agreeing} of {law.starts}",
        "ten_times_the_largest": law.interval(10 * law.x_high[0]),
    }


def _costs(frame: pd.DataFrame, *, axis: str, x: float, prices: Prices) -> dict[str, Any]:
    """Return what the next size and the roadmap's phases cost on GPUs."""
    largest = frame[frame[axis] == frame[axis].max()]
    size = {name: float(largest[name].mean()) for name in ("pairs", "parameters")}
    grown = "pairs" if axis == "flops" else axis
    if grown in size:
        size[grown] *= x / float(largest[axis].mean())
    job = work(largest, **size)
    return {
        "gpu_costs": [cost(job, gpu, prices) for gpu in gpus().values()],
        "phases": claimed_phases(largest, prices),
        "cost_note": f"{job.samples:,.0f} samples, {job.flops:.3g} FLOP; {COST_NOTE}",
    }


def promised(laws: Mapping[str, Comparison], *, axis: str) -> list[dict[str, object]]:
    """Return what the roadmap promises of more data and parameters, beside what the laws say.

    Its percentages are of scores that are no losses: side by side, never compared. "Data" is the
    axis of the experiment, or pairs where that is none.
    """
    data = axis if axis not in {"parameters", "flops"} else "pairs"
    rows = []
    for promise in PROMISES:
        both = promise.data > 1 and promise.parameters > 1
        more = {data: promise.data, "parameters": promise.parameters}
        (name, times), *_ = sorted(more.items(), key=lambda item: -item[1])
        law = laws[name].chosen if name in laws and not both else None
        rows.append(
            {
                "promise": " and ".join(
                    f"{n:g}× {what}" for what, n in more.items() if n > 1
                ).replace("_", " "),
                "safety_claimed_pct": promise.safety_pct,
                "semantic_claimed_pct": promise.semantic_pct,
                "loss_forecast_pct": _change_pct(law, times) if law else None,
                "kind": "claimed",
            }
        )
    return rows


def _change_pct(law: Law, times: float) -> dict[str, float]:
    """Return by how many percent the loss changes from the largest size to ``times`` that."""
    largest = law.x_high[0]
    now, then = float(law.at(largest)[0]), law.interval(times * largest).items()
    return {end: 100 * (float(loss) / now - 1) for end, loss in then}  # type: ignore[arg-type]


def verdict(
    frame: pd.DataFrame, laws: Comparison, *, axis: str, baselines: dict[str, float]
) -> str:
    """Return one sentence: which method won at the largest size, and whether the law holds.

    The sanitizer's tagger and the best baseline are compared run by run, which share pairs and
    seed: a 95 % interval of Student's t over the differences.
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
    us, them = f"the sanitizer's tagger ({loss:.4f})", f"{name} ({best:.4f})"
    by = f"{abs(gap):.4f} ± {half:.4f} over {count} seeds"
    if abs(gap) <= half:
        who = f"{us} and the best baseline, {them}, cannot be told apart (by {by})"
    else:
        winner, loser = (us, f"the best baseline, {them}") if gap < 0 else (them, us)
        who = f"{winner} beats {loser} by {by}"
    size = f"{frame[axis].max():g} {axis.replace('_', ' ')}"
    return f"At {size}, {who} in loss on unseen requests and wrappers; {_trust(laws, axis=axis)}"


def _trust(laws: Comparison, *, axis: str) -> str:
    """Return whether more helps, and what is known about how, with the evidence."""
    law, name = laws.chosen, axis.replace("_", " ")
    if law.form.name == "constant":
        law = laws.laws[POWER.name]
    runs = f"{law.effective_runs:.1f} effective runs"
    evidence = (
        f"AICc gain {law.aicc_gain:+.1f} on {runs}"
        if math.isfinite(law.aicc_gain)
        else f"{runs}, too few to prefer a law of {_NUMBERS[len(law.form.names)]} parameters"
    )
    if not law.beats_constant:
        return (
            f"the runs do not show that more {name} helps: a constant loss of {law.constant:.4f} "
            f"explains them as well as the law ({evidence})."
        )
    if law.form is not POWER:
        return (
            f"more {name} helps up to {law.x_high[0]:g} ({evidence}); of the forms compared, "
            f"{law.form.name} foretold the larger sizes best."
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
