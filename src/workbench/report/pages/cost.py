"""Cost: what all of it took in money, energy and CO₂, and whether it pays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from workbench.report.blocks import Block, Fact, Figure, Finding, Page, Section, Text
from workbench.report.evidence import Evidence
from workbench.report.figures import bars, tornado
from workbench.report.pages import calls
from workbench.report.tables import (
    Heads,
    Number,
    Table,
    cell,
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
_YEARLY: Mapping[str, tuple[str, Callable[[Any], Number]]] = {
    "annual_cost_usd": ("cost per year", dollars),
    "annual_triage_usd": ("of it, people who triage findings", dollars),
    "annual_alternative_usd": ("the alternative, per year", dollars),
    "annual_avoided_usd": ("incidents avoided, per year", dollars),
    "annual_saving_usd": ("saving per year", dollars),
    "payback_days": ("days until it pays back", lambda days: number(float(days))),
    "cores": ("cores kept running", lambda cores: number(float(cores))),
    "kwh_per_prompt": ("energy per prompt", energy),
    "annual_kwh": ("energy per year", energy),
}
_STRONGEST = 12
_TORNADO = (
    "The line is the saving as everything is assumed; each bar goes to where one assumption alone "
    "would take it, at its low and at its high end."
)


def page(evidence: Evidence) -> Page | None:
    """Return the page of costs, or None where they are not computed yet."""
    cost = evidence.last("cost")
    if cost is None:
        return None
    total, roi, footer = cost["total"], cost["roi"], evidence.footer([cost])
    spent = f"{energy(total['kwh'])} and {number(float(cost['gco2']))}\u00a0g of CO₂"
    cpu, everything = duration(total["cpu_s"]), dollars(total["usd"])
    proof = f"{cpu} of CPU time, {spent}; prices and energy are estimates."
    swings = [row[f"saving_at_{end}_usd"] for row in roi["sensitivity"] for end in ("low", "high")]
    if swings:
        saving, least, most = map(dollars, (roi["annual_saving_usd"], min(swings), max(swings)))
        proof += f" In service, on the assumptions below, it would save {saving} a year; changing "
        proof += f"one assumption at a time moves that from {least} to {most}."
    figure = Figure(
        name="spend",
        title="Cost by step",
        spec=bars({row["group"]: row["usd"] for row in cost["by_step"]}, show=dollars),
        summary="CPU seconds at the list price of a rented core, model calls at list prices.",
        footer=footer,
        numbers=_spend("Cost by step", "Step", [*cost["by_step"], total]),
    )
    energy_method = Text(f"Energy: {cost['energy_method']}.")
    by_phase = _spend("Cost by phase", "Phase", [*cost["by_phase"], total])
    claims = records("What the source documents claim about cost", cost["claims"])
    return Page(
        name="cost",
        finding=Finding(f"All of it cost {everything}", proof),
        facts=[Fact("Cost of everything", everything, f"{cpu} of CPU; {spent}, estimated")],
        sections=[
            Section("Spend", [figure, by_phase, energy_method]),
            *calls.sections(evidence, cost),
            Section("Would it pay?", _roi(roi, footer)),
            Section("Assumptions", [_assumptions(cost["assumptions"])]),
            Section("Claims beside measurements", [claims]),
        ],
    )


def _spend(caption: str, head: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    heads: Heads = {
        head: lambda row: words(row["group"]),
        "CPU": lambda row: duration(row["cpu_s"]),
        "Energy": lambda row: energy(row["kwh"]),
        "Cost | US$": lambda row: dollars(row["usd"]),
        "Share": lambda row: percent(row["share"]),
    }
    return table(caption, heads, rows)


def _roi(roi: Mapping[str, Any], footer: str) -> list[Block]:
    rows = [
        (label, "never" if roi[key] is None else show(roi[key]))
        for key, (label, show) in _YEARLY.items()
        if key in roi
    ]
    heads: Heads = {
        "Assumption": lambda row: words(row["name"]),
        "Low": lambda row: cell(row["low"]),
        "High": lambda row: cell(row["high"]),
        "Saving at low | US$ a year": lambda row: dollars(row["saving_at_low_usd"]),
        "Saving at high | US$ a year": lambda row: dollars(row["saving_at_high_usd"]),
        "Swing | US$ a year": lambda row: dollars(row["swing_usd"]),
    }
    strongest = roi["sensitivity"][:_STRONGEST]
    blocks: list[Block] = [
        Text("Arithmetic on the assumptions listed below, not a measurement.", is_note=True),
        table("Return on investment", ["Quantity", "Value"], rows),
    ]
    if strongest:
        figure = Figure(
            name="tornado",
            title=f"What the saving hangs on most: {words(strongest[0]['name'])}",
            spec=tornado(strongest, base=roi["annual_saving_usd"]),
            summary=_TORNADO,
            footer=footer,
            keys=(("at its low end", "orange"), ("at its high end", "blue")),
            numbers=table("One assumption changed at a time", heads, roi["sensitivity"]),
        )
        blocks.append(figure)
    return blocks


def _assumptions(rows: Sequence[Mapping[str, Any]]) -> Table:
    heads: Heads = {
        "Assumption": lambda row: words(row["name"]),
        "Value": lambda row: cell(row["value"]),
        "Low": lambda row: cell(row["low"]),
        "High": lambda row: cell(row["high"]),
        "Unit": lambda row: row["unit"],
        "Kind": lambda row: _KINDS.get(row["kind"], row["kind"]),
        "Where from": lambda row: row["source"],
    }
    return table("Every assumption: measured here, or assumed", heads, rows)
