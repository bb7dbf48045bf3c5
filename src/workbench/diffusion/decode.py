"""From vectors back to text: the prompt's own spans, and a gallery of clean texts.

Nothing is written: an output is always a piece of the prompt or a known clean text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from workbench.core.errors import DataError
from workbench.embedding.encoder import Encoder, FloatArray

__all__ = ["Candidate", "Gallery", "decode", "spans"]

_QUOTED = re.compile(r"\"([^\"]{8,600})\"|“([^”]{8,600})”|«([^»]{8,600})»|`([^`]{8,600})`")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"”’)]*\s+|\n+")
_CLAUSE_END = re.compile(r"[;:]\s+|\s[–—-]\s|,\s+")
_MIN_SPAN_WORDS = 3
_NOVELTY = 0.6
_KEPT = 3
_MAX_TEXT_CHARS = 20_000  # hostile prompts may be huge; what a person asks for is near an end


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A text that could stand for an output vector."""

    text: str
    origin: Literal["span", "gallery"]
    """Whether it is a piece of the prompt or a known clean text."""
    cosine: float
    """To the output vector."""
    score: float
    """What candidates are ranked by; see :func:`decode`."""


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Known clean texts and their vectors."""

    texts: tuple[str, ...]
    vectors: FloatArray
    """Unit rows, ``(len(texts), dim)``."""

    def __post_init__(self) -> None:
        if len(self.texts) != len(self.vectors):
            raise DataError(f"gallery has {len(self.texts)} texts, {len(self.vectors)} vectors")


def spans(text: str, *, limit: int = 24) -> list[str]:
    """Return pieces of a prompt that could be its request, without repeats.

    Quoted parts come first, then the last line, then sentences from both ends, then clauses: a
    limit drops the least likely, since each costs an encoding.
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
    vectors: FloatArray,
    outputs: FloatArray,
    *,
    encoder: Encoder,
    gallery: Gallery,
) -> list[list[Candidate]]:
    """Return the three texts that fit each output vector best, best first.

    Ranked by the cosine to the output less 0.6 of the cosine to the prompt: the nearest text
    alone is mostly a long piece of the wrapper, since the output is still near the prompt. The
    weight was chosen among 0 to 1 on validation at gain 1 (mean cosine to the clean reference
    .58, against .52 without it; the inner benign request is found whole in 41 %, against 11 %).

    Args:
        prompts: Prompts whose spans are candidates, ``n`` of them; all are encoded in one call.
        vectors: Unit rows of the prompts, ``(n, dim)``.
        outputs: Unit rows that the model wants, ``(n, dim)``.
        encoder: Encodes the spans.
        gallery: Candidates of every prompt.

    Raises:
        DataError: If a prompt has no candidates at all (an empty gallery and no spans).
    """
    own = [spans(prompt) for prompt in prompts]
    texts = list(dict.fromkeys(piece for pieces in own for piece in pieces))
    rows = {text: index for index, text in enumerate(texts)}
    encoded = encoder.encode(texts) if texts else np.empty((0, outputs.shape[1]), np.float32)
    results = []
    for pieces, vector, output in zip(own, vectors, outputs, strict=True):
        known = [*pieces, *gallery.texts]
        if not known:
            raise DataError("nothing to decode to: no text in the gallery, no span in the prompt")
        sides = (encoded[[rows[piece] for piece in pieces]], gallery.vectors)
        cosines = np.concatenate([side @ output for side in sides])
        scores = cosines - _NOVELTY * np.concatenate([side @ vector for side in sides])
        results.append(
            [
                Candidate(
                    text=known[index],
                    origin="span" if index < len(pieces) else "gallery",
                    cosine=float(cosines[index]),
                    score=float(scores[index]),
                )
                for index in np.argsort(-scores, kind="stable")[:_KEPT].tolist()
            ]
        )
    return results


def _from_both_ends(pieces: list[str]) -> list[str]:
    """Return last, first, second to last, second, and so on: requests sit near the ends."""
    pairs = zip(reversed(pieces), pieces, strict=True)
    return [piece for pair in pairs for piece in pair][: len(pieces)]
