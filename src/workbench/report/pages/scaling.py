"""Scaling: what quality follows from diversity, and what the next phase would bring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workbench.report import figures
from workbench.report.blocks import Block, Figure, Key, Note, Page, Section, Text
from workbench.report.evidence import Evidence
from workbench.report.seeds import seed_interval
from workbench.report.tables import Cell, Column, Table, estimate, number, records, short, table

__all__ = ["page"]

_CLAIMED = (
    "The roadmap's targets are claimed — metric incompatible. Its “semantic” is the overlap of "
    "whitespace "
    "tokens and its “safety” a constant per keyword hit, both of a word-replacement path; they "
    "cannot be "
    "put on one axis with a measured loss and are listed here only to keep them in view."
)

_FORECAST = (
    ("constant", "loss if the axis did nothing", "mean 1 − cosine"),
    ("samples", "training samples", "count"),
    ("train_s", "training time", "s"),
    ("usd", "cost", "US$"),
    ("kwh", "energy", "kWh"),
    ("gco2", "CO₂", "g"),
)


def page(evidence: Evidence) -> Page | None:
    """Return the page of the scaling law, or None without training runs."""
    training, laws = evidence.results("training"), evidence.last("laws")
    if not training and laws is None:
        return None
    axis = evidence.axis().replace("_", " ")
    blocks: list[Block] = []
    sections: list[Section] = []
    if laws is None:
        blocks.append(Note(text="No law is fitted yet: notebook 03_scaling_laws has not finished."))
    else:
        blocks.append(Text(text=laws["verdict"], is_lead=True))
        sections.append(Section(heading="The law", blocks=_law(evidence, laws, training, axis)))
        sections.append(Section(heading="Backtest and forecast", blocks=_ahead(laws, axis)))
    if training:
        sections.append(
            Section(heading="Training runs", blocks=_training(evidence, training, axis))
        )
    if laws is not None and laws["claims"]:
        claims = records("Targets of the roadmap (claimed — metric incompatible)", laws["claims"])
        sections.append(
            Section(heading="What the roadmap claimed", blocks=[Note(text=_CLAIMED), claims])
        )
    return Page(name="scaling", title="Scaling", blocks=blocks, sections=sections)


def _law(
    evidence: Evidence, laws: Mapping[str, Any], training: Sequence[Mapping[str, Any]], axis: str
) -> list[Block]:
    names = [
        ("E", "loss that no amount of the axis removes"),
        ("A", "scale"),
        ("alpha", "exponent"),
    ]
    meaning = dict(names)
    parameters = table(
        f"Parameters of {laws['form']}",
        ["Parameter", Column("Estimate", "95 % interval"), "Meaning"],
        [
            (name, estimate(value), meaning.get(name, "–"))
            for name, value in laws["parameters"].items()
        ],
        note=f"{laws['starts_agreeing']} of {laws['starts']} starts of the optimizer agree.",
    )
    baselines = table(
        "Baselines at the largest size, same split and loss",
        ["Method", Column("Loss", "mean 1 − cosine")],
        [(name, number(float(loss))) for name, loss in laws["baselines"].items()],
    )
    away = [f"{name} ({number(float(loss))})" for name, loss in laws["baselines"].items()]
    figure = Figure(
        name="law",
        title=f"Loss on unseen requests in unseen wrappers, by {axis}",
        spec=figures.law(laws, axis=axis),
        summary=f"{laws['form']}, fitted to {len(laws['points'])} runs. Baselines: "
        f"{', '.join(away)}; "
        "those far from the runs lie outside the plot.",
        footer=evidence.footer(training),
        keys=(
            Key(label="one training run (seed)", color="ink"),
            Key(label="fit with 95 % interval", color="blue"),
            Key(label="forecast with 95 % interval", color="vermillion"),
        ),
        numbers=_points(laws, axis),
    )
    return [figure, parameters, baselines]


def _points(laws: Mapping[str, Any], axis: str) -> Table:
    by_x: dict[float, list[float]] = {}
    for point in laws["points"]:
        by_x.setdefault(point["x"], []).append(point["loss"])
    rows = [
        (f"{x:,.4g}", estimate(seed_interval(losses)), ", ".join(f"{loss:.4f}" for loss in losses))
        for x, losses in sorted(by_x.items())
    ]
    heads: list[Column | str] = [
        Column(axis),
        Column("Mean loss", "95 % t interval over seeds"),
        "Each seed",
    ]
    return table("Measured loss", heads, rows)


def _ahead(laws: Mapping[str, Any], axis: str) -> list[Block]:
    forecast = laws["forecast"]
    rows: list[tuple[Cell, ...]] = [
        (axis, f"{forecast['x']:,.4g}", ""),
        ("loss", estimate(forecast["loss"]), "mean 1 − cosine"),
    ]
    rows += [
        (name, number(float(forecast[key])), unit)
        for key, name, unit in _FORECAST
        if key in forecast
    ]
    ahead = table(
        "Forecast of the next phase",
        ["Quantity", Column("Forecast"), "Unit"],
        rows,
        note=str(forecast.get("note", "")),
    )
    backtest = table(
        "Backtest: the law fitted to the smaller sizes only, asked for the next",
        [
            Column("Fitted up to", axis),
            Column("Asked for", axis),
            Column("Predicted loss", "95 % interval"),
            Column("Measured loss"),
            Column("Error", "%"),
        ],
        [
            (
                f"{row['x_fit_max']:,.4g}",
                f"{row['x_predicted']:,.4g}",
                estimate({"value": row["predicted"], "low": row["low"], "high": row["high"]}),
                number(row["actual"]),
                f"{row['error_pct']:+.1f}".replace("-", "−"),
            )
            for row in laws["backtest"]
        ],
    )
    return [backtest, ahead]


def _training(evidence: Evidence, training: Sequence[Mapping[str, Any]], axis: str) -> list[Block]:
    key = evidence.axis()
    runs = table(
        "Training runs",
        [
            "Model",
            Column(axis),
            Column("Seed"),
            Column("Loss", "test, both unseen"),
            Column("Validation loss"),
            Column("Steps", "count"),
            Column("Training", "s"),
            Column("Speed", "samples/s"),
            Column("Compute", "FLOP"),
        ],
        [
            (
                short(run["model"]),
                f"{run['axes'].get(key, float('nan')):,.4g}",
                str(run["seed"]),
                f"{run['loss']:.4f}",
                f"{run['validation_loss']:.4f}",
                number(run["steps"]),
                number(float(run["train_s"])),
                number(float(run["samples_per_s"])),
                number(float(run["flops"])),
            )
            for run in training
        ],
        note="Models are chosen by validation loss only.",
    )
    figure = Figure(
        name="curves",
        title=f"Validation loss while training; darker is more {axis}",
        spec=figures.curves(training, axis=key),
        summary=f"{len(training)} runs; where each ended is in the table below.",
        footer=evidence.footer(training),
    )
    return [figure, runs]
