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
_ASSUMPTIONS: Heads = {
    "Assumption": lambda row: words(row["name"]),
    "Value": lambda row: cell(row["value"]),
    "Low": lambda row: cell(row["low"]),
    "High": lambda row: cell(row["high"]),
    "Unit": lambda row: row["unit"],
    "Kind": lambda row: _KINDS.get(row["kind"], row["kind"]),
    "Where from": lambda row: row["source"],
}
_SWINGS: Heads = {
    **{head: _ASSUMPTIONS[head] for head in ("Assumption", "Low", "High")},
    "Saving at low | US$ a year": lambda row: dollars(row["saving_at_low_usd"]),
    "Saving at high | US$ a year": lambda row: dollars(row["saving_at_high_usd"]),
    "Swing | US$ a year": lambda row: dollars(row["swing_usd"]),
}
_STRONGEST, _OUTWEIGHS = 12, 10
_TOTALS = (
    "This is all that the ledger had when the step of costs read it: failed and repeated runs "
    "count, but neither that step itself, nor what still ran beside it, nor the runner's own time "
    "in this run. The table of steps on the first page counts the runs it lists and nothing else; "
    "`workbench cost show` adds up the whole ledger as it is now."
)


def page(evidence: Evidence) -> Page | None:
    """Return the page of costs, or None where they are not computed yet."""
    cost = evidence.last("cost")
    if cost is None:
        return _ablation(evidence)
    total, roi, footer = cost["total"], cost["roi"], evidence.footer([cost])
    spent = f"{energy(total['kwh'])} and {number(float(cost['gco2']))}\u00a0g of CO₂"
    cpu, everything = duration(total["cpu_s"]), dollars(total["usd"])
    proof = f"{cpu} of CPU time, {spent}; prices and energy are estimates.{_range(roi)}"
    figure = Figure(
        name="spend",
        title="Cost by step",
        spec=bars({row["group"]: row["usd"] for row in cost["by_step"]}, show=dollars),
        summary="CPU seconds at the list price of a rented core, model calls at list prices.",
        footer=footer,
        numbers=_spend("Cost by step", "Step", [*cost["by_step"], total]),
    )
    method = Text(f"{_TOTALS} Energy: {cost['energy_method']}.")
    by_phase = _spend("Cost by phase", "Phase", [*cost["by_phase"], total])
    caption = "Every assumption: measured here, or assumed"
    assumptions = table(caption, _ASSUMPTIONS, cost["assumptions"])
    claims = records("What the source documents claim about cost", cost["claims"])
    return Page(
        name="cost",
        finding=Finding(f"All of it cost {everything}", proof),
        facts=[Fact("Cost of everything", everything, f"{cpu} of CPU; {spent}, estimated")],
        sections=[
            Section("Spend", [figure, by_phase, method]),
            *calls.sections(evidence, cost),
            Section("Would it pay?", _roi(roi, footer)),
            Section("Assumptions", [assumptions]),
            Section("Claims beside measurements", [claims]),
        ],
    )


def _ablation(evidence: Evidence) -> Page | None:
    """Return the page of the experiment that is the ablation."""
    found = evidence.last("ablation")
    if found is None:
        return None
    least = percent(found["combined"]["usd_alone_reduction"])
    proof = f"{dollars(found['baseline']['usd'])} with every saving off, "
    proof += f"{dollars(found['combined']['usd'])} with all on that answer at once."
    return Page(
        name="cost",
        finding=Finding(f"All savings together take {least} off the bill", proof),
        sections=[Section("What each saving saves", calls.savings(evidence))],
    )


def _range(roi: Mapping[str, Any]) -> str:
    """Return between which ends the yearly saving lies, and what would turn it into a loss."""
    ends = [
        (saving, f"{words(row['name'])} is {cell(row[end])}")
        for row in roi["sensitivity"]
        for end, saving in zip(("low", "high"), _ends(row), strict=True)
    ]
    if not ends:
        return ""
    (least, _), *_, (most, _) = ordered = sorted(ends)
    said = f" In service it would save between {_signed(least)} and {_signed(most)} a year, one "
    said += f"assumption changed at a time ({_signed(roi['annual_saving_usd'])} as assumed below)"
    losses = [case for saving, case in ordered if saving < 0]
    if losses and roi["annual_saving_usd"] >= 0:
        said += f"; negative if {' or '.join(losses[:3])}"
        said += f" or in {len(losses) - 3} more cases" * (len(losses) > 3)  # noqa: PLR2004
    return f"{said}."


def _signed(saving: float) -> str:
    return f"{'+' * (saving > 0)}{dollars(saving)}"


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
    swings, base = roi["sensitivity"], roi["annual_saving_usd"]
    huge = len(swings) > 1 and swings[0]["swing_usd"] > _OUTWEIGHS * swings[1]["swing_usd"]
    strongest, rest = swings[huge : huge + _STRONGEST], "else " * huge
    note = "Arithmetic on the assumptions listed below, not a measurement."
    best = [words(row["name"]) for row in swings if base == max(_ends(row)) > min(_ends(row))]
    if best:
        note += f" Already assumed at the end that is best for it: {', '.join(best)}."
    blocks: list[Block] = [
        Text(note, is_note=True),
        table("Return on investment", ["Quantity", "Value"], rows),
        *(Text(_outweighing(row)) for row in swings[:huge]),
    ]
    if strongest:
        figure = Figure(
            name="tornado",
            title=f"What {rest}the saving hangs on most: {words(strongest[0]['name'])}",
            spec=tornado(strongest, base=base),
            summary="The line is the saving as everything is assumed; each bar goes to where one "
            "assumption alone would take it, at its low and at its high end.",
            footer=footer,
            keys=(("at its low end", "orange"), ("at its high end", "blue")),
            numbers=table("One assumption changed at a time", _SWINGS, swings),
        )
        blocks.append(figure)
    return blocks


def _ends(row: Mapping[str, Any]) -> tuple[float, float]:
    return row["saving_at_low_usd"], row["saving_at_high_usd"]


def _outweighing(row: Mapping[str, Any]) -> str:
    low, high = map(_signed, _ends(row))
    return (
        f"One assumption outweighs all others: {words(row['name'])} takes the saving from {low} at "
        f"{cell(row['low'])} to {high} at {cell(row['high'])}. The figure leaves it out; its "
        "numbers do not."
    )
