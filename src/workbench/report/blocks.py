"""What pages are made of; the template knows how each kind looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workbench.report.tables import Table

__all__ = [
    "Block",
    "Fact",
    "Facts",
    "Figure",
    "Key",
    "Note",
    "Page",
    "Passage",
    "Passages",
    "Section",
    "Text",
]

_MAX_PASSAGES = 40
_MAX_CHARACTERS = 1500


@dataclass(frozen=True, kw_only=True)
class Key:
    """One entry of a figure's legend."""

    label: str
    color: str
    """Name of a color of the theme."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A Plotly figure as plain JSON, its words, and its numbers for those who cannot see it."""

    kind = "figure"
    name: str
    title: str
    spec: Mapping[str, Any]
    """``data`` and ``layout``."""
    summary: str
    """What the figure shows, in words."""
    footer: str
    """Where the numbers come from."""
    keys: tuple[Key, ...] = ()
    numbers: Table | None = None


@dataclass(frozen=True, kw_only=True)
class Text:
    """A paragraph."""

    kind = "text"
    text: str
    is_lead: bool = False


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something the reader must not miss: what is absent, failed, or not comparable."""

    kind = "note"
    text: str


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One of the large numbers of the first page."""

    label: str
    value: str
    interval: str = ""
    note: str = ""
    strip: tuple[float, float, float] | None = None
    """Low, value, high in [0, 1], drawn as a small line."""
    reference: float | None = None
    """What the strip is compared with, in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Large numbers side by side."""

    kind = "facts"
    facts: tuple[Fact, ...]


@dataclass(frozen=True, kw_only=True)
class Passage:
    """Texts that belong together, e.g. what was sent and what came back."""

    labels: str
    parts: tuple[tuple[str, str], ...]
    """Name and text."""


@dataclass(frozen=True, kw_only=True)
class Passages:
    """Examples, as text."""

    kind = "passages"
    passages: tuple[Passage, ...]

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, str]], *, texts: Sequence[str]) -> Passages:
        """Return records as passages: some keys are long texts, the others labels.

        At most 40 are kept, and 1,500 characters of each text.
        """
        return cls(
            passages=tuple(
                Passage(
                    labels=" · ".join(
                        str(value) for key, value in row.items() if key not in texts and value
                    ),
                    parts=tuple((name, _cut(str(row[name]))) for name in texts if row.get(name)),
                )
                for row in rows[:_MAX_PASSAGES]
            )
        )


Block = Figure | Table | Text | Note | Facts | Passages


@dataclass(frozen=True, kw_only=True)
class Section:
    """Blocks under a heading."""

    heading: str
    blocks: Sequence[Block]


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page, or a chapter of the single file."""

    name: str
    """Stem of its file and its anchor."""
    title: str
    blocks: Sequence[Block] = ()
    """Above the first heading."""
    sections: Sequence[Section] = field(default_factory=tuple)

    @property
    def figures(self) -> list[Figure]:
        """Figures in the order of the page."""
        blocks = [*self.blocks, *(block for section in self.sections for block in section.blocks)]
        return [block for block in blocks if isinstance(block, Figure)]


def _cut(text: str) -> str:
    rest = len(text) - _MAX_CHARACTERS
    return text if rest <= 0 else f"{text[:_MAX_CHARACTERS]} … ({rest:,} more characters)"
