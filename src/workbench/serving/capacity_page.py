"""A plan as an HTML page: latency by the hour, machines by prompt length, and all that it says."""

from __future__ import annotations

import re
from collections.abc import Mapping

from workbench.report.blocks import Block, Fact, Facts, Figure, Finding, Page, Section, Text
from workbench.report.document import Frame, document
from workbench.report.figures import color_of, trends
from workbench.report.tables import Cell, Number, Toned, counted, dollars, estimate, number, table
from workbench.serving.capacity import Plan
from workbench.serving.capacity_report import Part, made_of, outcome, parts_of
from workbench.store.results import Interval

__all__ = ["render_page"]

_TONES = {"holds": "low", "does not hold": "critical", "cannot be known": "medium"}
_FIGURE = re.compile(r"\$?[\d.,]+(e[+-]\d+)?%?( \([\d.,%–]+\))?")
_PERCENTILES = ("p50", "p95", "p99")
_CAPTIONS = {
    "Latency": "Percentiles over the day and in its busiest hour",
    "Dollars, energy, carbon": "Estimates for a year",
    "What it hangs on": "One assumption changed, all others kept",
    "Assumptions": "Every one, with the range it might have",
    "The roadmap's claims": "Each with a verdict",
}


def render_page(plan: Plan) -> bytes:
    """Return a plan as one HTML document, which asks nothing of anybody."""
    parts = parts_of(plan)
    drawn: Mapping[str, list[Block]] = {
        "Latency": [_facts(plan), _hours(plan)], "What it hangs on": _lengths(plan),
    }  # fmt: skip
    asked = f"{plan.value('prompts_per_day'):,.0f} prompts a day"
    claim = f"{counted(plan.machines, 'machine')} for {asked}"
    page = Page(
        name="capacity",
        finding=Finding(
            claim if plan.meets else f"No number of machines tried keeps {asked} as asked for",
            f"{outcome(plan)} {made_of(plan)}".replace("**", "").replace("`", ""),
        ),
        sections=[
            Section(part.heading, [*drawn.get(part.heading, []), *_told(part)]) for part in parts
        ],
    )
    footer = ["simulated from measured batches", "prices, watts and loads are assumed"]
    return document("capacity", [page], Frame(title="Capacity", heading="{}", footer=footer))


def _told(part: Part) -> list[Block]:
    rows = [[_cell(one) for one in row] for row in part.rows]
    text = [Text(part.text.replace("`", ""))] * bool(part.text)
    return [*[table(_CAPTIONS[part.heading], part.head, rows)] * bool(rows), *text]


def _cell(text: str) -> Cell:
    if text in _TONES:
        return Toned(text, _TONES[text])
    return Number(text) if _FIGURE.fullmatch(text) else text


def _facts(plan: Plan) -> Facts:
    return Facts((
        Fact("Machines", number(plan.machines), f"{plan.hardware.title}; one may be down"),
        Fact("p99, busiest hour", _ms(plan.peaks[1].p99_ms), "ms, one machine down"),
        Fact("A year", dollars(plan.usd_per_year), "machines alone, list prices"),
    ))  # fmt: skip


def _hours(plan: Plan) -> Figure:
    found = {
        name: {float(at): getattr(hour, f"{name}_ms") for at, hour in enumerate(plan.hours)}
        for name in _PERCENTILES
    }
    slow = [hour.p95_ms["value"] for hour in plan.hours]
    heads = ("Hour", *(f"{name} | ms" for name in _PERCENTILES))
    rows = [
        (hour.name, *(_ms(found[name][at]) for name in _PERCENTILES))
        for at, hour in enumerate(plan.hours)
    ]
    return Figure(
        name="hours",
        title=f"95 % of prompts are answered within {min(slow):.0f} to {max(slow):.0f} ms all day",
        summary="Milliseconds from a prompt's arrival to its answer over the hours of a day, all"
        " machines up: median of the simulated days, and their range. The slowest hundredth are"
        " the longest prompts, of which few are simulated for an hour. Hours of the same load are"
        " simulated once. Without the network.",
        spec=trends(found, x="hour of the day", y="ms (log scale)", log="y"),
        keys=tuple((name, color_of(name, at)) for at, name in enumerate(found, start=1)),
        numbers=table("Latency by hour", heads, rows),
        footer=f"{counted(plan.days, 'simulated day')}, seed {plan.seed}",
    )


def _lengths(plan: Plan) -> list[Block]:
    sizes = {one["value"]: one["machines"] for one in plan.sensitivity
             if one["name"] == "tokens_mean" and one["meets"]}  # fmt: skip
    if len(sizes) < 2:  # noqa: PLR2004 - a line has two ends
        return []
    sizes |= {plan.value("tokens_mean"): plan.machines} if plan.meets else {}
    ordered = sorted(sizes.items())
    points: dict[float, Interval] = {
        tokens: {"value": many, "low": many, "high": many} for tokens, many in ordered
    }
    (short, few), (long, many) = ordered[0], ordered[-1]
    return [
        Figure(
            name="lengths",
            title=f"{few} machines at {short:g} tokens a prompt, {many} at {long:g}",
            summary="Machines that the load takes over the mean length of its prompts, all else as"
            " assumed; the longest prompts set the slowest hundredth.",
            spec=trends({"machines": points}, x="mean tokens (log scale)", y="machines", log="x"),
            footer="the numbers are in the table",
        )
    ]  # fmt: skip


def _ms(value: Interval) -> Cell:
    return estimate(value, number)
