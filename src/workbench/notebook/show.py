"""How notebooks show results: the report's figures and records, in the report's look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from pandas.io.formats.style import Styler

from workbench.report.tables import records, words

__all__ = ["figure", "table"]


def figure(spec: Mapping[str, Any], *, title: str) -> go.Figure:
    """Return a figure of ``report.figures`` under a title."""
    return go.Figure(spec).update_layout(title={"text": title, "x": 0.01}, margin={"t": 48})


def table(rows: Sequence[Mapping[str, Any]] | Mapping[str, Any]) -> Styler:
    """Return records as a table of readable numbers; one mapping stands upright.

    Texts may be hostile: markup and formulas in them are shown, not obeyed.
    """
    if isinstance(rows, Mapping):
        rows = [{"": words(name), "value": value} for name, value in rows.items()]
    made = records("", rows)
    cells = [[str(cell) for cell in row] for row in made.rows]
    frame = pd.DataFrame(cells, columns=[column.name for column in made.columns])
    left = [{"selector": "", "props": "text-align: left"}]
    texts = {column.name: left for column in made.columns if not column.is_number}
    safe = frame.style.format(escape="html").format_index(escape="html", axis="columns")
    styled = safe.hide(axis="index").set_table_styles(texts)  # type: ignore[arg-type]  # stub: no key fits
    return styled.set_table_attributes('class="tex2jax_ignore mathjax_ignore"')
