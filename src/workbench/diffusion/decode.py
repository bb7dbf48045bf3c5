"""From vectors back to text: the prompt's own spans, and a gallery of clean texts.

Nothing is written: an output is always a piece of the prompt or a known clean text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from workbench.core.errors import DataError
from workbench.embedding.encoder import Encoder

__all__ = ["Candidate", "Gallery", "decode", "spans"]

Vectors = npt.NDArray[np.float32]

_QUOTED = re.compile(r"\"([^\"]{8,600})\"|“([^”]{8,600})”|«([^»]{8,600})»|`([^`]{8,600})`")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"”’)]*\s+|\n+")
_CLAUSE_END = re.compile(r"[;:]\s+|\s[–—-]\s|,\s+")
_MIN_SPAN_WORDS = 3
_MAX_TEXT_CHARS = 20_000  # hostile prompts may be huge; what a person asks for is near an end


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A text that could stand for an output vector."""

    text: str
    origin: Literal["span", "gallery"]
    """Whether it is a piece of the prompt or a known clean text."""
    cosine: float
    """To the output vector."""


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Known clean texts and their vectors."""

    texts: tuple[str, ...]
    vectors: Vectors
    """Unit rows, ``(len(texts), dim)``."""

    def __post_init__(self) -> None:
        """Check the sizes.

        Raises:
            DataError: If there is not one vector per text.
        """
        if len(self.texts) != len(self.vectors):
            raise DataError(f"gallery has {len(self.texts)} texts, {len(self.vectors)} vectors")


def spans(text: str, *, limit: int = 24) -> list[str]:
    """Return pieces of a prompt that could be its request, without repeats.

    Quoted parts come first, then the last line, then sentences from both ends, then clauses:
    a limit drops the least likely.

    Args:
        text: A prompt, of any length.
        limit: Most pieces to return; each costs an encoding.
    """
    if len(text) > _MAX_TEXT_CHARS:
        half = _MAX_TEXT_CHARS // 2
        text = text[:half] + "\n" + text[-half:]
    quoted = [next(part for part in match if part) for match in _QUOTED.findall(text)]
    lines = [line for line in text.splitlines() if line.strip()]
    sentences = _from_both_ends(_SENTENCE_END.split(text))
    clauses = [part for one in sentences for part in _CLAUSE_END.split(one) if part != one]
    found: dict[str, None] = {}
    for piece in [*quoted, *lines[-1:], *sentences, *clauses]:
        cleaned = piece.strip().strip('"“”«»`').strip()
        if len(cleaned.split()) >= _MIN_SPAN_WORDS and cleaned != text.strip():
            found[cleaned] = None
        if len(found) == limit:
            break
    return list(found)


def decode(
    prompts: Sequence[str],
    outputs: Vectors,
    *,
    encoder: Encoder,
    gallery: Gallery,
    keep: int = 3,
    span_limit: int = 24,
) -> list[list[Candidate]]:
    """Return the texts nearest to each output vector, nearest first.

    The spans of all prompts are encoded in one call.

    Args:
        prompts: Prompts whose spans are candidates, ``n`` of them.
        outputs: Unit rows, ``(n, dim)``.
        encoder: Encodes the spans.
        gallery: Candidates of every prompt.
        keep: Most candidates per prompt.
        span_limit: Most spans per prompt.

    Raises:
        DataError: If a prompt has no candidates at all (an empty gallery and no spans).
    """
    own = [spans(prompt, limit=span_limit) for prompt in prompts]
    texts = list(dict.fromkeys(piece for pieces in own for piece in pieces))
    rows = {text: index for index, text in enumerate(texts)}
    encoded = encoder.encode(texts) if texts else np.empty((0, outputs.shape[1]), np.float32)
    to_gallery = outputs @ gallery.vectors.T
    results = []
    for pieces, output, gallery_cosines in zip(own, outputs, to_gallery, strict=True):
        span_cosines = encoded[[rows[piece] for piece in pieces]] @ output
        candidates = [
            Candidate(text=piece, origin="span", cosine=float(cosine))
            for piece, cosine in zip(pieces, span_cosines, strict=True)
        ] + [
            Candidate(
                text=gallery.texts[index], origin="gallery", cosine=float(gallery_cosines[index])
            )
            for index in np.argsort(-gallery_cosines, kind="stable")[:keep]
        ]
        if not candidates:
            raise DataError(
                "nothing to decode to: the gallery is empty and the prompt has no spans"
            )
        results.append(sorted(candidates, key=lambda one: -one.cosine)[:keep])
    return results


def _from_both_ends(pieces: list[str]) -> list[str]:
    """Return last, first, second to last, second, and so on: requests sit near the ends."""
    order = []
    low, high = 0, len(pieces) - 1
    while low <= high:
        order.append(pieces[high])
        if low < high:
            order.append(pieces[low])
        low, high = low + 1, high - 1
    return order
