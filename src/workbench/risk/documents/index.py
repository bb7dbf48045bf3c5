"""Chunks in one SQLite file with a full-text index, and their vectors in a file beside it.

The database decides what is there: rows of the file of vectors that it does not name are free, and
are written before the transaction that names them ends. So a kill leaves a document whole, old or
new. Writers of several processes take turns; readers see what was committed.

Both searches are exact: BM25 by FTS5 and cosine by one product with the mapped vectors, 1.5 kB a
chunk. Only words so frequent that they would cost more than they tell are left out.
"""

from __future__ import annotations

import json
import re
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock

from workbench.core.errors import ConfigError, StoreError
from workbench.embedding.encoder import FloatArray
from workbench.risk.documents.matrix import Matrix, map_vectors, write_vectors
from workbench.risk.documents.records import (
    Document,
    Hit,
    Vectors,
    Where,
    conditions,
    depth_of,
    fuse,
)
from workbench.risk.documents.words import match_expression
from workbench.store.artifacts import clear_disk_errors
from workbench.store.database import Store

__all__ = ["DocumentIndex", "check_name", "open_index"]

FORMAT = 1
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)
_DATABASE = "index.sqlite"
_BUSY_S = 60.0
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
INSERT INTO meta VALUES ('generation', 0), ('rows', 0), ('encoder', ''), ('dim', 0);
CREATE TABLE files (
    id INTEGER PRIMARY KEY, file TEXT UNIQUE NOT NULL, fingerprint TEXT NOT NULL,
    sha256 TEXT NOT NULL, kind TEXT NOT NULL, title TEXT NOT NULL, asset TEXT NOT NULL,
    date TEXT NOT NULL, tags TEXT NOT NULL, has_vectors INTEGER NOT NULL
);
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY, file INTEGER NOT NULL, section TEXT NOT NULL, page INTEGER
);
CREATE INDEX chunks_of_file ON chunks (file);
CREATE TABLE free (id INTEGER PRIMARY KEY);
CREATE VIRTUAL TABLE words USING fts5 (
    text, heading, tokenize = 'porter unicode61 remove_diacritics 2'
);
PRAGMA user_version = 1;
"""
_INSERT_FILE = (
    "INSERT INTO files (file, fingerprint, sha256, kind, title, asset, date, tags, has_vectors)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_HIT = (
    "SELECT words.text, files.file, files.title, chunks.section, chunks.page FROM chunks"
    " JOIN files ON files.id = chunks.file JOIN words ON words.rowid = chunks.id"
    " WHERE chunks.id = ?"
)
_BY_WORDS = (
    "SELECT rowid FROM words WHERE words MATCH ? ORDER BY bm25(words, 1.0, 2.0), rowid LIMIT ?"
)
# Cross joins keep their order; the function of the rank is asked of rows that pass only.
_BY_WORDS_WHERE = (
    "SELECT words.rowid FROM words CROSS JOIN chunks ON chunks.id = words.rowid"
    " WHERE words MATCH ? AND chunks.file IN (SELECT id FROM files WHERE {condition})"
    " ORDER BY bm25(words, 1.0, 2.0), words.rowid LIMIT ?"
)
_ANY = "{field} IN ({marks})"
_CONDITIONS = {
    "tags": "EXISTS (SELECT 1 FROM json_each(files.tags) WHERE value IN ({marks}))",
    "since": "date >= ?",
    "until": "date != '' AND date <= ?",
}


class _Snapshot(NamedTuple):
    """What one generation of the index looks like; read once."""

    generation: int
    vectors: Matrix
    frequencies: dict[str, int]
    """Word → chunks that it matches, as far as they were counted."""


def open_index(store: Store, name: str = "default", *, must_exist: bool = False) -> DocumentIndex:
    """Return the index of that name in the store's home; makes it at the first use.

    Args:
        store: Where its home is.
        name: Its name.
        must_exist: Refuse one that is not there instead.

    Raises:
        ConfigError: If the name is no simple one, or there must be such an index and is none.
        StoreError: If it cannot be read or is of a newer version.
    """
    folder = store.home / "risk" / "documents" / check_name(name)
    if must_exist and not (folder / _DATABASE).exists():
        raise ConfigError(f"no index of documents {name!r}; run `workbench risk documents add`")
    return DocumentIndex(folder)


def check_name(name: str) -> str:
    """Return the name of an index, which is a folder's.

    Raises:
        ConfigError: If it could mean something else in a path.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"index {name!r}: use at most 64 of a-z, 0-9, _ and -, a letter first")
    return name


