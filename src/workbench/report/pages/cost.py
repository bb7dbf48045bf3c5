"""Cost: what all of it took in money, energy and CO₂, and whether it pays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from workbench.report import figures
from workbench.report.blocks import Block, Fact, Figure, Finding, Page, Section, Text
from workbench.report.evidence import Evidence
from workbench.report.tables import (
    Cell,
    Number,
    Table,
    columns,
    dollars,
    duration,
    energy,
    number,
    percent,
    records,
    table,
    words,
)

__all__ = ["page"]

_KINDS = {"measured": "●\u00a0measured", "assumed": "○\u00a0assumed", "claimed": "◇\u00a0claimed"}
_YEARLY = {
    "annual_cost_usd": "cost per year",
    "annual_alternative_usd": "the alternative, per year",
    "annual_saving_usd": "saving per year",
}


def page(evidence: Evidence) -> Page | None:
    """Return the page of costs, or None where they are not computed yet."""
    cost = evidence.last("cost")
    if cost is None:
        return None
    total, roi = cost["total"], cost["roi"]
    spent = f"{energy(total['kwh'])} and {number(float(cost['gco2']))}\u00a0g of CO₂"
    swings = [
        row[end]
        for row in roi["sensitivity"]
        for end in ("saving_at_low_usd", "saving_at_high_usd")
        if end in row
    ]
    proof = f"{duration(total['cpu_s'])} of CPU time, {spent}; prices and energy are estimates."
    if swings:
        proof += (
            f" In service, on the assumptions below, it would save "
            f"{dollars(roi['annual_saving_usd'])} a year; changing one assumption at a time moves "
            f"that from {dollars(min(swings))} to {dollars(max(swings))}."
        )
    figure = Figure(
        name="spend",
        title="Cost by step",
        spec=figures.bars({row["group"]: row["usd"] for row in cost["by_step"]}, show=dollars),
        summary="CPU seconds at the list price of a rented core.",
        footer=evidence.footer([cost]),
        numbers=_spend("Cost by step", "Step", [*cost["by_step"], total], is_folded=True),
    )
    return Page(
        name="cost",
        title="Cost",
        finding=Finding(f"All of it cost {dollars(total['usd'])}", proof),
        facts=[
            Fact(
                label="Cost of everything",
                value=dollars(total["usd"]),
                note=f"{duration(total['cpu_s'])} of CPU; {spent}, estimated",
            )
        ],
        sections=[
            Section(
                "Spend",
                [
                    figure,
                    _spend("Cost by phase", "Phase", [*cost["by_phase"], total]),
                    Text(f"Energy: {cost['energy_method']}."),
                ],
            ),
            Section("Would it pay?", _roi(roi)),
            Section("Assumptions", [_assumptions(cost["assumptions"])]),
            Section(
                "Claims beside measurements",
                [records("What the source documents claim about cost", cost["claims"])],
            ),
        ],
    )


def _spend(
    caption: str, head: str, rows: Sequence[Mapping[str, Any]], *, is_folded: bool = False
) -> Table:
    heads: dict[str, Callable[[Any], Cell]] = {
        head: lambda row: words(row["group"]),
        "CPU": lambda row: duration(row["cpu_s"]),
        "Energy": lambda row: energy(row["kwh"]),
        "Cost | US$": lambda row: dollars(row["usd"]),
        "Share": lambda row: percent(row["share"]),
    }
    return columns(caption, rows, heads, is_folded=is_folded)


def _roi(roi: Mapping[str, Any]) -> list[Block]:
    rows = [
        (label, dollars(roi[key])) for key, label in _YEARLY.items() if roi.get(key) is not None
    ]
    if roi.get("payback_days") is not None:
        rows.append(("pays back after", Number(f"{number(float(roi['payback_days']))} days")))
    known = {*_YEARLY, "payback_days", "sensitivity"}
    rows += [
        (words(key), number(float(value)))
        for key, value in roi.items()
        if key not in known and isinstance(value, int | float)
    ]
    return [
        Text("Arithmetic on the assumptions listed below, not a measurement.", is_note=True),
        table("Return on investment", ["Quantity", "Value"], rows),
        _with_words("Sensitivity: one assumption changed at a time", roi["sensitivity"]),
    ]


def _assumptions(rows: Sequence[Mapping[str, Any]]) -> Table:
    marked = [
        {"name": "", "kind": "", **row} | {"kind": _KINDS.get(row["kind"], row["kind"])}
        for row in rows
    ]
    return _with_words("Every assumption: measured here, assumed, or claimed by a source", marked)


def _with_words(caption: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    return records(caption, [{**row, "name": words(row["name"])} for row in rows])
