"""The first page: the story in six numbers, the verdict, and the run table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.core.money import ZERO, show_usd
from workbench.report.blocks import Block, Fact, Facts, Note, Page, Section, Text
from workbench.report.evidence import Evidence
from workbench.report.pages.campaign import sentence
from workbench.report.seeds import seed_interval
from workbench.report.tables import (
    Column,
    Estimate,
    Table,
    dollars,
    duration,
    estimate,
    number,
    percent,
    short,
    table,
)

__all__ = ["page"]

_STATES = {
    "succeeded": "✓ succeeded",
    "failed": "✕ failed",
    "running": "… running",
    "lost": "✕ lost",
}


def page(evidence: Evidence) -> Page:
    """Return the first page; it is there whatever else is not."""
    laws, analysis = evidence.last("laws"), evidence.last("analysis")
    blocks: list[Block] = []
    if laws is not None:
        blocks.append(Text(text=laws["verdict"], is_lead=True))
    if analysis is not None:
        blocks.append(Text(text=sentence(analysis), is_lead=laws is None))
    blocks += _problems(evidence)
    facts = [
        fact
        for fact in (
            _pairs(evidence),
            _loss(evidence),
            _exponent(laws),
            *_campaign(analysis),
            _cost(evidence),
        )
        if fact is not None
    ]
    if facts:
        blocks.append(Facts(facts=tuple(facts)))
    return Page(
        name="index",
        title="Story",
        blocks=blocks,
        sections=[Section(heading="Runs", blocks=[_run_table(evidence)])],
    )


def _problems(evidence: Evidence) -> list[Note]:
    broken = [run for run in evidence.runs if run.state in ("failed", "lost")]
    notes = [
        Note(text=f"Step {_name(run.step, run.member)} {run.state}: {run.error}") for run in broken
    ]
    if running := [_name(run.step, run.member) for run in evidence.runs if run.state == "running"]:
        notes.append(Note(text=f"Still running when this was written: {', '.join(running)}."))
    if evidence.waiting:
        steps = ", ".join(f"{step} ({count})" for step, count in evidence.waiting.items())
        notes.append(
            Note(
                text=f"Not started yet: {steps}. `workbench run {evidence.file}` goes on from here."
            )
        )
    return notes


def _pairs(evidence: Evidence) -> Fact | None:
    pairs = evidence.last("pairs")
    if pairs is None:
        return None
    note = (
        f"from {number(pairs['unique_requests'])} requests in "
        f"{number(pairs['wrapper_families'])} wrapper "
        f"families; set {short(pairs['version'])}, counted exactly"
    )
    return Fact(label="Pairs grown", value=number(pairs["pairs"]), note=note)


def _loss(evidence: Evidence) -> Fact | None:
    runs = evidence.largest()
    if not runs:
        return None
    loss = seed_interval([run["loss"] for run in runs])
    rivals = {
        name: seed_interval([run["baselines"][name] for run in runs])
        for name in runs[0]["baselines"]
    }
    best = min(rivals, key=lambda name: rivals[name]["value"]) if rivals else ""
    note = f"over {len(runs)} seeds, unseen requests in unseen wrappers"
    if best:
        note += f"; best baseline {best}: {number(rivals[best]['value'])}"
    return _fact("Diffusion loss, 1 − cosine", estimate(loss), note=note)


def _exponent(laws: Mapping[str, Any] | None) -> Fact | None:
    if laws is None or "alpha" not in laws["parameters"]:
        return None
    ahead = laws["forecast"]
    note = f"{laws['form']}; forecast at {ahead['x']:,.4g}: loss {estimate(ahead['loss'])}"
    return _fact("Scaling exponent α", estimate(laws["parameters"]["alpha"]), note=note)


def _campaign(analysis: Mapping[str, Any] | None) -> list[Fact]:
    if analysis is None or not analysis["totals"]:
        return []
    totals = {row["target"]: row for row in analysis["totals"]}
    first, best = next(iter(totals)), min(totals, key=lambda name: totals[name]["rate"]["value"])
    bare, rate = totals[first]["rate"], totals[best]["rate"]
    facts = [
        Fact(
            label="Attacks that get through",
            value=percent(rate["value"]),
            interval=_bounds(rate),
            note=f"{best}, {number(totals[best]['attempts'])} attempts; {first}: "
            f"{estimate(bare, percent)} (gray tick)",
            strip=_strip(rate),
            reference=_unit(bare["value"]),
        )
    ]
    spoilt = {row["target"]: row for row in analysis["controls"]}
    if best in spoilt:
        row = spoilt[best]
        reference = spoilt.get(first, row)["rate"]["value"]
        facts.append(
            Fact(
                label="Harmless controls spoilt",
                value=percent(row["rate"]["value"]),
                interval=_bounds(row["rate"]),
                note=f"{best}, {number(row['attempts'])} attempts; {first}: "
                f"{percent(reference)} (gray tick)",
                strip=_strip(row["rate"]),
                reference=_unit(reference),
            )
        )
    return facts


def _cost(evidence: Evidence) -> Fact | None:
    cost = evidence.last("cost")
    if cost is not None:
        total = cost["total"]
        note = (
            f"{number(float(total['kwh']))} kWh (estimated), {number(float(cost['gco2']))} g CO₂, "
            f"{duration(total['cpu_s'])} of CPU"
        )
        return Fact(label="Cost of everything", value=dollars(total["usd"]), note=note)
    if not evidence.ledger:
        return None
    spent = sum((row.usd for row in evidence.ledger), start=ZERO)
    return Fact(
        label="Cost so far",
        value=show_usd(spent),
        note="from the ledger; energy comes with 08_cost_and_roi",
    )


def _run_table(evidence: Evidence) -> Table:
    rows: list[tuple[str, ...]] = [
        (
            _name(run.step, run.member),
            _STATES[run.state],
            duration(run.wall_s),
            duration(run.cpu_s),
            number(round(run.peak_rss_mb)),
            number(evidence.kwh(run.id)),
            show_usd(evidence.usd(run.id)),
            run.started_at[:19].replace("T", " "),
        )
        for run in evidence.runs
    ]
    rows += [
        (_name(step, f"{count} to go"), "not started", *["–"] * 6)
        for step, count in evidence.waiting.items()
    ]
    heads: list[Column | str] = [
        "Step",
        "State",
        Column("Wall"),
        Column("CPU"),
        Column("Peak", "MB"),
        Column("Energy", "kWh, est."),
        Column("Cost", "US$"),
        Column("Started", "UTC"),
    ]
    wall = duration(sum(run.wall_s for run in evidence.runs))
    spent = show_usd(sum((row.usd for row in evidence.ledger), start=ZERO))
    note = f"{len(evidence.runs)} runs, {wall} if run one after another, {spent}."
    return table(f"Runs that make up {evidence.experiment} now", heads, rows, note=note)


def _fact(label: str, shown: Estimate, *, note: str) -> Fact:
    return Fact(label=label, value=shown.value, interval=f"[{shown.low}, {shown.high}]", note=note)


def _bounds(rate: Mapping[str, float]) -> str:
    return f"[{percent(rate['low'])}, {percent(rate['high'])}]"


def _strip(rate: Mapping[str, float]) -> tuple[float, float, float]:
    return _unit(rate["low"]), _unit(rate["value"]), _unit(rate["high"])


def _unit(value: float) -> float:
    return min(max(value, 0.0), 1.0)


def _name(step: str, member: str) -> str:
    return f"{step} · {member}" if member else step
