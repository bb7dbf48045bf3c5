"""The register as CSV, in which no cell is a formula."""

from __future__ import annotations

import csv
import io
from itertools import takewhile
from typing import Any
from unicodedata import category, normalize

import pyarrow as pa

__all__ = ["cell", "to_csv"]

_FORMULA = ("=", "+", "-", "@")
"""What a cell begins with that a spreadsheet would compute.

Source: OWASP, "CSV Injection".
"""
_SKIPPED = ("Z", "C")
"""Categories of characters that some spreadsheet skips on its way to one of those: spaces,
controls, marks of direction and the like."""
_CONTROLS = dict.fromkeys((*range(9), 11, 12, *range(14, 32), *range(127, 160)), "\ufffd")


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


def cell(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula: such get an apostrophe before.

    So does what would look like that already: to read it back, take one apostrophe off where the
    rest without apostrophes begins as a formula.
    """
    if text[:1].isalnum() and text.isprintable():
        return text
    text = text.translate(_CONTROLS)
    bare = text.lstrip("'")
    skipped = "".join(takewhile(lambda char: category(char)[0] in _SKIPPED, bare))
    first = normalize("NFKC", bare[len(skipped) : len(skipped) + 1])  # full-width, small, raised
    is_formula = first.startswith(_FORMULA) or bool(set(skipped) & set("\t\r\n"))
    return f"'{text}" if is_formula else text


def _shown(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return value
    return cell("; ".join(value) if isinstance(value, list) else value)
