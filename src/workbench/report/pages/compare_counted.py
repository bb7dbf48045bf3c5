"""What comparisons count and measure once: risks and costs, side by side, without a verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from workbench.report.blocks import Block
from workbench.report.evidence import Evidence
from workbench.report.tables import (
    Cell,
    Number,
    Table,
    dollars,
    duration,
    energy,
    number,
    table,
    words,
)  # fmt: skip

__all__ = ["Sides", "cost", "risk", "side_by_side", "signed"]

Sides = tuple[Evidence, Evidence]
_COUNTED = "Counted, not estimated: these numbers have no interval, and no verdict follows."
_COUNTS = {
    "open": "open", "closed": "closed", "overdue": "overdue", "kev": "known to be exploited",
}  # fmt: skip
_LEVELS = ("critical", "high", "medium", "low")


def side_by_side(
    caption: str, heads: Sequence[str], rows: Iterable[Sequence[Cell]], *, note: str = ""
) -> Table:
    """Return a table of both; its heads may be names from data."""
    # a name from data with a bar in it is a name, not a name and a unit
    safe = [head.replace(" | ", " ¦ ") for head in heads]
    return table(caption, safe, [tuple(row) for row in rows], note=note)


def signed(value: float) -> str:
    """Return a number with its sign."""
    return f"{'+' if value > 0 else ''}{number(value)}"


def _counted(sides: Sides, caption: str, head: str, rows: Sequence[tuple[str, Any, Any]]) -> Table:
    made: list[list[Cell]] = []
    for name, one, two in rows:
        known = isinstance(one, int) and isinstance(two, int)
        change = Number(signed(two - one)) if known else "–"
        shown = [number(value) if value is not None else "–" for value in (one, two)]
        made.append([words(name), *shown, change])
    heads = (head, *(one.experiment for one in sides), "Second − first")
    return side_by_side(caption, heads, made, note=_COUNTED)


def risk(sides: Sides) -> list[Block]:
    """Return the registers of both; the risks were counted, so nothing is claimed."""
    first, second = (one.last("assessment") for one in sides)
    if not first or not second:
        return []
    both = (first, second)
    counts = [one["counts"] for one in both]
    levels = [one["by_level"] for one in counts]
    rows = [(name, *(one.get(name, 0) for one in levels)) for name in _LEVELS]
    more = [(told, *(one.get(name) for one in counts)) for name, told in _COUNTS.items()]
    names = sorted({name for one in both for name in one["decisions"]})
    decided = [(name, *(one["decisions"].get(name, 0) for one in both)) for name in names]
    return [
        _counted(sides, "Open risks by level", "Level", rows),
        _counted(sides, "The register", "Risks", more),
        _counted(sides, "Decisions", "Decision", decided),
        *_losses_a_year(sides, both),
    ]


def _losses_a_year(sides: Sides, both: Sequence[Mapping[str, Any]]) -> list[Block]:
    found = [next((row for row in one["loss"] if row["group"] == "all"), None) for one in both]
    if not all(found):
        return []
    names = {"expected": "expected", "p50": "half of all years", "p95": "worst of 20 years"}
    rows = [(told, *(dollars(one[key]) for one in found if one)) for key, told in names.items()]
    note = "Drawn on assumptions: the same ones are needed before these are compared."
    heads = ("Year", *(one.experiment for one in sides))
    return [side_by_side("Loss per year", heads, rows, note=note)]


def cost(sides: Sides) -> list[Block]:
    """Return what the runs took, step by step, and all of them together."""
    steps = list(dict.fromkeys(run.step for one in sides for run in one.runs))
    rows: list[list[Cell]] = []
    for step in [*steps, ""]:
        found = [[run for run in one.runs if step in ("", run.step)] for one in sides]
        spent = [one.spent(runs) for one, runs in zip(sides, found, strict=True)]
        row: list[Cell] = [step or "all"]
        for runs, (usd, kwh) in zip(found, spent, strict=True):
            wall = sum(run.wall_s for run in runs)
            row += [dollars(usd), energy(kwh), duration(wall)] if runs else ["–"] * 3
        change = dollars(spent[1][0] - spent[0][0]) if all(found) else "–"
        rows.append([*row, change])
    heads = ["Step"]
    for at, one in zip(("first", "second"), sides, strict=True):
        heads += [f"{one.experiment} | US$", f"Energy | of the {at}", f"Wall | of the {at}"]
    note = "What the ledger has of the runs that make up each now. One measurement each: no "
    note += "interval, so a small difference is none."
    return [table("Cost by step", [*heads, "Second − first | US$"], rows, note=note)]