class DocumentIndex:
    """The default index; safe to share among threads, which read one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._database = folder / _DATABASE
        self._vectors = folder / "vectors.f32"
        self._lock = threading.RLock()
        self._cached: _Snapshot | None = None
        with clear_disk_errors(folder), _clear_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                self._database, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
            self._prepare()

    def close(self) -> None:
        """Close the database; what was added stays."""
        self._connection.close()

    @property
    def encoder_id(self) -> str:
        """Encoder of the vectors; empty while there are none."""
        with self._transaction("DEFERRED") as connection:
            return str(_meta(connection, "encoder"))

    def known(self) -> Mapping[str, str]:
        """Return file → fingerprint."""
        with self._transaction("DEFERRED") as connection:
            return dict(connection.execute("SELECT file, fingerprint FROM files"))

    def count(self) -> int:
        """Return the number of chunks."""
        with self._transaction("DEFERRED") as connection:
            return int(connection.execute("SELECT count(*) FROM chunks").fetchone()[0])

    def add(self, document: Document, *, fingerprint: str, vectors: Vectors | None) -> None:
        """Put a document in place of what was there of its file, all of it or nothing.

        Raises:
            ConfigError: If the vectors are of another encoder than those in the index, or not
                finite, or not one for each chunk.
            StoreError: If the disk is full, or the index cannot be written.
        """
        chunks = document.chunks
        tags = json.dumps(document.tags)
        with self._transaction("IMMEDIATE") as connection:
            # Taken before those of the old document are free: if this is rolled back, they count.
            rows = _take_rows(connection, len(chunks))
            if vectors is not None:
                self._check(connection, vectors, len(chunks))
                write_vectors(self._vectors, rows, vectors.rows)
            _remove(connection, document.file)
            file = connection.execute(
                _INSERT_FILE,
                (
                    document.file, fingerprint, document.sha256, document.kind, document.title,
                    document.asset, document.date, tags, vectors is not None,
                ),
            ).lastrowid  # fmt: skip
            connection.executemany(
                "INSERT INTO chunks (id, file, section, page) VALUES (?, ?, ?, ?)",
                [(row, file, one.section, one.page) for row, one in zip(rows, chunks, strict=True)],
            )
            connection.executemany(
                "INSERT INTO words (rowid, text, heading) VALUES (?, ?, ?)",
                [
                    (row, one.text, f"{document.title}\n{one.section}")
                    for row, one in zip(rows, chunks, strict=True)
                ],
            )

    def remove(self, file: str) -> bool:
        """Take a file out; returns whether it was in."""
        with self._transaction("IMMEDIATE") as connection:
            return _remove(connection, file)

    def search(
        self, query: str, vector: FloatArray | None, *, top: int, where: Where | None = None
    ) -> list[Hit]:
        """Return the best chunks by reciprocal-rank fusion of BM25 and cosine, best first.

        Args:
            query: Any text; nothing in it is syntax.
            vector: ``(dim,)`` of length 1, from the encoder of the index; None: words alone.
            top: The most hits.
            where: Fields that the file must have.

        Raises:
            ConfigError: If ``where`` makes no sense.
            StoreError: If the index cannot be read.
        """
        condition, values = _condition(where)
        depth = depth_of(top)
        with self._transaction("DEFERRED") as connection:
            snapshot = self._snapshot(connection)
            files = None
            if condition:
                select = f"SELECT id FROM files WHERE {condition}"  # noqa: S608 - from _CONDITIONS
                files = np.fromiter(
                    (id_ for (id_,) in connection.execute(select, values)), np.int64
                )
            match = match_expression(connection, query, snapshot.frequencies)
            statement = _BY_WORDS_WHERE.format(condition=condition) if condition else _BY_WORDS
            found = connection.execute(statement, (match, *values, depth)) if match else ()
            by_words = [row for (row,) in found]
            by_vector = (
                [] if vector is None else snapshot.vectors.nearest(vector, files, depth=depth)
            )
            return _hits(connection, by_words, by_vector, top=top)

    def _prepare(self) -> None:
        connection = self._connection
        with FileLock(self.folder / "lock"):
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > FORMAT:
                raise StoreError(
                    f"{self.folder}: index of format {version}, this version knows {FORMAT}; "
                    "upgrade prompt-safety-workbench"
                )
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            if version == 0:
                connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")

    @contextmanager
    def _transaction(self, kind: str) -> Iterator[sqlite3.Connection]:
        connection = self._connection
        with self._lock, clear_disk_errors(self.folder), _clear_errors(self.folder):
            connection.execute(f"BEGIN {kind}")
            try:
                yield connection
                connection.commit()
            except BaseException:
                connection.rollback()
                raise

    def _check(self, connection: sqlite3.Connection, vectors: Vectors, chunks: int) -> None:
        held, dim = _meta(connection, "encoder"), _meta(connection, "dim")
        if held and held != vectors.encoder_id:
            raise ConfigError(
                f"{self.folder.name}: its vectors are of {held}, not of {vectors.encoder_id}; "
                "use that encoder, or another index"
            )
        shape = vectors.rows.shape
        if shape != (chunks, dim or shape[-1]) or not np.isfinite(vectors.rows).all():
            raise ConfigError(
                f"{self.folder.name}: vectors of shape {shape} for {chunks} chunks, or not finite; "
                "correct the encoder"
            )
        if not held:
            _set(connection, "encoder", vectors.encoder_id)
            _set(connection, "dim", shape[1])

    def _snapshot(self, connection: sqlite3.Connection) -> _Snapshot:
        generation = int(_meta(connection, "generation"))
        if self._cached is None or self._cached.generation != generation:
            pairs = np.array(
                connection.execute(
                    "SELECT chunks.id, chunks.file FROM chunks JOIN files ON files.id = chunks.file"
                    " WHERE has_vectors ORDER BY chunks.id"
                ).fetchall(),
                np.int64,
            ).reshape(-1, 2)
            count, dim = int(pairs[-1, 0]) + 1 if len(pairs) else 0, int(_meta(connection, "dim"))
            rows, files = np.ascontiguousarray(pairs.T)
            vectors = Matrix(rows, files, map_vectors(self._vectors, count=count, dim=dim))
            self._cached = _Snapshot(generation, vectors, {})
        return self._cached


def _meta(connection: sqlite3.Connection, key: str) -> str | int:
    value: str | int = connection.execute(
        "SELECT value FROM meta WHERE key = ?", (key,)
    ).fetchone()[0]
    return value


def _set(connection: sqlite3.Connection, key: str, value: str | int) -> None:
    connection.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))


def _take_rows(connection: sqlite3.Connection, count: int) -> list[int]:
    """Return rows for new chunks, free ones first, and begin a new generation."""
    query = "SELECT id FROM free ORDER BY id LIMIT ?"
    rows = [row for (row,) in connection.execute(query, (count,))]
    connection.executemany("DELETE FROM free WHERE id = ?", [(row,) for row in rows])
    known = int(_meta(connection, "rows"))
    missing = count - len(rows)
    _set(connection, "rows", known + missing)
    _set(connection, "generation", int(_meta(connection, "generation")) + 1)
    return [*rows, *range(known, known + missing)]


def _remove(connection: sqlite3.Connection, file: str) -> bool:
    found = connection.execute("SELECT id FROM files WHERE file = ?", (file,)).fetchone()
    if found is None:
        return False
    chunks = "SELECT id FROM chunks WHERE file = ?"
    connection.execute(f"DELETE FROM words WHERE rowid IN ({chunks})", found)  # noqa: S608
    connection.execute(f"INSERT INTO free {chunks}", found)
    connection.execute("DELETE FROM chunks WHERE file = ?", found)
    connection.execute("DELETE FROM files WHERE id = ?", found)
    _set(connection, "generation", int(_meta(connection, "generation")) + 1)
    return True


def _condition(where: Where | None) -> tuple[str, list[str]]:
    """Return a filter as SQL over ``files``, empty for none, and its parameters."""
    parts: list[str] = []
    values: list[str] = []
    for field, wanted in conditions(where):
        marks = ", ".join("?" * len(wanted))
        parts.append(_CONDITIONS.get(field, _ANY).format(field=field, marks=marks))
        values += wanted
    return " AND ".join(parts), values


def _hits(
    connection: sqlite3.Connection, by_words: list[int], by_vector: list[int], *, top: int
) -> list[Hit]:
    word_ranks = {row: rank for rank, row in enumerate(by_words, start=1)}
    vector_ranks = {row: rank for rank, row in enumerate(by_vector, start=1)}
    hits = []
    for row, score in fuse([by_words, by_vector], top=top):
        text, file, title, section, page = connection.execute(_HIT, (row,)).fetchone()
        hit = Hit(
            text=text,
            file=file,
            title=title,
            section=section,
            page=page,
            score=score,
            word_rank=word_ranks.get(row),
            vector_rank=vector_ranks.get(row),
        )
        hits.append(hit)
    return hits


@contextmanager
def _clear_errors(folder: Path) -> Iterator[None]:
    """Turn what SQLite says into a :class:`StoreError` that names the index and what to do."""
    try:
        yield
    except sqlite3.Error as error:
        reason = str(error)
        if "full" in reason:
            fix = "free space and run again, finished files are kept"
        elif "locked" in reason:
            fix = "another process writes to it for long; run again"
        elif "readonly" in reason or "unable to open" in reason:
            fix = "set WORKBENCH_HOME to a folder that is writable"
        else:
            fix = f"remove {folder} and ingest again"
        raise StoreError(f"document index {folder.name}: {reason}; {fix}") from error
