"""Answers of publishers, kept for a while in one SQLite file that several processes share."""

from __future__ import annotations

import logging
import sqlite3
import time
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

__all__ = ["AnswerCache"]

_log = logging.getLogger(__name__)

_BUSY_S = 30.0
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, at REAL NOT NULL,"
    " until REAL NOT NULL, body BLOB NOT NULL)"
)


class AnswerCache:
    """Bodies by key. A cache that cannot be used is a cache that holds nothing, told once.

    Args:
        path: The file; expired rows are removed when it is opened.
        clock: Seconds since 1970.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._is_broken = False
        self._ask("DELETE FROM answers WHERE until <= ?", clock())

    def get(self, key: str) -> tuple[bytes, float] | None:
        """Return a body and when it was fetched, in seconds since 1970."""
        query = "SELECT body, at FROM answers WHERE key = ? AND until > ?"
        rows = self._ask(query, key, self._clock())
        try:
            return (zlib.decompress(rows[0][0]), float(rows[0][1])) if rows else None
        except (zlib.error, TypeError, ValueError):  # damaged, so not at hand
            return None

    def put(self, key: str, body: bytes, *, ttl_s: float) -> None:
        """Keep a body for so many seconds."""
        now = self._clock()
        row = (key, now, now + ttl_s, zlib.compress(body, 1))
        self._ask("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", *row)

    def _ask(self, query: str, *values: object) -> list[tuple[bytes, float]]:
        if self._is_broken:
            return []
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # One connection per question: no state to share between threads and forks.
            with closing(sqlite3.connect(self._path, timeout=_BUSY_S)) as connection, connection:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=NORMAL")
                connection.execute(_SCHEMA)
                return connection.execute(query, values).fetchall()
        except (sqlite3.Error, OSError) as error:
            self._is_broken = True
            _log.warning(
                "%s: no cache of answers (%s); remove the file, publishers are asked anew",
                self._path.name, error,
            )  # fmt: skip
            return []
