"""An assessment as a Word document for those who decide."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow.compute as pc

from workbench.core.errors import ConfigError
from workbench.core.plain import one_line
from workbench.risk.records import LEVELS
from workbench.risk.register import matrix, rows_of
from workbench.risk.score import level

if TYPE_CHECKING:
    from workbench.risk.register import Assessment

__all__ = ["to_docx"]

_TOP: Final = 20
_DAYS: Final = 30
"""Most rows of due dates; most lines of problems too."""
_MOST_TEXT: Final = 2_000
"""Characters of a paragraph that came from elsewhere."""
_COLORS: Final = {"low": "D9EAD3", "medium": "FFF2CC", "high": "F9CB9C", "critical": "EA9999"}
"""Background of a level; the text on it stays black."""
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


def to_docx(assessment: Assessment) -> bytes:
    """Return the bytes of a .docx: counts, matrix, the 20 worst, due dates, what was not checked.

    Raises:
        ConfigError: If python-docx is not installed.
    """
    try:
        from docx import Document
    except ImportError as error:
        raise ConfigError(
            "docx needs python-docx; pip install 'prompt-safety-workbench[documents]'"
        ) from error
    manifest = assessment.manifest
    document = Document()
    _stamp(document.core_properties, today=str(manifest["today"]))
    document.add_heading("Risk assessment", level=0)
    document.add_paragraph(_basis(assessment))
    _summary(document, assessment)
    document.add_heading("Open risks by likelihood and impact", level=1)
    _matrix(document, matrix(assessment.table))
    document.add_heading(f"The {_TOP} worst", level=1)
    still = assessment.table.filter(pc.equal(assessment.table["status"], "open"))
    for number, row in enumerate(rows_of(still, top=_TOP), start=1):
        _risk(document, number, row)
    document.add_heading("Due dates", level=1)
    _due_dates(document, still)
    document.add_heading("What was not checked", level=1)
    _unchecked(document, assessment)
    file = io.BytesIO()
    document.save(file)
    return _timeless(file.getvalue())


def _stamp(properties: Any, *, today: str) -> None:
    day = datetime.fromisoformat(today)
    properties.title = f"Risk assessment of {today}"
    properties.author = properties.last_modified_by = "prompt-safety-workbench"
    properties.comments = ""
    properties.created = properties.modified = day


def _basis(assessment: Assessment) -> str:
    about = assessment.manifest
    made, age = str(about.get("snapshot_made_at", "")), about.get("snapshot_age_days")
    told = [f"{about['today']}, assessment {assessment.id[:12]}"]
    if policy := about.get("policy"):
        told.append(f"policy {policy}")
    told.append(f"snapshot of {made[:10] or 'unknown date'}")
    told += [f"{age} days old"] if age is not None else []
    return _text(", ".join(told)) + "."


def _summary(document: Any, assessment: Assessment) -> None:
    table, today = assessment.table, str(assessment.manifest["today"])
    week = (date.fromisoformat(today) + timedelta(days=7)).isoformat()
    still = table.filter(pc.equal(table["status"], "open"))
    due = still["due"].to_pylist()
    counted = {f"open, {name}": _count(still, "level", name) for name in reversed(LEVELS)}
    counted |= {
        "open, known to be exploited (KEV)": sum(map(bool, still["kev"].to_pylist())),
        "overdue": sum("" < one < today for one in due),
        "due within 7 days": sum(today <= one <= week for one in due),
        "accepted": _count(table, "status", "accepted"),
        "closed": _count(table, "status", "closed"),
    }
    _table(document, ("Risks", "Number"), [(name, f"{n:,}") for name, n in counted.items()])
    for paragraph in str(assessment.manifest.get("narrative", "")).splitlines():
        if paragraph.strip():
            document.add_paragraph(_text(paragraph))


def _count(table: Any, column: str, value: str) -> int:
    return int(pc.sum(pc.equal(table[column], value)).as_py() or 0)


def _matrix(document: Any, counted: Sequence[Sequence[int]]) -> None:
    heads = ("Likelihood", *(f"Impact {impact}" for impact in range(1, 6)))
    rows = [(str(at), *map(str, counted[at - 1])) for at in range(5, 0, -1)]
    grid = _table(document, heads, rows)
    for at, likelihood in enumerate(range(5, 0, -1), start=1):
        scores = np.arange(1, 6, dtype=np.int8) * likelihood
        for cell, found in zip(grid.rows[at].cells[1:], level(scores), strict=True):
            _shade(cell, _COLORS[LEVELS[found]])
    told = ", ".join(f"{name} {_count_of(counted, name):,}" for name in reversed(LEVELS))
    document.add_paragraph(f"By level of the field: {told}.")


def _count_of(counted: Sequence[Sequence[int]], name: str) -> int:
    scores = np.outer(np.arange(1, 6), np.arange(1, 6)).astype(np.int8)
    return int(np.asarray(counted)[level(scores) == LEVELS.index(name)].sum())


def _shade(cell: Any, color: str) -> None:
    from docx.oxml import parse_xml
    from docx.oxml.ns import nsdecls

    shading = parse_xml(f'<w:shd {nsdecls("w")} w:val="clear" w:color="auto" w:fill="{color}"/>')
    cell._tc.get_or_add_tcPr().append(shading)  # noqa: SLF001 - python-docx knows no other way


def _risk(document: Any, number: int, row: Mapping[str, Any]) -> None:
    head = f"{number}. {row['subject']} on {row['asset'] or 'no asset'}"
    document.add_heading(_text(f"{head}: {row['level']} ({row['score']} of 25)"), level=2)
    facts = [row["title"], row["component"], f"due {row['due'] or 'with the next upgrade'}"]
    facts += [f"owner {row['owner']}"] if row["owner"] else ["no owner"]
    facts += [f"fixed in {row['fixed_in']}"] if row.get("fixed_in") else []
    document.add_paragraph(_text(" · ".join(filter(None, facts))))
    if explanation := row.get("explanation"):
        by = row.get("explained_by") or "unknown"
        document.add_paragraph(_text(f"{explanation} (explained by {by})"))
    for reason in row.get("reasons", ()):
        document.add_paragraph(_text(reason), style="List Bullet")


def _due_dates(document: Any, still: Any) -> None:
    days: dict[str, dict[str, int]] = {}
    for due, name in zip(still["due"].to_pylist(), still["level"].to_pylist(), strict=True):
        days.setdefault(due, dict.fromkeys(LEVELS, 0))[name] += 1
    upgrade = days.pop("", None)
    shown = [*sorted(days.items())[:_DAYS], *([("next upgrade", upgrade)] if upgrade else [])]
    rows = [(due, *(str(by[name]) for name in reversed(LEVELS))) for due, by in shown]
    _table(document, ("Due", *reversed(LEVELS)), rows)
    if len(days) > _DAYS:
        document.add_paragraph(f"{len(days) - _DAYS:,} later days are left out here.")


def _unchecked(document: Any, assessment: Assessment) -> None:
    about = assessment.manifest
    missing, stale = (_kinds(assessment.table[name]) for name in ("missing", "stale"))
    rows = [
        (kind.replace("_", " "), f"{missing.get(kind, 0):,}", f"{stale.get(kind, 0):,}")
        for kind in sorted(missing | stale)
    ]
    if rows:
        _table(document, ("Evidence", "Risks without", "Risks with a stale one"), rows)
    lines = [
        f"Source {one.get('name')}: {one.get('status')} {one.get('error', '')}"
        for one in about.get("sources", ())
        if one.get("status") != "checked"
    ]
    lines += map(str, about.get("problems", ()))
    for line in lines[:_DAYS]:
        document.add_paragraph(_text(line), style="List Bullet")
    if len(lines) > _DAYS:
        document.add_paragraph(f"{len(lines) - _DAYS:,} more are in the assessment itself.")
    if not rows and not lines:
        document.add_paragraph("Nothing: all evidence was there and none of it stale.")


def _kinds(column: Any) -> dict[str, int]:
    counted = pc.value_counts(pc.list_flatten(column)).to_pylist()
    return {one["values"]: one["counts"] for one in counted}


def _table(document: Any, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Any:
    grid = document.add_table(rows=1, cols=len(heads), style="Table Grid")
    for cell, head in zip(grid.rows[0].cells, heads, strict=True):
        cell.paragraphs[0].add_run(head).bold = True
    for row in rows:
        for cell, text in zip(grid.add_row().cells, row, strict=True):
            cell.text = _text(text)
    return grid


def _text(text: str) -> str:
    """Return a text as XML takes it, in one line, cut."""
    line = one_line(text[: 2 * _MOST_TEXT])
    return line if len(line) <= _MOST_TEXT else f"{line[:_MOST_TEXT]} […]"


def _timeless(data: bytes) -> bytes:
    """Return a ZIP file with the same files and no trace of when it was made."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(made, "w") as new:
        for one in old.infolist():
            entry = zipfile.ZipInfo(one.filename, date_time=_EPOCH)
            new.writestr(entry, old.read(one), compress_type=zipfile.ZIP_DEFLATED)
    return made.getvalue()
