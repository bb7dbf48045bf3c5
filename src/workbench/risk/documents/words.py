"""The words of a query, and which of them are worth searching for."""

from __future__ import annotations

import re
import sqlite3
import unicodedata

__all__ = ["match_expression", "query_words"]

_WORD = re.compile(r"[^\W_]+")
_MAX_WORDS = 64
_MAX_CHARS = 40
_MATCHED_WORDS = 32
_MATCHED_ROWS = 20_000
"""That the words of a query may match together: what can be searched in time."""
# Counted no further than it matters.
_COUNT = "SELECT count(*) FROM (SELECT 1 FROM words WHERE words MATCH ? LIMIT ?)"


def query_words(query: str) -> list[str]:
    """Return the distinct words of a query in lower case, the first 64, without any syntax."""
    words = _WORD.findall(unicodedata.normalize("NFC", query).lower())
    return list(dict.fromkeys(word[:_MAX_CHARS] for word in words))[:_MAX_WORDS]


def match_expression(
    connection: sqlite3.Connection, query: str, frequencies: dict[str, int]
) -> str:
    """Return the rare words of a query as an expression of FTS5; empty where none occurs.

    BM25 gives a word that is in a fifth of all chunks next to nothing, and the time goes there.

    Args:
        connection: To a database with a full-text table ``words``.
        query: Any text; what it holds of FTS5's syntax means nothing.
        frequencies: Word → chunks with it, as far as they were counted; what is counted is added.
    """
    words = query_words(query)
    for word in words:
        if word not in frequencies:
            found = connection.execute(_COUNT, (f'"{word}"', _MATCHED_ROWS)).fetchone()
            frequencies[word] = found[0]
    chosen: list[str] = []
    total = 0
    for word in sorted(filter(frequencies.get, words), key=lambda word: frequencies[word]):
        total += frequencies[word]
        if chosen and (total > _MATCHED_ROWS or len(chosen) == _MATCHED_WORDS):
            break
        chosen.append(word)
    return " OR ".join(f'"{word}"' for word in chosen)
