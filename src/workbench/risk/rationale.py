"""Which risks are explained, with what they rest on, and where the words go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from workbench.risk import score
from workbench.risk.explain import Explained
from workbench.risk.records import Intake

__all__ = ["MOST", "TOP", "to_explain", "with_explanations"]

MOST: Final = 500
"""Vulnerabilities and model risks that are explained."""
TOP: Final = 20
"""Risks that a report shows with everything."""


def to_explain(table: pa.Table, evidence: pa.Table, intake: Intake) -> dict[int, dict[str, Any]]:
    """Return the rows that are explained, by position, with reasons and what evidence says.

    The top risks, and of every vulnerability its most urgent one, up to a limit.
    """
    row_of = {one: row for row, one in enumerate(evidence["cve"].to_pylist())}
    severities = {one.id: one.severity for one in intake.model_risks}
    rows = {}
    for position in _chosen(table):
        row = table.slice(position, 1).to_pylist()[0]
        if row["kind"] == "model":
            row["severity"] = severities[row["id"]]
        else:
            known = evidence.slice(row_of[row["subject"]], 1).to_pylist()[0]
            row.update({name: value for name, value in known.items() if name not in row})
        row["reasons"] = score.reasons(row)
        rows[position] = row
    return rows


def _chosen(table: pa.Table) -> list[int]:
    is_open = np.asarray(pc.equal(table["status"], "open"))
    still = np.flatnonzero(is_open)
    subjects = np.asarray(table["subject"].to_pylist(), dtype=object)[still]
    _, first = np.unique(subjects.astype(str), return_index=True)
    return sorted({*still[:TOP].tolist(), *still[np.sort(first)[:MOST]].tolist()})


def with_explanations(
    table: pa.Table, rows: Mapping[int, Mapping[str, Any]], explained: Explained
) -> pa.Table:
    """Return the table with reasons and explanations where rows have some."""
    columns: dict[str, list[Any]] = {
        name: [None] * len(table) for name in ("reasons", "explanation", "explained_by")
    }
    for position, row in rows.items():
        text, by = explained.of(row)
        for name, value in zip(columns, (row["reasons"], text, by), strict=True):
            columns[name][position] = value
    for name, values in columns.items():
        at = table.schema.get_field_index(name)
        column = pa.array(values, table.schema.field(name).type)
        table = table.set_column(at, table.schema.field(name), column)
    return table
