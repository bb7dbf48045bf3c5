"""The register as CSV, in which no cell is a formula."""

from __future__ import annotations

import csv
import io
from typing import Any

import pyarrow as pa

from workbench.core.plain import cell

__all__ = ["to_csv"]


def to_csv(table: pa.Table) -> str:
    """Return a table as CSV with a header: numbers bare, texts quoted, lists joined by ``; ``.

    Source:
        RFC 4180.
    """
    out = io.StringIO()
    rows = csv.writer(out, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\r\n")
    rows.writerow([cell(name) for name in table.column_names])
    columns = ([_shown(value) for value in column.to_pylist()] for column in table.columns)
    rows.writerows(zip(*columns, strict=True))
    return out.getvalue()


def _shown(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return value
    return cell("; ".join(value) if isinstance(value, list) else value)
