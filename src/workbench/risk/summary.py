"""An assessment in figures: what notebook, command line and report show of a register."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from workbench.risk.records import LEVELS, Intake
from workbench.risk.register import matrix, rows_of
from workbench.store.risk_results import CalendarRow, CountsRow

__all__ = ["calendar", "closed_rows", "count", "figures"]

_TOP: Final = 20
_REGISTER: Final = 300
_CLOSED: Final = 100
_SOON_DAYS: Final = 7
_CLOSED_FIELDS: Final = ("subject", "asset", "component", "state", "reason", "source")


def figures(table: pa.Table, intake: Intake, *, today: date) -> dict[str, Any]:
    """Return the fields of ``AssessmentResult`` that follow from the register and the intake."""
    still = _open(table)
    return {
        "counts": count(table, intake, today=today),
        "matrix": matrix(table),
        "top": rows_of(still, top=_TOP),
        "register": [_short(row) for row in rows_of(table, top=_REGISTER)],
        "closed": closed_rows(table),
        "calendar": calendar(still),
        "decisions": _counted(still, "decision"),
        "files": [dict(one) for one in intake.files],
        "problems": list(intake.problems),
    }


def count(table: pa.Table, intake: Intake, *, today: date) -> CountsRow:
    """Return how many risks there are of what kind."""
    still = _open(table)
    due = still["due"]
    has_date = pc.not_equal(due, "")
    soon = (today + timedelta(days=_SOON_DAYS)).isoformat()
    is_late = pc.and_(has_date, pc.less(due, today.isoformat()))
    is_soon = pc.and_(has_date, pc.less_equal(due, soon))
    is_model = pc.equal(table["kind"], "model")
    levels = _counted(still, "level")
    return {
        "risks": len(table),
        "open": len(still),
        "closed": _sum(pc.equal(table["status"], "closed")),
        "cves": len(table.filter(pc.invert(is_model))["subject"].unique()),
        "model_risks": _sum(is_model),
        "assets": len(set(intake.assets) | set(table["asset"].unique().to_pylist())),
        "components": 0 if intake.components is None else len(intake.components),
        "kev": _sum(pc.fill_null(still["kev"], fill_value=False)),
        "overdue": _sum(is_late),
        "due_7_days": _sum(is_soon) - _sum(is_late),
        "by_level": {level: levels.get(level, 0) for level in LEVELS},
    }


def calendar(still: pa.Table) -> list[CalendarRow]:
    """Return open risks by the day on which they are due, earliest first; those with a date."""
    counted: dict[str, Counter[str]] = {}
    for due, level in zip(still["due"].to_pylist(), still["level"].to_pylist(), strict=True):
        if due:
            counted.setdefault(due, Counter())[level] += 1
    return [
        {
            "due": due,
            "low": counted[due]["low"],
            "medium": counted[due]["medium"],
            "high": counted[due]["high"],
            "critical": counted[due]["critical"],
        }
        for due in sorted(counted)
    ]


def closed_rows(table: pa.Table) -> list[dict[str, str]]:
    """Return the worst closed risks with the reason why they are."""
    closed = table.filter(pc.equal(table["status"], "closed"))
    rows: list[dict[str, str]] = closed.select(_CLOSED_FIELDS).slice(0, _CLOSED).to_pylist()
    return rows


def _short(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row without the long texts that only the top risks show."""
    return {k: v for k, v in row.items() if k not in {"reasons", "explanation"}}


def _open(table: pa.Table) -> pa.Table:
    return table.filter(pc.equal(table["status"], "open"))


def _counted(table: pa.Table, column: str) -> dict[str, int]:
    counts: Sequence[Mapping[str, Any]] = pc.value_counts(table[column]).to_pylist()
    return {str(one["values"]): int(one["counts"]) for one in counts}


def _sum(flags: pa.ChunkedArray) -> int:
    return int(pc.sum(flags).as_py() or 0)
