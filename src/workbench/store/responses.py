"""Answers that were paid for, kept under the hash of all that decided about them."""

from __future__ import annotations

import json
import math
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Connection, Engine, bindparam, delete, event, insert, or_, select, text

from workbench.core.errors import StoreError
from workbench.store import schema
from workbench.store.ledger import execute_many
from workbench.store.records import now
from workbench.store.transaction import retried, transaction

__all__ = ["Responses", "StoredAnswer", "fresh_keys", "keep", "own_answers", "remove_expired"]


@dataclass(frozen=True, kw_only=True)
class StoredAnswer:
    """An answer that is kept."""

    key: str
    work: str
    """Of the work that bought it, which it may serve until a week after it expired."""
    namespace: str
    expires_at: float | None
    """Seconds since 1970; None for never."""
    answer: dict[str, Any]


_READ = "SELECT work, namespace, expires_at, answer FROM responses WHERE key = :key"
_COLUMNS = schema.responses.c
_DELETE = delete(schema.responses).where(
    _COLUMNS.key == bindparam("old_key"), _COLUMNS.work == bindparam("old_work")
)
_INSERT = insert(schema.responses)


def keep(connection: Connection, answers: Iterable[StoredAnswer]) -> None:
    """Keep answers inside a transaction of the caller's, instead of older ones of their works."""
    newest = {(answer.key, answer.work): answer for answer in answers}
    created_at = now()
    rows = [
        vars(one) | {"created_at": created_at, "answer": json.dumps(one.answer)}
        for one in newest.values()
    ]
    execute_many(connection, _DELETE, [{"old_key": key, "old_work": work} for key, work in newest])
    execute_many(connection, _INSERT, rows)


def fresh_keys(connection: Connection, keys: Iterable[str], *, at: float) -> set[str]:
    """Return those of the keys under which an answer is kept that has not expired."""
    is_fresh = or_(_COLUMNS.expires_at.is_(None), _COLUMNS.expires_at > at)
    query = select(_COLUMNS.key).where(_COLUMNS.key.in_(list(keys)), is_fresh)
    return set(connection.execute(query).scalars())


def own_answers(connection: Connection, keys: Iterable[str], *, at: float) -> set[tuple[str, str]]:
    """Return key and work of the answers under these keys; without a work, only fresh ones."""
    is_fresh = or_(_COLUMNS.work != "", _COLUMNS.expires_at.is_(None), _COLUMNS.expires_at > at)
    query = select(_COLUMNS.key, _COLUMNS.work).where(_COLUMNS.key.in_(list(keys)), is_fresh)
    return {(key, work) for key, work in connection.execute(query)}


def remove_expired(connection: Connection, *, before: float) -> None:
    """Remove the answers that expired before a moment, in seconds since 1970."""
    connection.execute(delete(schema.responses).where(_COLUMNS.expires_at < before))


def _rank(row: Sequence[Any], work: str) -> tuple[bool, float]:
    own_work, _, expires_at, _ = row
    is_own = bool(work) and own_work == work  # work without a name is nobody's own
    return is_own, math.inf if expires_at is None else expires_at


class Responses:
    """Reads answers: from SQLite on one connection of its own, ten times as fast as the engine.

    Safe to share among threads: they read one after the other.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._is_sqlite = engine.dialect.name == "sqlite"
        self._lock = threading.Lock()  # an older statement still open would hide newer commits
        self._connection: sqlite3.Connection | None = None
        event.listen(engine, "engine_disposed", self._close)

    def read(self, key: str, *, work: str = "") -> StoredAnswer | None:
        """Return the answer kept under a key, expired or not: the work's own, else the freshest.

        Raises:
            StoreError: If the database cannot be read.
        """
        found = self._rows(key)
        if not found:
            return None
        owner, namespace, expires_at, answer = max(found, key=lambda row: _rank(row, work))
        return StoredAnswer(
            key=key,
            work=owner,
            namespace=namespace,
            expires_at=expires_at,
            answer=json.loads(answer) if self._is_sqlite else answer,
        )

    @retried
    def _rows(self, key: str) -> Sequence[Any]:
        if not self._is_sqlite:
            with transaction(self._engine) as connection:
                return connection.execute(text(_READ), {"key": key}).all()
        try:
            with self._lock:
                return self._open().execute(_READ, {"key": key}).fetchall()
        except sqlite3.Error as error:
            raise StoreError(
                f"{self._engine.url!r}: {error}; mend that (free disk space, restore a damaged"
                " file) and run again, finished steps are kept"
            ) from error

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            pooled = self._engine.raw_connection()
            pooled.detach()
            self._connection = cast("sqlite3.Connection", pooled.dbapi_connection)
        return self._connection

    def _close(self, _engine: Engine) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
