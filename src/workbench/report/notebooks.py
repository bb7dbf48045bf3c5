"""Executed notebooks as pages: what they said and showed, nothing that acts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from workbench.core.identity import text_id
from workbench.report import outputs
from workbench.report.blocks import Block, Figure, Html, Page, Section, Text
from workbench.report.document import plotly_bytes, visible
from workbench.report.evidence import Evidence, run_name
from workbench.report.tables import Cell, Link, counted, duration, size, table
from workbench.store.records import Run

__all__ = ["notebook_file", "notebook_page", "notebooks_page", "read_notebooks"]

_FILE = "notebook.ipynb"
_MOST_BYTES = 6_000_000
_FRAME_BYTES = 120_000
_MOST_CHARACTERS = 60_000
_MOST_HTML = 1_000_000
_MOST_LINES = 12
_PLOTLY = "application/vnd.plotly.v1+json"
_IMAGES = ("image/png", "image/jpeg", "image/webp", "image/gif", "image/svg+xml")
_BROKEN = (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError)
"""What a hostile or torn file may raise, beside the errors of its format."""


def read_notebooks(evidence: Evidence) -> dict[str, str]:
    """Return run → its executed notebook as it was left, of the runs that left one."""
    found = {}
    for run in evidence.runs:
        file = Path(run.folder) / _FILE
        if run.folder and file.is_file():
            found[run.id] = file.read_text(encoding="utf-8", errors="replace")
    return found


def notebook_file(run: str) -> str:
    """Return the name, without its ending, of the page of a run's notebook."""
    return f"notebook-{text_id(run)[:12]}"


def notebooks_page(evidence: Evidence, books: Mapping[str, str]) -> Page:
    """Return the page that lists the notebooks."""
    rows: list[tuple[Cell, ...]] = [
        (
            Link(run_name(run), f"{notebook_file(run.id)}.html"),
            Path(run.notebook).name,
            run.state,
            duration(run.wall_s),
            size(len(books[run.id].encode())),
        )
        for run in evidence.runs
        if run.id in books
    ]
    heads = ("Run", "Notebook", "State", "Took", "Size")
    notes = [] if rows else [Text("No run left its notebook here.", is_note=True)]
    told = "Each as it was executed: its text, code and outputs. Scripts and addresses are left "
    told += "out, widgets are shown as the still pictures that they left."
    shown: list[Block] = [Text(told), table("Executed notebooks", heads, rows)]
    return Page(name="notebooks", notes=notes, sections=[Section("", shown if rows else [])])


def notebook_page(run: Run, text: str) -> Page:
    """Return the page of one executed notebook; a damaged one is a page that says so.

    Args:
        run: Whose it is.
        text: The notebook file.
    """
    import nbformat

    name = notebook_file(run.id)
    try:
        cells = nbformat.reads(text, as_version=4).cells
        maker = _Maker(budget=_MOST_BYTES - _FRAME_BYTES - plotly_bytes() * (_PLOTLY in text))
        shown = (maker.tried(cell, at) for at, cell in enumerate(cells, start=1))
        blocks = [block for some in shown for block in some]
        notes = [Text(one, is_note=True) for one in maker.notes]
    except (*_BROKEN, nbformat.ValidationError) as error:
        blocks = []
        notes = [
            Text(f"This notebook cannot be read: {type(error).__name__}: {error}", is_note=True)
        ]
    if run.error:
        notes.insert(0, Text(f"This run {run.state}: {run.error}", is_note=True))
    called = f"{run_name(run)} · {Path(run.notebook).name}"
    return Page(name=name, called=called, notes=notes, sections=[Section("", blocks)])


