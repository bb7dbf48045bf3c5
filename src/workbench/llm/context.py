"""Only the most relevant documents, within a budget of tokens."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence

from workbench.core.errors import InputError

__all__ = ["Ranker", "fit", "lexical", "safe_tokens"]

Ranker = Callable[[str, Sequence[str]], Sequence[float]]
"""Gives the relevance of each document to a query, more is better."""

_WORD = re.compile(r"\w+")
_SENTENCE_END = re.compile(r"[.!?…][\"')\]]*(?=\s)|[。！？]|\n+|\Z")
_K1, _B = 1.2, 0.75


def safe_tokens(text: str) -> int:
    """Return more tokens than a prose text has: its UTF-8 bytes / 3, rounded up.

    English has about 4 bytes per token; code or rare scripts may need a counter of their own.
    """
    return -(-len(text.encode("utf-8", "surrogatepass")) // 3)


def fit(
    documents: Sequence[str],
    *,
    query: str,
    max_tokens: int,
    ranker: Ranker | None = None,
    count: Callable[[str], int] = safe_tokens,
) -> list[str]:
    """Return the most relevant documents that fit into a budget, the most relevant one first.

    A document that does not fit is passed over. If none fits, the most relevant one that can be
    is cut after as many of its sentences as do.

    Args:
        documents: What there is to choose from; the earlier of two equally relevant ones wins.
        query: What the documents should be about.
        max_tokens: Budget of tokens, >= 1.
        ranker: Gives the relevance; :func:`lexical` if not given.
        count: Tokens of a text, rather too many than too few.

    Raises:
        InputError: If ``max_tokens`` < 1.
    """
    if max_tokens < 1:
        raise InputError(f"max_tokens={max_tokens}: must be >= 1; to keep all, leave fit out")
    scores = (ranker or lexical)(query, documents)
    ranked = [documents[i] for i in sorted(range(len(documents)), key=lambda i: -scores[i])]
    chosen, left = [], max_tokens
    for document in ranked:
        if (tokens := count(document)) <= left:
            chosen.append(document)
            left -= tokens
    if chosen:
        return chosen
    cuts = (_cut(document, max_tokens=max_tokens, count=count) for document in ranked)
    return [first] if (first := next(filter(None, cuts), "")) else []


def lexical(query: str, documents: Sequence[str]) -> list[float]:
    """Return each document's BM25 score.

    Source:
        Robertson & Zaragoza 2009, doi:10.1561/1500000019, eq. 3.15, with Lucene's idf, never < 0.
    """
    terms = set(_WORD.findall(query.lower()))
    lengths, counts = [], []
    for document in documents:
        words = _WORD.findall(document.lower())
        lengths.append(len(words))
        counts.append(Counter([word for word in words if word in terms]))
    having = Counter(term for found in counts for term in found)
    idf = {term: math.log1p((len(counts) - n + 0.5) / (n + 0.5)) for term, n in having.items()}
    per_length = _B * len(lengths) / max(sum(lengths), 1)
    scores = []
    for length, found in zip(lengths, counts, strict=True):
        norm = _K1 * (1 - _B + per_length * length)
        scores.append(sum(idf[term] * n * (_K1 + 1) / (n + norm) for term, n in found.items()))
    return scores


def _cut(text: str, *, max_tokens: int, count: Callable[[str], int]) -> str:
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    fitting = bisect_right(ends, max_tokens, key=lambda end: count(text[:end].rstrip()))
    return text[: ends[fitting - 1]].strip() if fitting else ""
