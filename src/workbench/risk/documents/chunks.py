"""Documents cut into passages of some 180 words that overlap, within their sections."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from workbench.core.plain import one_line
from workbench.risk.documents.records import Block, Chunk

__all__ = ["CHUNKING", "OVERLAP_WORDS", "WORDS", "chunks_of", "clean"]

CHUNKING = "chunks.1"
"""Name of the way of cutting: documents cut another way are read again."""
WORDS = 180
"""Of a passage at most; some 250 tokens, one window of MiniLM."""
OVERLAP_WORDS = 30
"""That a passage repeats of the one before it in the same section."""

_SEARCHED_FOR_END = 60  # words before the limit among which an end of paragraph or sentence counts
_HEADING_CHARS = 120
# Scripts without spaces count by character, or a passage would hold pages; so do endless "words".
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]\s*"
                   r"|[^\s\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]{1,40}\s*")  # fmt: skip
_SENTENCE_END = re.compile(r"[.!?…。！？][\"')\]]*\s+$")


class _Word(NamedTuple):
    text: str
    """With the space after it."""
    page: int | None
    ends: int
    """2: a paragraph ends here; 1: a sentence; 0: neither."""


def clean(text: str) -> str:
    """Return a text without codes and invisible characters; lines stay, runs of space do not."""
    lines = text.replace("\u00ad", "").splitlines()
    return "\n".join(filter(None, map(one_line, lines)))


def chunks_of(blocks: Iterable[Block]) -> tuple[Chunk, ...]:
    """Return the passages of a document in their order; headings become their sections."""
    placed = _placed(blocks)
    found: list[Chunk] = []
    for (_, section), group in groupby(placed, key=lambda pair: pair[0]):
        words = [word for _, block in group for word in _words(block)]
        found += _cut(words, section=section)
    return tuple(found)


def _placed(blocks: Iterable[Block]) -> Iterator[tuple[tuple[int, str], Block]]:
    """Give each block of body text with the number and the headings of its section."""
    path: list[tuple[int, str]] = []
    number = 0
    for block in blocks:
        text = clean(block.text)
        if not text:
            continue
        if block.heading:
            number += 1
            path = [one for one in path if one[0] < block.heading]
            path.append((block.heading, one_line(text)[:_HEADING_CHARS]))
        else:
            section = " > ".join(heading for _, heading in path)
            yield (number, section), Block(text, page=block.page)


def _words(block: Block) -> Iterator[_Word]:
    pieces = _WORD.findall(block.text)
    for position, piece in enumerate(pieces, start=1):
        if position == len(pieces):
            yield _Word(piece.rstrip() + "\n", block.page, 2)
        else:
            yield _Word(piece, block.page, int(_SENTENCE_END.search(piece) is not None))


def _cut(words: Sequence[_Word], *, section: str) -> Iterator[Chunk]:
    start = 0
    while start < len(words):
        end = _end(words, start)
        text = "".join(word.text for word in words[start:end]).strip()
        yield Chunk(section=section, page=words[start].page, text=text)
        start = len(words) if end == len(words) else end - OVERLAP_WORDS


def _end(words: Sequence[_Word], start: int) -> int:
    """Return where the passage from ``start`` ends best: at a paragraph, a sentence, or anywhere.

    It is always far enough from the start for the next passage to begin later.
    """
    limit = start + WORDS
    if limit >= len(words):
        return len(words)
    near = range(limit, limit - _SEARCHED_FOR_END, -1)
    return max(near, key=lambda end: (words[end - 1].ends, end))
