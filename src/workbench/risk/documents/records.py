"""What reading, keeping and finding documents hand each other."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from workbench.core.errors import ConfigError
from workbench.core.identity import text_id

if TYPE_CHECKING:
    from workbench.embedding.encoder import FloatArray  # not in the processes that read files

__all__ = [
    "FIELDS", "RRF_K", "Block", "Chunk", "Document", "Hit", "Index", "Vectors", "Where",
    "conditions", "depth_of", "fuse", "is_date",
]  # fmt: skip

FIELDS = ("file", "kind", "asset", "date", "tags", "since", "until")
"""What a search may ask of a file; ``since`` and ``until`` bound the date, both included."""
RRF_K = 60
"""Constant of reciprocal-rank fusion that its authors recommend."""

_ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)

Where = Mapping[str, str | Sequence[str]]
"""Field → value, or values of which one must fit; all fields must."""


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, heading or table row as a reader finds it."""

    text: str
    heading: int = 0
    """Level of a heading from 1; 0 is body text."""
    page: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A passage that is found as one."""

    section: str
    """Headings above it, outermost first."""
    page: int | None
    """Where it begins, from 1; None where the format has no pages."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A file that was read and cut."""

    file: str
    """Name of its folder and place in that: what the index knows it by."""
    sha256: str
    kind: str
    """``pdf``, ``docx``, ``xlsx``, ``markdown`` or ``text``."""
    title: str
    date: str = ""
    """ISO date that the document itself, or who handed it in, says; may be empty."""
    asset: str = ""
    tags: tuple[str, ...] = ()
    chunks: tuple[Chunk, ...]

    def embedded_texts(self) -> list[str]:
        """Return what is encoded of each chunk: the passage below its title and section."""
        return [
            "\n".join(filter(None, (self.title, chunk.section, chunk.text)))
            for chunk in self.chunks
        ]


@dataclass(frozen=True, slots=True)
class Vectors:
    """What an encoder says of the chunks of a document."""

    rows: FloatArray
    """``(chunks, dim)``, of length 1."""
    encoder_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A passage that was found."""

    text: str
    file: str
    title: str
    section: str
    page: int | None
    score: float
    """Of the fusion: comparable within one search only."""
    word_rank: int | None
    """Place by BM25 from 1; None where it was not among the first of that list."""
    vector_rank: int | None
    """Place by cosine; likewise."""
    note: str = ""
    """Why only words were searched; empty where vectors were, too."""

    @property
    def id(self) -> str:
        """Hex sha256 of file, section and text: the same in every index."""
        return text_id(self.file, self.section, self.text)

    @property
    def place(self) -> str:
        """Where it stands, for people: file, page and section."""
        page = f"p. {self.page}" if self.page else ""
        return ", ".join(filter(None, (self.file, page, self.section)))


class Index(Protocol):
    """Where chunks are kept and searched."""

    @property
    def encoder_id(self) -> str:
        """Encoder of the vectors that it holds; empty while it holds none."""

    def known(self) -> Mapping[str, str]:
        """Return file → fingerprint of all that is in, complete."""

    def add(self, document: Document, *, fingerprint: str, vectors: Vectors | None) -> None:
        """Put a document in place of what was there of its file.

        Raises:
            ConfigError: If the vectors are of another encoder than those in the index.
        """

    def remove(self, file: str) -> bool:
        """Take a file out; returns whether it was in."""

    def search(
        self, query: str, vector: FloatArray | None, *, top: int, where: Where | None = None
    ) -> list[Hit]:
        """Return the best chunks, best first; without a vector by words alone."""

    def count(self) -> int:
        """Return the number of chunks."""


def conditions(where: Where | None) -> list[tuple[str, tuple[str, ...]]]:
    """Return the fields of a filter, each with at least one value.

    Raises:
        ConfigError: If a field is unknown, a value is no text, or a bound is no ISO date.
    """
    checked = []
    for field, value in (where or {}).items():
        if field not in FIELDS:
            known = ", ".join(FIELDS)
            raise ConfigError(f"where: no field {field!r} in a document; use one of {known}")
        values = (value,) if isinstance(value, str) else tuple(value)
        if not values or not all(isinstance(one, str) for one in values):
            raise ConfigError(f"where: {field}={value!r}; give a text, or a list of texts")
        if field in {"since", "until"} and not (len(values) == 1 and is_date(values[0])):
            raise ConfigError(f"where: {field}={value!r}; give one date as 2026-01-31")
        checked.append((field, values))
    return checked


def depth_of(top: int) -> int:
    """Return how many of each ranking are fused, so that what both know can win."""
    return max(50, 4 * top)


def fuse(rankings: Iterable[Sequence[int]], *, top: int) -> list[tuple[int, float]]:
    """Return keys and scores by reciprocal-rank fusion, best first; ties by key.

    Source:
        Cormack, Clarke & Büttcher 2009, doi:10.1145/1571941.1572114.
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, key in enumerate(ranking, start=1):
            scores[key] = scores.get(key, 0.0) + 1 / (RRF_K + rank)
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:top]


def is_date(text: str) -> bool:
    """Return whether a text has the form of an ISO date; as texts such dates sort by time."""
    return _ISO_DATE.fullmatch(text) is not None
