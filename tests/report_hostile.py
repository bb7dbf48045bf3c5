"""A report of every type of page, with every hostile text in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import report_results as made
from hostile_texts import HOSTILE
from workbench.core.settings import read_settings
from workbench.report.compare import render_compare
from workbench.report.html import render
from workbench.report.index import render_index
from workbench.store.database import open_store

__all__ = ["hostile_report"]

_PLOTLY = "application/vnd.plotly.v1+json"
_WITH_FIGURES = 20
"""Cells of the notebook that draw a figure or explain one."""


def hostile_report(folder: Path) -> list[Path]:
    """Return the files: pages of each type, and last all of them in one file, in ``single``."""
    folder.mkdir(exist_ok=True)
    texts = cycle(HOSTILE)
    steps = {step: [_spoilt(one, texts) for one in found] for step, found in made.results().items()}
    book = folder / "notebook.ipynb"
    book.write_text(_notebook(HOSTILE), encoding="utf-8", errors="surrogatepass")
    reports, single = folder / "reports", folder / "single"
    store = open_store(read_settings({"WORKBENCH_HOME": str(folder / "home")}))
    for name in ("first", "other"):  # of the same names, so that there is what to compare
        made.fill(store, steps, experiment=name)
    run = store.runs.find(experiment="first")[0]
    store.runs.update(run.id, folder=str(folder))
    render(store, "first", reports / "first", notebooks=True)
    render_compare(store, "first", "other", reports / "first")
    render(store, "first", single, single_file=True)
    render_index(store, reports)
    store.engine.dispose()
    return [*sorted(reports.rglob("*.html")), single / "index.html"]


def _spoilt(value: Any, texts: Iterator[str]) -> Any:
    """Return a result in which every text is led by the next hostile one, keys as they are."""
    if isinstance(value, str):
        shown = next(texts).encode(errors="replace").decode().replace("\0", "")
        return shown + value
    if isinstance(value, list):
        return [_spoilt(one, texts) for one in value]
    if isinstance(value, dict):
        kept = {"kind", "group", "target", "split", "method"}
        return {
            key: one if key in kept and isinstance(one, str) else _spoilt(one, texts)
            for key, one in value.items()
        }
    return value


def _notebook(texts: tuple[str, ...]) -> str:
    cells: list[dict[str, Any]] = []
    code = {"cell_type": "code", "metadata": {}, "execution_count": 1}
    for one in texts:
        title = {"title": {"text": one}}
        bar = {"type": "bar", "x": [one], "y": [1], "name": one}
        figure = {"data": [bar], "layout": {**title, "xaxis": title}}
        picture = f"<svg xmlns='http://www.w3.org/2000/svg'>{one}</svg>"
        shown: list[dict[str, Any]] = [
            {f"text/{kind}": one} for kind in ("html", "markdown", "plain")
        ]
        shown += [{"image/svg+xml": picture}]
        shown += [{_PLOTLY: figure}] if len(cells) < _WITH_FIGURES else []
        found = [{"output_type": "display_data", "metadata": {}, "data": data} for data in shown]
        streamed = {"output_type": "stream", "name": "stdout", "text": one}
        cells.append({"cell_type": "markdown", "metadata": {}, "source": one})
        cells.append({**code, "source": one, "outputs": [*found, streamed]})
    return json.dumps({"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": cells})
