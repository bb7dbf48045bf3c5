"""What panels are made of, and how it is drawn: blocks as plain JSON, escaped HTML of them.

All text is hostile. The template escapes it, what cannot be seen is spelt out, and a change of a
live panel is either a text or a piece of HTML that was made here.
"""

from __future__ import annotations

import html
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from workbench.report.palette import COLORS
from workbench.report.tables import Heads, percent
from workbench.report.tables import table as _table

__all__ = [
    "Block", "bars", "block_html", "changes", "cut", "facts", "graph", "marked", "page_html",
    "passages", "plot", "progress", "safe", "shown", "style", "table", "text",
]  # fmt: skip

Block = dict[str, Any]
"""Plain JSON with a ``kind``; made by the functions of this module."""

_FOLDER = Path(__file__).parent
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_KEPT = frozenset("\n\t")
_MOST = 1_500
_RATE = ("value", "low", "high")
_PATCHED = {
    "facts": r"items\.\d+\.(value|note)",
    "table": r"rows\.\d+\.\d+",
    "bars": r"items\.\d+\.(at|low|high|shown)",
    "progress": r"done|note",
    "text": "text",
}
"""Kind → what of it changes in place; anything else is drawn anew."""
_WIDE, _HIGH, _APART = 520, 280, 40
"""Pixels of a plot, and between labels on its axis."""
_TICKS = 8
_INKS = {COLORS[name]: name for name in ("band", "blue", "ink", "vermillion")}


def shown(value: object) -> str:
    """Return a text with everything spelt out that is not seen: control, direction, surrogates."""
    words = str(value)
    if words.isascii() and words.isprintable():
        return words
    return "".join(map(_seen, words))


def _seen(char: str) -> str:
    if char in _KEPT or unicodedata.category(char) not in _INVISIBLE:
        return char
    return f"⟨U+{ord(char):04X}⟩"


def cut(value: object, most: int = _MOST) -> str:
    """Return the beginning of a text, and how much more there is."""
    words = str(value)
    rest = len(words) - most
    return words if rest <= 0 else f"{words[:most]} … ({rest:,} more characters)"


