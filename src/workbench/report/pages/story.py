"""The first page: what every other page found, and how far the runs are."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.core.money import ZERO
from workbench.report.blocks import Page, Section, Text
from workbench.report.evidence import Evidence
from workbench.report.tables import Cell, Table, dollars, duration, energy, number, table
from workbench.store.records import Run

__all__ = ["page"]

_STATES = {
    "succeeded": "✓ succeeded",
    "failed": "✕ failed",
    "running": "… running",
    "lost": "✕ lost",
}
_HEADS = ("State", "Wall", "CPU", "Peak | MB", "Energy", "Cost | US$", "Started | UTC")


def page(evidence: Evidence, pages: Sequence[Page]) -> Page:
    """Return the first page from the others; it is there whatever else is not."""
    steps: dict[str, list[Run]] = {}
    for run in evidence.runs:
        steps.setdefault(run.step, []).append(run)
    waiting = [
        (step, f"{count} not started", *["–"] * 6) for step, count in evidence.waiting.items()
    ]
    by_step = [_row(evidence, step, runs) for step, runs in steps.items()]
    by_step.append(_row(evidence, "all", list(evidence.runs)))
    each = [_row(evidence, _name(run), [run]) for run in evidence.runs]
    runs: list[Table] = [
        table("Steps", ["Step", *_HEADS], [*by_step, *waiting]),
        table(f"Each of the {len(each)} runs", ["Run", *_HEADS], each, is_folded=True),
    ]
    return Page(
        name="index",
        title="Story",
        notes=_problems(evidence),
        facts=[fact for page in pages for fact in page.facts],
        sections=[Section("How it was made", runs)],
    )


def _problems(evidence: Evidence) -> list[Text]:
    notes = [
        f"Step {_name(run)} {run.state}: {run.error}"
        for run in evidence.runs
        if run.state in ("failed", "lost")
    ]
    if running := [_name(run) for run in evidence.runs if run.state == "running"]:
        notes.append(f"Still running when this was written: {', '.join(running)}.")
    if evidence.waiting:
        steps = ", ".join(f"{step} ({count})" for step, count in evidence.waiting.items())
        notes.append(
            f"Not started yet: {steps}. `workbench run {evidence.file}` goes on from here."
        )
    return [Text(note, is_note=True) for note in notes]


def _row(evidence: Evidence, name: str, runs: Sequence[Run]) -> tuple[Cell, ...]:
    states = [run.state for run in runs]
    counted = [
        f"{_STATES[state]}{f' {states.count(state)}' if len(runs) > 1 else ''}"
        for state in dict.fromkeys(states)
    ]
    usd = sum((evidence.usd(run.id) for run in runs), start=ZERO)
    return (
        name,
        ", ".join(counted).replace(" ", "\u00a0"),
        duration(sum(run.wall_s for run in runs)),
        duration(sum(run.cpu_s for run in runs)),
        number(round(max((run.peak_rss_mb for run in runs), default=0))),
        energy(sum(evidence.kwh(run.id) for run in runs)),
        dollars(usd),
        min((run.started_at for run in runs), default="")[:19].replace("T", " "),
    )


def _name(run: Run) -> str:
    return f"{run.step} · {run.member}" if run.member else run.step