@dataclass
class _Maker:
    """Turns cells into blocks until the page is full."""

    budget: int
    """Bytes that are left."""
    notes: list[str] = field(default_factory=list)
    _level: int = 1
    _outputs: int = 0

    def tried(self, cell: Mapping[str, Any], at: int) -> list[Block]:
        """Return what a cell shows; one that is damaged hides no other."""
        try:
            return self.cell(cell, at)
        except _BROKEN as error:
            told = f"Cell {at} cannot be shown: {type(error).__name__}: {error}"
            return [Text(told, is_note=True)]

    def cell(self, cell: Mapping[str, Any], at: int) -> list[Block]:
        source = _cut(_text(cell["source"]).replace("\r\n", "\n"))
        if cell["cell_type"] == "markdown":
            html, self._level = outputs.markdown(visible(source), name=f"m{at}", level=self._level)
            return self._fits([Html(html)], len(html))
        code = _code(source, at) if source.strip() else []
        shown = self._fits(code, len(source)) if cell["cell_type"] == "code" else code
        if cell["cell_type"] == "code":
            shown += [block for one in _joined(cell["outputs"]) for block in self._output(one, at)]
        return shown

    def _output(self, output: Mapping[str, Any], at: int) -> list[Block]:
        self._outputs += 1
        kind = output["output_type"]
        if kind == "stream":
            return self._fits(_pre(output["text"], look=str(output.get("name", ""))), 0)
        if kind == "error":
            told = (
                "\n".join(map(str, output["traceback"])) or f"{output['ename']}: {output['evalue']}"
            )
            return self._fits(_pre(told, look="stderr"), 0)
        blocks, weight = self._shown(output["data"], at)
        return self._fits(blocks, weight)

    def _shown(self, data: Mapping[str, Any], at: int) -> tuple[list[Block], int]:
        """Return the best that a page can show of an output, and how much it takes."""
        name = f"o{self._outputs}"
        spec = data.get(_PLOTLY)
        if isinstance(spec, Mapping) and (safe := outputs.safe_figure(spec)):
            return [_figure(safe, spec, name, at)], len(str(safe))
        for mime in _IMAGES:
            if mime in data and (address := outputs.image(mime, _text(data[mime]))):
                alt = _text(data.get("text/plain", "")).strip("'\" ")[:200] or f"Image of cell {at}"
                html = f'<p class="out"><img src="{address}" alt="{escape(visible(alt))}"></p>'
                return [Html(Markup(html))], len(address)  # noqa: S704 - escaped
        if "text/html" in data:
            return self._rich(visible(_text(data["text/html"])), name, at)
        if "text/markdown" in data:
            html, _ = outputs.markdown(
                visible(_cut(_text(data["text/markdown"]))), name=name, level=self._level
            )
            return [Html(html)], len(html)
        return _pre(_text(data.get("text/plain", "")) or f"{', '.join(data)}: not shown"), 0

    def _rich(self, text: str, name: str, at: int) -> tuple[list[Block], int]:
        if len(text) > min(self.budget, _MOST_HTML) or not outputs.is_calm_html(text):
            return [], len(text)
        html = outputs.rich(text, name=name, caption=f"Table of cell {at}")
        label = f'tabindex="0" role="region" aria-label="Output of cell {at}"'
        shown = Markup(f'<div class="scroll out" {label}>{html}</div>')  # noqa: S704 - sanitized
        return [Html(shown)], len(html)

    def _fits(self, blocks: Sequence[Block], weight: int) -> list[Block]:
        """Return the blocks where they still fit, else a line that says what is left out."""
        weight = weight or sum(len(one.html) for one in blocks if isinstance(one, Html))
        if weight <= self.budget and (blocks or not weight):
            self.budget -= weight
            return [*blocks]
        told = f"{size(weight)} are left out here: the page would be too large, or too slow. "
        return [Text(f"{told}They are in the notebook itself.", is_note=True)]


def _figure(safe: Mapping[str, Any], spec: Mapping[str, Any], name: str, at: int) -> Figure:
    title = spec.get("layout", {}).get("title") or ""
    told = title.get("text") if isinstance(title, Mapping) else title
    told = re.sub(r"<[^>]*>", " ", str(told or "")[:300]).strip()
    words = f"Figure of cell {at}"
    return Figure(
        name=name,
        title=told or words,
        spec=safe,
        summary=words if told else f"{counted(len(safe['data']), 'trace')} drawn by the notebook.",
        footer="",
    )


def _code(source: str, at: int) -> list[Block]:
    lines = source.count("\n") + 1
    words = escape(visible(source))
    code = (
        f'<pre class="code" tabindex="0" aria-label="Code of cell {at}"><code>{words}</code></pre>'
    )
    if lines > _MOST_LINES:
        code = f"<details><summary>Code, {lines} lines</summary>{code}</details>"
    return [Html(Markup(code))]  # noqa: S704 - escaped


def _pre(text: str, *, look: str = "") -> list[Block]:
    shown = visible(_cut(outputs.plain_text(text)))
    tone = " err" if look == "stderr" else ""
    html = f'<pre class="out{tone}" tabindex="0">{escape(shown.rstrip())}</pre>'
    return [Html(Markup(html))] if shown.strip() else []  # noqa: S704 - escaped


def _cut(text: str) -> str:
    """Return a text that is not too long, its middle left out where it is."""
    half, gone = _MOST_CHARACTERS // 2, len(text) - _MOST_CHARACTERS
    told = f"{text[:half]}\n… {gone:,} characters are left out here …\n{text[-half:]}"
    return text if gone <= 0 else told


def _joined(found: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return outputs with what one stream said in pieces put together."""
    made: list[Mapping[str, Any]] = []
    for one in found:
        last = made[-1] if made else {}
        if one["output_type"] == "stream" and one.get("name") == last.get("name"):
            made[-1] = {**last, "text": _text(last["text"]) + _text(one["text"])}
        else:
            made.append(one)
    return made


def _text(value: Any) -> str:
    return "".join(map(str, value)) if isinstance(value, list) else str(value)
