"""What pages are made of; the template knows how each kind looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from markupsafe import Markup

from workbench.report.tables import Cell, Table

__all__ = [
    "Block", "Card", "Cards", "Fact", "Facts", "Figure", "Finding", "Grid", "GridCell", "Html",
    "Page", "Passages", "Section", "Sortable", "Text",
]  # fmt: skip

_MAX_PASSAGES = 40
_MAX_CHARACTERS = 1500


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A Plotly figure as plain JSON, its words, and its numbers for those who cannot see it."""

    kind = "figure"
    name: str
    title: str
    """What the figure shows, as a finding where it has one."""
    spec: Mapping[str, Any]
    """``data`` and ``layout``."""
    summary: str
    """How to read it."""
    footer: str
    """Where the numbers come from."""
    keys: tuple[tuple[str, str], ...] = ()
    """Legend: label and name of a color of the theme."""
    numbers: Table | None = None
    """Shown when asked for."""


@dataclass(frozen=True)
class Text:
    """A paragraph; a note is one that the reader must not miss."""

    kind = "text"
    text: str
    is_note: bool = False


@dataclass(frozen=True)
class Fact:
    """A large number."""

    label: str
    value: Cell
    note: str
    strip: tuple[float, ...] = ()
    """Low, value, high and what they are compared with, in [0, 1]: drawn as a small line."""


@dataclass(frozen=True)
class Facts:
    """Large numbers beside each other within a page."""

    kind = "facts"
    facts: tuple[Fact, ...]


class GridCell(NamedTuple):
    """A cell of a grid: what is seen, what is said of it, and its tone of the theme."""

    shown: str
    told: str
    tone: str = ""
    note: str = ""
    """Below what is shown, smaller."""
    is_marked: bool = False


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A heat map that is a table: read without color, without script and by ear."""

    kind = "grid"
    name: str
    title: str
    summary: str
    corner: str
    """What the rows are, and what the columns."""
    columns: tuple[tuple[str, str], ...]
    """Head and its smaller second line."""
    rows: tuple[tuple[str, str, tuple[GridCell, ...]], ...]
    """Head, its smaller second line, cells."""
    keys: tuple[tuple[str, str], ...] = ()
    """Legend: label and tone."""
    footer: str = ""


class Card(NamedTuple):
    """One thing at length."""

    mark: Cell
    heading: str
    detail: str
    facts: tuple[tuple[str, str], ...]
    points: tuple[str, ...]
    text: str
    by: str
    """Who wrote the text."""


@dataclass(frozen=True, kw_only=True)
class Cards:
    """Things at length, the later ones shown when asked for."""

    kind = "cards"
    cards: tuple[Card, ...]
    folded: tuple[Card, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Sortable:
    """A table that a script of the page sorts and filters; without script it is a table."""

    kind = "sortable"
    table: Table
    keys: tuple[tuple[str | float, ...], ...]
    """What each cell is sorted by; numbers largest first."""
    hint: str
    """What one might filter by."""
    look: str = ""
    """``wide`` gives room to long texts."""


class Finding(NamedTuple):
    """What a page found: one line, and the sentences that prove it."""

    claim: str
    proof: str


@dataclass(frozen=True, kw_only=True)
class Passages:
    """Examples as text: labels, then named texts, e.g. what was sent and what came back."""

    kind = "passages"
    passages: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], *, texts: Sequence[str]) -> Passages:
        """Return 40 records at most as passages: some keys are long texts, the others labels."""
        made = []
        for row in rows[:_MAX_PASSAGES]:
            labels = [str(value) for key, value in row.items() if key not in texts and value]
            parts = tuple((name, _cut(str(row[name]))) for name in texts if row.get(name))
            made.append((" · ".join(labels), parts))
        return cls(passages=tuple(made))


@dataclass(frozen=True)
class Html:
    """Markup that was made or sanitized by ourselves."""

    kind = "html"
    html: Markup


Block = Figure | Table | Text | Passages | Facts | Grid | Cards | Sortable | Html


class Section(NamedTuple):
    """Blocks under a heading; without any, it is not shown."""

    heading: str
    blocks: Sequence[Block]


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page, or a chapter of the single file."""

    name: str
    """Stem of its file and its anchor."""
    finding: Finding | None = None
    notes: Sequence[Text] = ()
    facts: Sequence[Fact] = ()
    """Also on the first page."""
    sections: Sequence[Section] = ()
    called: str = ""
    """Its name for people, where it is not that of its file."""

    @property
    def title(self) -> str:
        """Its name for people."""
        return self.called or ("Story" if self.name == "index" else self.name.capitalize())

    @property
    def figures(self) -> list[Figure]:
        """Figures in the order of the page."""
        return [block for block in self._blocks() if isinstance(block, Figure)]

    @property
    def is_sortable(self) -> bool:
        """Whether any of its tables is sorted by the script."""
        return any(isinstance(block, Sortable) for block in self._blocks())

    def _blocks(self) -> list[Block]:
        return [block for section in self.sections for block in section.blocks]


def _cut(text: str) -> str:
    rest = len(text) - _MAX_CHARACTERS
    return text if rest <= 0 else f"{text[:_MAX_CHARACTERS]} … ({rest:,} more characters)"