def safe(value: Any) -> Any:
    """Return plain JSON whose texts are :func:`shown`; what JSON does not know becomes text."""
    if isinstance(value, Mapping):
        return {shown(name): safe(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [safe(one) for one in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return shown(value)


def facts(items: Iterable[tuple[str, object, str]]) -> Block:
    """Return large numbers: label, value and a note each."""
    made = [{"label": label, "value": str(value), "note": note} for label, value, note in items]
    return {"kind": "facts", "items": made}


def table(
    caption: str, heads: Sequence[str] | Heads, rows: Iterable[Any], *, note: str = ""
) -> Block:
    """Return a table; heads and rows as ``report.tables.table`` takes them, 300 rows at most."""
    made = _table(caption, heads, rows, note=note)
    return {
        "kind": "table",
        "caption": made.caption,
        "columns": [[one.name, one.unit, one.is_number] for one in made.columns],
        "rows": [[cut(value) or "–" for value in row] for row in made.rows],
        "note": made.note,
    }


def bars(caption: str, items: Iterable[tuple[str, Mapping[str, Any], str]]) -> Block:
    """Return rates with their intervals: label, ``value low high`` in [0, 1], and a note."""
    made = []
    for label, rate, note in items:
        value, low, high = (min(max(float(rate[key]), 0.0), 1.0) for key in _RATE)
        places = zip(("at", "low", "high"), (value, low, high), strict=True)
        said = f"{percent(value)} [{percent(low)}, {percent(high)}] {note}".strip()
        drawn = {name: f"{100 * place:.1f}%" for name, place in places}
        made.append({"label": label, "shown": said, **drawn})
    return {"kind": "bars", "caption": caption, "items": made}


def progress(label: str, *, done: int, total: int, note: str = "") -> Block:
    """Return how far something is."""
    return {"kind": "progress", "label": label, "done": done, "total": total, "note": note}


def text(words: str, *, is_note: bool = False) -> Block:
    """Return a paragraph; a note is one that must not be missed."""
    return {"kind": "text", "text": words, "is_note": is_note}


def passages(items: Iterable[tuple[str, Iterable[tuple[str, str]]]]) -> Block:
    """Return long texts: a heading, then the name and the text of each part."""
    made = [
        {"heading": heading, "parts": [[name, cut(words)] for name, words in parts]}
        for heading, parts in items
    ]
    return {"kind": "passages", "items": made}


def marked(caption: str, words: str, span: tuple[int, int] | None) -> Block:
    """Return a text of which the characters of a span are marked; None marks nothing."""
    start, end = span or (len(words), len(words))
    pieces = ((words[:start], False), (words[start:end], True), (words[end:], False))
    shown_ = [[cut(piece), is_marked] for piece, is_marked in pieces if piece]
    return {"kind": "marked", "caption": caption, "pieces": shown_}


def graph(caption: str, nodes: Sequence[Mapping[str, Any]]) -> Block:
    """Return steps and what they need, drawn in layers from left to right.

    Args:
        caption: What it shows.
        nodes: ``name``, ``needs``, ``state`` and ``note`` each, none before what it needs.
    """
    depth: dict[str, int] = {}
    rows: dict[int, int] = {}
    made, places = [], {}
    for node in nodes:
        known = [one for one in node["needs"] if one in depth]
        layer = 1 + max((depth[one] for one in known), default=-1)
        depth[node["name"]] = layer
        row = rows[layer] = rows.get(layer, -1) + 1
        places[node["name"]] = (layer, row)
        edges = [[*places[one], layer, row] for one in known]
        made.append({**node, "needs": list(node["needs"]), "x": layer, "y": row, "edges": edges})
    size = [max(rows, default=0) + 1, max(rows.values(), default=0) + 1]
    return {"kind": "graph", "caption": caption, "items": made, "size": size}


def plot(caption: str, spec: Mapping[str, Any], *, alt: str) -> Block:
    """Return a figure over a log scale as lines and marks that need no script.

    Args:
        caption: What it shows.
        spec: As ``report.figures.law`` makes it.
        alt: What is seen, in words.
    """
    x, y = (spec["layout"][axis] for axis in ("xaxis", "yaxis"))
    every = [one for trace in spec["data"] for one in trace["x"]]
    first, span = min(every), math.log(max(every) / min(every)) or 1.0
    low, high = y["range"]

    def across(value: float) -> float:
        return round(_WIDE * (0.03 + 0.94 * math.log(value / first) / span), 1)

    def down(value: float) -> float:
        return float(round(_HIGH * (high - value) / ((high - low) or 1.0), 1))

    lines, marks = [], []
    for trace in spec["data"]:
        pen = trace.get("line") or trace["marker"]
        ink = "base" if "dash" in pen else _INKS.get(pen["color"], "base")
        points = [(across(a), down(b)) for a, b in zip(trace["x"], trace["y"], strict=True)]
        if trace["mode"] == "markers":
            marks += [[*point, ink] for point in points]
            if reach := trace.get("error_y"):  # of its only point
                ends = (trace["y"][0] + reach["array"][0], trace["y"][0] - reach["arrayminus"][0])
                lines.append([" ".join(f"{points[0][0]},{down(one)}" for one in ends), ink])
        else:
            lines.append([" ".join(f"{a},{b}" for a, b in points), ink])
    return {
        "kind": "plot", "caption": caption, "alt": alt, "lines": lines, "marks": marks,
        "x": _apart([across(one) for one in x["tickvals"]], x["ticktext"]),
        "y": [[down(one), f"{one:.6g}"] for one in _ticks(low, high)],
        "names": [[down(one["y"]), html.unescape(one["text"])]
                  for one in spec["layout"]["annotations"]],
        "titles": [html.unescape(axis["title"]["text"]) for axis in (x, y)],
        "size": [_WIDE, _HIGH],
    }  # fmt: skip


def _apart(places: Sequence[float], texts: Sequence[str]) -> list[list[Any]]:
    kept: list[list[Any]] = []
    for place, words in zip(places, texts, strict=True):
        if not kept or place - kept[-1][0] >= _APART:
            kept.append([place, words])
    return kept


def _ticks(low: float, high: float) -> list[float]:
    """Return some round numbers of a range."""
    step = 10.0 ** math.floor(math.log10((high - low) or 1.0))
    step *= next(part for part in (0.1, 0.2, 0.5, 1.0) if (high - low) / (part * step) <= _TICKS)
    return [at * step for at in range(math.ceil(low / step), math.floor(high / step) + 1)]


def block_html(name: str, block: Block) -> str:
    """Return the HTML of one block; ``name`` is one of our own."""
    return str(_template().module.show(safe(block), name))


def page_html(title: str, blocks: Mapping[str, Block], *, note: str = "") -> str:
    """Return a panel as one element: no script, no request, legible in light and dark."""
    parts = [Markup(block_html(name, one)) for name, one in blocks.items()]  # noqa: S704 - made here
    return str(_template().module.page(title, parts, note, style()))


def changes(name: str, old: Block | None, new: Block) -> list[list[Any]] | str:
    """Return what to do to show the new block: path and text of each change, or its whole HTML."""
    if old is None or old["kind"] != new["kind"]:
        return block_html(name, new)
    found = list(_differences(safe(old), safe(new), ""))
    pattern = _PATCHED.get(new["kind"], "")
    if not all(path and re.fullmatch(pattern, path) for path, _ in found):
        return block_html(name, new)
    return [[f"{name}.{path}", value] for path, value in found]


def _differences(old: Any, new: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Give the paths of leaves that differ; an empty one where the shapes do."""
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        pairs: Iterable[tuple[Any, Any, Any]] = ((key, old[key], new[key]) for key in new)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = zip(range(len(new)), old, new, strict=True)
    else:
        if old != new:
            yield ("" if isinstance(new, dict | list) else path), new
        return
    for key, before, after in pairs:
        yield from _differences(before, after, f"{path}.{key}" if path else str(key))


@cache
def style() -> Markup:
    """Return the style sheet, for a style element."""
    return Markup((_FOLDER / "panel.css").read_text(encoding="utf-8"))  # noqa: S704 - our own file


@cache
def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("panel.html.j2")


def _finalize(value: Any) -> Any:
    return shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value
