"""Cost: what all of it took in money, energy and CO₂, and whether it pays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from workbench.core.money import ZERO
from workbench.report import figures
from workbench.report.blocks import Block, Figure, Note, Page, Section, Text
from workbench.report.evidence import Evidence
from workbench.report.tables import (
    Column,
    Table,
    dollars,
    duration,
    number,
    percent,
    records,
    table,
)

__all__ = ["page"]

_KINDS = {"measured": "●", "assumed": "○", "claimed": "◇"}


def page(evidence: Evidence) -> Page | None:
    """Return the page of costs, or None where nothing was booked."""
    cost = evidence.last("cost")
    if cost is None:
        return _from_ledger(evidence) if evidence.ledger else None
    total = cost["total"]
    lead = (
        f"All of it took {duration(total['cpu_s'])} of CPU, {number(float(total['kwh']))} kWh and "
        f"{number(float(cost['gco2']))} g CO₂, and cost {dollars(total['usd'])}."
    )
    figure = Figure(
        name="spend",
        title="Spend by step",
        spec=figures.bars({row["group"]: row["usd"] for row in cost["by_step"]}, unit="US$"),
        summary="; ".join(f"{row['group']} {dollars(row['usd'])}" for row in cost["by_step"]),
        footer=evidence.footer([cost]),
    )
    spend: list[Block] = [
        figure,
        _spend("Spend by step", "Step", [*cost["by_step"], total]),
        _spend("Spend by phase", "Phase", [*cost["by_phase"], total]),
        Text(text=f"Energy: {cost['energy_method']}"),
    ]
    return Page(
        name="cost",
        title="Cost",
        blocks=[Text(text=lead, is_lead=True)],
        sections=[
            Section(heading="Spend", blocks=spend),
            Section(heading="Return on investment", blocks=_roi(cost["roi"])),
            Section(heading="Assumptions", blocks=[_assumptions(cost["assumptions"])]),
            Section(
                heading="Claims beside measurements",
                blocks=[
                    Text(
                        text="What the source documents claim about cost, beside what was "
                        "measured here."
                    ),
                    records("Claims of the source documents", cost["claims"]),
                ],
            ),
        ],
    )


def _spend(caption: str, head: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    heads: list[Column | str] = [
        head,
        Column("CPU", "s"),
        Column("Energy", "kWh"),
        Column("Cost", "US$"),
        Column("Share"),
    ]
    body = [
        (
            row["group"],
            number(float(row["cpu_s"])),
            number(float(row["kwh"])),
            dollars(row["usd"]),
            percent(row["share"]),
        )
        for row in rows
    ]
    return table(caption, heads, body)


def _roi(roi: Mapping[str, Any]) -> list[Block]:
    labels = {
        "annual_cost_usd": "Cost per year",
        "annual_alternative_usd": "The alternative, per year",
        "annual_saving_usd": "Saving per year",
    }
    rows = [(label, dollars(roi[key])) for key, label in labels.items() if roi.get(key) is not None]
    if roi.get("payback_days") is not None:
        rows.append(("Payback", f"{number(float(roi['payback_days']))} days"))
    known = {*labels, "payback_days", "sensitivity"}
    rest = [{"name": key, "value": value} for key, value in roi.items() if key not in known]
    blocks: list[Block] = [
        Note(text="Arithmetic on the assumptions listed below, not a measurement."),
        table("Return on investment", ["Quantity", Column("Value")], rows),
    ]
    if rest:
        blocks.append(records("What it was computed with", rest))
    if roi.get("sensitivity"):
        blocks.append(records("Sensitivity: one assumption changed at a time", roi["sensitivity"]))
    return blocks


def _assumptions(rows: Sequence[Mapping[str, Any]]) -> Table:
    marked = [
        {**row, "kind": f"{_KINDS.get(str(row.get('kind')), '')} {row.get('kind', '')}"}
        for row in rows
    ]
    return records("Every assumption: ● measured here, ○ assumed, ◇ claimed by a source", marked)


def _from_ledger(evidence: Evidence) -> Page:
    by_phase: dict[str, list[Decimal]] = {}
    for row in evidence.ledger:
        by_phase.setdefault(row.phase, []).append(row.usd)
    rows = [
        (phase, dollars(sum(amounts, start=ZERO)), number(len(amounts)))
        for phase, amounts in by_phase.items()
    ]
    heads: list[Column | str] = ["Phase", Column("Cost", "US$"), Column("Ledger rows", "count")]
    note = Note(
        text="Energy, ROI and claims come with notebook 08_cost_and_roi, which has not finished."
    )
    return Page(
        name="cost",
        title="Cost",
        blocks=[note, table("Spend so far, from the ledger", heads, rows)],
    )
