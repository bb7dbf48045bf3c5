"""The index of all experiments: what each found, what it cost, and where its report lies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from workbench.core.money import ZERO
from workbench.report.blocks import Fact, Page, Section, Sortable, Text
from workbench.report.document import Frame, document
from workbench.report.evidence import Evidence, read_evidence
from workbench.report.html import first_finding
from workbench.report.tables import Cell, Link, dollars, duration, number, table
from workbench.store.artifacts import write_atomic
from workbench.store.database import Store

__all__ = ["render_index", "report_folder"]

_NAME = re.compile(r"[\w-]{1,100}")
_SIGNS = {"succeeded": "✓", "failed": "✕", "running": "…"}
_HEADS = ("Experiment", "State", "Last run | UTC", "What it found", "Runs", "Wall", "Cost | US$")
_HINT = "quickstart, failed, sanitizer …"


class _Row(NamedTuple):
    cells: tuple[Cell, ...]
    keys: tuple[str | float, ...]
    usd: Any
    state: str


def report_folder(root: Path, experiment: str) -> Path | None:
    """Return where the report of an experiment lies, or None where its name is no file's."""
    return root / experiment if _NAME.fullmatch(experiment) else None


def render_index(store: Store, folder: Path) -> Path:
    """Return ``index.html`` in the folder of all reports: one row per experiment, newest first.

    Raises:
        StoreError: If it cannot be written.
    """
    rows = [_row(read_evidence(store, one), folder) for one in store.runs.experiments()]
    states = [row.state for row in rows]
    told = " · ".join(f"{number(states.count(one))} {one}" for one in _SIGNS if states.count(one))
    spent = sum((row.usd for row in rows), start=ZERO)
    note = "of the runs that make them up now; what else was paid for: workbench cost show"
    facts = [Fact("Experiments", number(len(rows)), told), Fact("Cost", dollars(spent), note)]
    shown = table("All experiments", _HEADS, [row.cells for row in rows])
    keys = tuple(row.keys for row in rows[: len(shown.rows)])
    listed = Sortable(table=shown, keys=keys, hint=_HINT, look="wide")
    none = "No experiment ran here yet: `workbench run experiments/quickstart.yaml` runs one."
    page = Page(
        name="index",
        called="Experiments",
        notes=[] if rows else [Text(none, is_note=True)],
        facts=facts if rows else (),
        sections=[Section("Each experiment", [listed] if rows else [])],
    )
    frame = Frame(title="Experiments", heading="What the experiments found")
    write_atomic(folder / "index.html", document("index", [page], frame))
    return folder / "index.html"


def _row(evidence: Evidence, folder: Path) -> _Row:
    name = evidence.experiment
    place = report_folder(folder, name)
    is_there = place is not None and (place / "index.html").is_file()
    found = first_finding(evidence)
    usd, _ = evidence.spent(evidence.runs)
    wall = sum(run.wall_s for run in evidence.runs)
    last = max((run.finished_at or run.started_at for run in evidence.runs), default="")
    state = f"{_SIGNS.get(evidence.state, '')}\u00a0{evidence.state}".strip()
    shown: Mapping[str, tuple[Cell, str | float]] = {
        "name": (Link(name, f"./{name}/index.html") if is_there else name, name),
        "state": (state, evidence.state),
        "last": (last[:16].replace("T", " ") or "–", last),
        "found": (found.claim if found else "–", found.claim if found else ""),
        "runs": (number(len(evidence.runs)), float(len(evidence.runs))),
        "wall": (duration(wall), wall),
        "usd": (dollars(usd), float(usd)),
    }
    cells, keys = zip(*shown.values(), strict=True)
    return _Row(cells, keys, usd, evidence.state)
