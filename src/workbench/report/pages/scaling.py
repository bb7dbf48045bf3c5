"""Scaling: what quality follows from diversity, and what the next phase would bring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.report import figures
from workbench.report.blocks import Block, Fact, Figure, Finding, Page, Section, Text
from workbench.report.evidence import Evidence, unfinished
from workbench.report.seeds import doubling_interval, seed_interval
from workbench.report.tables import (
    Cell,
    Heads,
    Number,
    Rows,
    cell,
    dollars,
    duration,
    energy,
    estimate,
    hardware,
    number,
    records,
    short,
    table,
    words,
)

__all__ = ["page"]

_CLAIMED = (
    "The roadmap's targets are claimed — metric incompatible. Its “semantic” is the overlap of "
    "whitespace tokens and its “safety” a constant per keyword hit, both of a word-replacement "
    "path; they cannot be put on one axis with a measured loss and are listed here only to keep "
    "them in view."
)
_KEYS = (
    ("one training run", "ink"),
    ("fit with 95 % interval", "blue"),
    ("forecast with 95 % interval", "vermillion"),
)
_MEANINGS = {
    "E": "loss that no amount of the axis removes",
    "A": "scale",
    "alpha": "exponent: how fast more of the axis helps",
    "B": "what ten times the axis takes off",
    "c0": "exponent before the break",
    "c1": "how much steeper it is behind the break",
    "d": "where the break is",
    "f": "how long it takes, in log x",
}
_HIRED: Heads = {
    "GPU": lambda row: row["gpu"],
    "GPU time | h": lambda row: estimate(row["gpu_hours"]),
    "On demand": lambda row: estimate(row["usd"], dollars),
    "Spot": lambda row: estimate(row["spot_usd"], dollars) if row["spot_usd"] else "–",
    "Energy": lambda row: estimate(row["kwh"], energy),
    "CO₂ | kg": lambda row: estimate(row["kgco2"]),
}
_COMPARED = (
    "Each form is fitted below every size and asked for it; the rollout error is what it was off "
    "by. The form that missed least, recent sizes counting most, forecasts. Δ AICc counts from the "
    "best form; – stands where the runs are too few."
)


def page(evidence: Evidence) -> Page | None:
    """Return the page of the scaling law, or None without training runs."""
    training, laws = evidence.results("training"), evidence.last("laws")
    if not training and laws is None:
        return None
    axis = words(evidence.axis())
    runs = [_training(evidence, training, axis)] if training else []
    if laws is None:
        notes = [unfinished("No law is fitted yet", "laws")]
        return Page(name="scaling", notes=notes, sections=[Section("Training runs", runs)])
    others = evidence.results("laws")[:-1]
    claims: list[Block] = []
    if laws["claims"]:
        claimed = records("Targets of the roadmap (claimed — metric incompatible)", laws["claims"])
        claims = [Text(_CLAIMED, is_note=True), claimed]
        if laws.get("phases"):
            beside = "Claimed cost of a phase, beside its training by the FLOPs counted here"
            claims.append(records(beside, laws["phases"], note=laws["cost_note"]))
            promised = "Promised, beside what the laws forecast of the loss (never comparable)"
            claims.append(records(promised, laws["promised"]))
    return Page(
        name="scaling",
        finding=_finding(laws, axis=axis),
        facts=_facts(laws, axis),
        sections=[
            Section("The law", _law(evidence, laws)),
            Section("Can it be believed, and what comes next", _ahead(laws, axis)),
            Section("Along other axes", [_figure(evidence, one) for one in others]),
            Section("Training runs", runs),
            Section("What the roadmap claimed", claims),
        ],
    )


def _finding(laws: Mapping[str, Any], *, axis: str) -> Finding:
    by_x, points, ahead = _by_x(laws), laws["points"], laws["forecast"]
    least, most = min(by_x), max(by_x)
    step = doubling_interval([one["x"] for one in points], [one["loss"] for one in points])
    if step is None:
        claim = f"One size of {axis} is no scaling law"
    elif step["low"] <= 0 <= step["high"]:
        claim = f"More {axis} make no difference that these runs can show"
    else:
        effect = "lowers" if step["value"] < 0 else "raises"
        claim = f"Each doubling of {axis} {effect} the loss by {number(abs(step['value']))}"
    first, last = (seed_interval(by_x[size])["value"] for size in (least, most))
    proof = f"From {cell(least)} to {cell(most)} {axis} the loss of the sanitizer's tagger, 1 − "
    proof += f"cosine to the bare request, goes from {number(first)} to {number(last)}"
    if step is not None:
        proof += f", or {estimate(step)} per doubling over {len(points)} runs"
    proof += f"; the law forecasts {estimate(ahead['loss'])} at {cell(ahead['x'])}."
    if rivals := laws["baselines"]:
        best = min(rivals, key=lambda name: float(rivals[name]))
        less = "less" if rivals[best] < last else "more"
        proof += f" The best baseline, {best}, has {less}: {number(float(rivals[best]))}."
    return Finding(claim, proof)


def _facts(laws: Mapping[str, Any], axis: str) -> list[Fact]:
    by_x, ahead = _by_x(laws), laws["forecast"]
    loss, coming = estimate(seed_interval(by_x[max(by_x)])), estimate(ahead["loss"])
    measured = f"of the tagger: mean 1 − cosine to the bare request at {cell(max(by_x))} {axis}, "
    measured += f"{len(by_x[max(by_x)])} seeds; unseen requests in unseen wrappers"
    next_phase = f"the next phase, {cell(ahead['x'])} {axis}, by the fitted law; about "
    next_phase += f"{dollars(ahead['usd'])} a run"
    return [Fact("Dewrapping loss", loss, measured), Fact("Forecast loss", coming, next_phase)]


def _by_x(laws: Mapping[str, Any]) -> dict[float, list[float]]:
    by_x: dict[float, list[float]] = {}
    for point in laws["points"]:
        by_x.setdefault(point["x"], []).append(point["loss"])
    return by_x


def _figure(evidence: Evidence, laws: Mapping[str, Any]) -> Figure:
    axis, points = words(laws["axis"]), laws["points"]
    known = {one["run_id"] for one in points}
    runs = [one for one in evidence.results("training") if one["run_id"] in known]
    baselines = ", ".join(f"{name} {cell(loss)}" for name, loss in laws["baselines"].items())
    sizes: Heads = {
        axis.capitalize(): lambda item: cell(item[0]),
        "Mean loss | 95 % t interval over seeds": lambda item: estimate(seed_interval(item[1])),
        "Each seed": lambda item: ", ".join(f"{loss:.4f}" for loss in item[1]),
    }
    return Figure(
        name="law" if laws == evidence.last("laws") else f"law-{laws['axis']}",
        title=f"Loss on unseen requests in unseen wrappers, by {axis}",
        spec=figures.law(laws, axis=axis),
        summary=f"Lower is better. {laws['form']} is fitted to {len(points)} runs. "
        f"Dotted: baselines at the largest size ({baselines}); one far from the runs lies "
        "outside the plot.",
        footer=evidence.footer(runs),
        keys=_KEYS,
        numbers=table("Measured loss", sizes, sorted(_by_x(laws).items())),
    )


def _law(evidence: Evidence, laws: Mapping[str, Any]) -> list[Block]:
    estimates: Heads = {
        "Parameter": lambda item: item[0],
        "Estimate | 95 % interval": lambda item: estimate(item[1]),
        "Meaning": lambda item: _MEANINGS.get(item[0], "–"),
    }
    agree = f"{laws['starts_agreeing']} of {laws['starts']} starts of the optimizer agree."
    caption, values = f"Parameters of {laws['form']}", laws["parameters"].items()
    parameters = table(caption, estimates, values, note=agree)
    blocks: list[Block] = [
        _figure(evidence, laws),
        parameters,
        Text(f"The fit in its own words: {laws['verdict']}"),
    ]
    if laws.get("comparison"):
        blocks.insert(1, records("Laws compared", laws["comparison"], note=_COMPARED))
        together = "Axes that grow together cannot be told apart."
        blocks.insert(2, records("Every axis that the runs vary", laws["axes"], note=together))
    return blocks


def _ahead(laws: Mapping[str, Any], axis: str) -> list[Block]:
    forecast = laws["forecast"]
    rows: list[tuple[Cell, ...]] = [
        (f"loss at {cell(forecast['x'])} {axis}", estimate(forecast["loss"])),
        ("training time of one run", duration(forecast["train_s"])),
        ("cost of one run", dollars(forecast["usd"])),
        ("energy of one run", energy(forecast["kwh"])),
        ("CO₂ of one run", Number(f"{number(float(forecast['gco2']))}\u00a0g")),
    ]
    if "constant" in forecast:
        rows.insert(1, ("loss if the axis did nothing", number(float(forecast["constant"]))))
    ahead = table("The next phase", ["Quantity", "Forecast"], rows, note=str(forecast["note"]))
    heads: Heads = {
        f"Fitted up to | {axis}": lambda row: cell(row["x_fit_max"]),
        f"Asked for | {axis}": lambda row: cell(row["x_predicted"]),
        "Predicted loss | 95 % interval": lambda row: estimate({**row, "value": row["predicted"]}),
        "Measured loss": lambda row: number(row["actual"]),
        "Error | %": lambda row: Number(f"{row['error_pct']:+.1f}".replace("-", "−")),
    }
    caption = "Backtest: the law fitted to the smaller sizes, asked for a larger one"
    blocks: list[Block] = [table(caption, heads, laws["backtest"]), ahead]
    if split := laws.get("allocation"):
        best, note = "Compute-optimal split of parameters and data", split["note"]
        told = records(best, split["rows"], note=note) if split["rows"] else f"{best}: {note}."
        blocks.append(Text(told, is_note=True) if isinstance(told, str) else told)
        prices = "; ".join(dict.fromkeys(row["prices"] for row in laws["gpu_costs"]))
        note = f"{laws['cost_note']}. Prices: {prices}."
        hired = "Cost of the next phase on rented GPUs (estimated)"
        blocks.append(table(hired, _HIRED, laws["gpu_costs"], note=note))
    return blocks


def _training(evidence: Evidence, training: Rows, axis: str) -> Figure:
    key = evidence.axis()
    heads: Heads = {
        "Model": lambda run: short(run["model"]),
        axis.capitalize(): lambda run: cell(run["axes"].get(key)),
        "Seed": lambda run: Number(run["seed"]),
        "Test loss | both unseen": lambda run: Number(f"{run['loss']:.4f}"),
        "Validation loss": lambda run: Number(f"{run['validation_loss']:.4f}"),
        "Steps": lambda run: number(run["steps"]),
        "Training | s": lambda run: cell(run["train_s"]),
        "Speed | samples/s": lambda run: cell(run["samples_per_s"]),
        "Compute | FLOP": lambda run: cell(run["flops"]),
        "Ran on | share of the GPUs' dense bf16 peak": hardware,
    }
    note = "Weights are kept by the error on validation, models chosen by validation loss only."
    return Figure(
        name="curves",
        title="Validation loss while training",
        spec=figures.curves(training, axis=key),
        summary=f"One line per run; darker is more {axis}, their number stands at the right.",
        footer=evidence.footer(training),
        numbers=table("The training runs", heads, training, note=note),
    )
