"""The first page: what every other page found, and how far the runs are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from workbench.report.blocks import Page, Section, Text
from workbench.report.evidence import Evidence, run_name
from workbench.report.tables import Cell, Link, dollars, duration, energy, number, table
from workbench.store.records import Run

__all__ = ["page"]

_SIGNS = {"succeeded": "✓", "failed": "✕", "running": "…", "lost": "✕"}
_HEADS = ("State", "Wall", "CPU", "Peak | MB", "Energy", "Cost | US$", "Started | UTC")


def page(
    evidence: Evidence, pages: Sequence[Page], *, books: Mapping[str, str] | None = None
) -> Page:
    """Return the first page from the others; it is there whatever else is not.

    ``books`` are the pages of executed notebooks by run; the table of runs leads to them.
    """
    books = books or {}
    steps: dict[str, list[Run]] = {}
    for run in evidence.runs:
        steps.setdefault(run.step, []).append(run)
    later = [(step, f"{many} not started", *["–"] * 6) for step, many in evidence.waiting.items()]
    everything = [*steps.items(), ("all", [*evidence.runs])]
    by_step = [_row(evidence, step, runs) for step, runs in everything]
    each = [_row(evidence, _name(run, books), [run]) for run in evidence.runs]
    tables = [table("Steps", ["Step", *_HEADS], [*by_step, *later])]
    if len(each) > 1:
        caption = f"Each of the {len(each)} runs"
        tables.append(table(caption, ["Run", *_HEADS], each).folded())
    return Page(
        name="index",
        notes=_problems(evidence),
        facts=[fact for page in pages for fact in page.facts],
        sections=[Section("How it was made", tables)],
    )


def _problems(evidence: Evidence) -> list[Text]:
    notes = [
        f"Step {run_name(run)} {run.state}: {run.error}"
        for run in evidence.runs
        if run.state in ("failed", "lost")
    ]
    if running := [run_name(run) for run in evidence.runs if run.state == "running"]:
        notes.append(f"Still running when this was written: {', '.join(running)}.")
    if evidence.waiting:
        steps = ", ".join(f"{step} ({count})" for step, count in evidence.waiting.items())
        again = f"`workbench run {evidence.file}` goes on from here."
        notes.append(f"Not started yet: {steps}. {again}")
    return [Text(note, is_note=True) for note in notes]


def _name(run: Run, books: Mapping[str, str]) -> Cell:
    return Link(run_name(run), f"{books[run.id]}.html") if run.id in books else run_name(run)


def _row(evidence: Evidence, name: Cell, runs: Sequence[Run]) -> tuple[Cell, ...]:
    states = [run.state for run in runs]
    counted = [
        f"{_SIGNS[state]} {state}{f' {states.count(state)}' if len(runs) > 1 else ''}"
        for state in dict.fromkeys(states)
    ]
    usd, kwh = evidence.spent(runs)
    return (
        name,
        ", ".join(counted).replace(" ", "\u00a0"),
        duration(sum(run.wall_s for run in runs)),
        duration(sum(run.cpu_s for run in runs)),
        number(round(max((run.peak_rss_mb for run in runs), default=0))),
        energy(kwh),
        dollars(usd),
        min((run.started_at for run in runs), default="")[:19].replace("T", " "),
    )
