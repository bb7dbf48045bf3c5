"""What a run prints: plain lines everywhere, JSON lines for programs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from workbench.notebook.runner import Event
from workbench.store.records import Run

__all__ = ["Printer", "show_experiments", "show_runs", "show_table"]

_LOOK = {
    "started": ("…", "cyan"),
    "succeeded": ("✓", "green"),
    "skipped": ("=", "bright_black"),
    "failed": ("✗", "red"),
    "blocked": ("-", "yellow"),
    "waiting": ("·", "bright_black"),
    "due": ("+", "cyan"),
}
_COLUMN_GAP = 2
_RUN_COLUMNS = ("step", "member", "state", "wall_s", "cpu_s", "peak_rss_mb", "error")


class Printer:
    """Prints events of a run as they happen."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._is_terminal = sys.stdout.isatty()
        self._running: dict[tuple[str, str], None] = {}

    def show(self, event: Event) -> None:
        """Print one event; on a terminal the last line says what runs now and what is left."""
        if self._as_json:
            click.echo(json.dumps(asdict(event), ensure_ascii=False))
            return
        key = (event.member.step, event.member.label)
        self._running.pop(key, None)
        self._wipe()
        if event.kind == "started":
            self._running[key] = None
        if event.kind != "started" or not self._is_terminal:
            click.echo(_line(event))
        self._status(event)

    def end(self, *, report: Path) -> None:
        """Say where the report is."""
        if self._as_json:
            click.echo(json.dumps({"kind": "report", "path": str(report)}))
        else:
            click.echo(f"report: {report}")

    def close(self) -> None:
        """Leave the terminal clean."""
        self._wipe()

    def _status(self, event: Event) -> None:
        if self._is_terminal and self._running:
            names = " ".join(" ".join(filter(None, key)) for key in self._running)
            eta = "" if event.eta_s is None else f", about {_clock(event.eta_s)} left"
            click.secho(f"{event.done}/{event.total} done{eta}: {names}"[:110], dim=True, nl=False)

    def _wipe(self) -> None:
        if self._is_terminal and not self._as_json:
            click.echo("\r\033[K", nl=False)


def show_runs(runs: Sequence[Run], *, as_json: bool) -> None:
    """Print the run table."""
    if as_json:
        click.echo(json.dumps([asdict(run) for run in runs], ensure_ascii=False, indent=1))
        return
    rows = [[_cell(getattr(run, name)) for name in _RUN_COLUMNS] for run in runs]
    show_table(_RUN_COLUMNS, rows)


def show_experiments(rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print the experiments there are, newest first."""
    if as_json:
        click.echo(json.dumps([dict(row) for row in rows], ensure_ascii=False, indent=1))
        return
    columns = ("name", "state", "done", "started_at", "finished_at", "owner")
    table = []
    for row in rows:
        ids = [run_id for step in row["members"].values() for run_id in step]
        done = f"{sum(run_id is not None for run_id in ids)}/{len(ids)}"
        table.append([_cell({**row, "done": done}[name]) for name in columns])
    show_table(columns, table)


def show_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, spare: Sequence[str] = ()
) -> None:
    """Print cells as a table, figures to the right and never cut.

    Args:
        columns: Headings.
        rows: Cells.
        spare: Headings of columns that a narrow terminal does without, the first one first.
    """
    from rich import box
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = {name: [row[place] for row in rows] for place, name in enumerate(columns)}
    widths = {name: max(map(cell_len, [name, *column])) for name, column in cells.items()}
    # a pipe has no width: everything is in it
    terminal = Console().width if sys.stdout.isatty() else math.inf
    for name in spare:
        if _whole_width(widths) > terminal:
            del cells[name], widths[name]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name, column in cells.items():
        is_figure = all(cell[:1] in "-$0123456789" for cell in column)
        table.add_column(
            name,
            no_wrap=is_figure,
            min_width=widths[name] if is_figure else 1,
            justify="right" if is_figure else "left",
            overflow="fold",
        )
    for row in zip(*cells.values(), strict=True):
        table.add_row(*map(Text, row))
    Console(width=int(min(terminal, _whole_width(widths)))).print(table, crop=False)


def _whole_width(widths: Mapping[str, int]) -> int:
    return sum(width + _COLUMN_GAP for width in widths.values())


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1f}"
    is_time = isinstance(value, str) and value.endswith("Z") and value[10:11] == "T"
    return str(value).partition(".")[0] if is_time else str(value)[:200]


def _line(event: Event) -> str:
    sign, color = _LOOK[event.kind]
    name = " ".join(filter(None, (event.member.step, event.member.label)))
    facts = [
        f"{event.done:>3}/{event.total} {click.style(sign, fg=color)} {name:<42} {event.kind:<10}"
    ]
    if event.kind in {"succeeded", "failed"}:
        facts.append(f"{event.wall_s:6.1f} s")
    if event.kind == "succeeded" and event.eta_s is not None and event.done < event.total:
        facts.append(f"about {_clock(event.eta_s)} left")
    if event.text:
        facts.append(event.text)
    return " ".join(facts).rstrip()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min" if minutes else f"{rest} s"
