"""What the sources said, frozen: one dated, hashed folder that assessments read offline.

A snapshot starts from the one before. A source that failed keeps its last table with that table's
date, so it becomes stale and is never lost; rows that were asked for by id replace those of the
same id. What is older than what is kept is not taken. Every row carries the date of what its source
said, ``as_of``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, Final, Literal

import pyarrow as pa
import pyarrow.compute as pc

from workbench.core.errors import DataError
from workbench.core.identity import content_id
from workbench.risk.tables import DAYS_FRESH, KEYS, SCHEMAS, WHOLE, clean, conform, merged
from workbench.store.artifacts import write_atomic, write_json_atomic
from workbench.store.database import Store
from workbench.store.risk_results import SourceAge

if TYPE_CHECKING:
    from workbench.risk.sources.base import Fetched

__all__ = [
    "FORMAT", "SAMPLE", "Snapshot", "Source", "in_memory", "load_snapshot", "sample_snapshot",
    "write_snapshot",
]  # fmt: skip

FORMAT: Final = 1
SAMPLE: Final = "sample"
"""Id of the snapshot that the product ships."""

_SYNC: Final = "run `workbench risk sync`"
_MANIFEST: Final = "manifest.json"
_MOST_BYTES: Final = 1 << 20
"""Of a manifest."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """One table of a snapshot and where it comes from."""

    name: str
    """Of the table: ``cve``, ``kev``, …"""
    source: str
    url: str
    as_of: str
    """ISO date of the newest thing that the source said; empty where it never answered."""
    rows: int
    status: Literal["checked", "missing"]
    error: str
    """Why the last try failed, or what of it could not be used; empty: neither."""
    file: str = ""
    sha256: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Snapshot:
    """An open snapshot; tables are read, and their hashes checked, when first asked for.

    Pickled as a reference, so that workers on a cluster read the folder themselves, once per
    process; the folder must be reachable there.
    """

    id: str
    made_at: str
    sources: tuple[Source, ...]
    folder: Path | None = None
    """Empty: the tables are in memory."""
    _tables: dict[str, pa.Table] = field(default_factory=dict, repr=False)
    _lock: Any = field(default_factory=RLock, repr=False)

    def __reduce__(self) -> tuple[Callable[..., Snapshot], tuple[Any, ...]]:
        if self.id == SAMPLE:
            return sample_snapshot, ()
        if self.folder is None:
            return _in_memory, (self.id, self.made_at, self.sources, self._tables)
        return _opened, (self.id, self.folder)

    def table(self, name: str) -> pa.Table | None:
        """Return a table, columns as in :data:`~workbench.risk.tables.SCHEMAS`, or None.

        Raises:
            DataError: If its file is missing, damaged or altered.
        """
        with self._lock:
            if name not in self._tables:
                source = self.source(name)
                if source is None or not source.file or self.folder is None:
                    return None
                self._tables[name] = _read(self.folder / source.file, source)
            return self._tables[name]

    def source(self, name: str) -> Source | None:
        """Return where a table comes from; None where it was never asked for."""
        return next((one for one in self.sources if one.name == name), None)

    def age_days(self, today: date) -> int:
        """Return how many days ago it was made."""
        return _age(self.made_at, today)

    def ages(self, today: date) -> list[SourceAge]:
        """Return each source with its age; one beyond its time to live is ``stale``."""
        rows: list[SourceAge] = []
        for one in self.sources:
            age = _age(one.as_of, today)
            is_stale = one.status == "checked" and age > DAYS_FRESH[one.name]
            status = "stale" if is_stale else one.status
            rows.append(
                {
                    "name": one.name,
                    "status": status,
                    "as_of": one.as_of,
                    "age_days": age,
                    "rows": one.rows,
                    "error": one.error,
                }
            )
        return rows


def load_snapshot(store: Store, snapshot: str = "") -> Snapshot:
    """Return a snapshot of the store.

    Args:
        store: The open store.
        snapshot: Its id or how the id begins; empty: the newest; ``sample``: the shipped one.

    Raises:
        DataError: If there is none, or its manifest is damaged, altered or of a newer version.
    """
    if snapshot == SAMPLE:
        return sample_snapshot()
    if not snapshot and not (snapshot := store.artifacts.newest("snapshot")):
        raise DataError(f"no snapshot yet; {_SYNC}, or take the snapshot {SAMPLE!r}")
    found = store.artifacts.resolve("snapshot", snapshot)
    return _open(found, store.artifacts.path("snapshot", found))


def write_snapshot(store: Store, tables: Mapping[str, Fetched], *, made_at: str) -> str:
    """Return the id of a new snapshot in the store: the newest one with what was fetched since.

    Args:
        store: The open store.
        tables: Name of the table, see :data:`~workbench.risk.tables.SCHEMAS`, to what came of it.
        made_at: ISO time.

    Raises:
        DataError: If a table is unknown, lacks a column, has one of another type, or a date is
            none.
    """
    _check_date(made_at, "made_at")
    for name in tables:
        if name not in SCHEMAS:
            raise DataError(f"snapshot: unknown table {name!r}; known: {', '.join(SCHEMAS)}")
    before, damage = _before(store)
    files: dict[str, bytes] = {}
    sources: list[Source] = []
    for name in SCHEMAS:
        old, old_table, old_error = _last(before, name)
        if name in tables:
            source, table = _next(name, tables[name], old=old, old_table=old_table, today=made_at)
            old_error = "; ".join(filter(None, (source.error, damage, old_error)))
            source = replace(source, error=old_error)
        elif old is not None:
            table = old_table
            status: Literal["checked", "missing"] = "missing" if table is None else "checked"
            source = replace(old, status=status, error=old_error or old.error)
        else:
            continue
        source = replace(source, rows=0, file="", sha256="")
        if table is not None:
            files[f"{name}.parquet"] = data = _packed(table)
            source = replace(
                source, rows=table.num_rows, file=f"{name}.parquet", sha256=_digest(data)
            )
        sources.append(source)
    manifest = {"format": FORMAT, "made_at": made_at, "sources": [asdict(one) for one in sources]}
    snapshot = content_id(manifest)
    said = {"made_at": made_at, "rows": {one.name: one.rows for one in sources}}
    with store.artifacts.create("snapshot", snapshot, said, mend=True) as folder:
        for file, data in files.items():
            write_atomic(folder / file, data)
        write_json_atomic(folder / _MANIFEST, manifest)
    store.artifacts.renew("snapshot", snapshot)
    return snapshot


def in_memory(snapshot: str, tables: Mapping[str, Fetched], *, made_at: str) -> Snapshot:
    """Return a snapshot that is in no store; raises as :func:`write_snapshot`."""
    sources, kept = [], {}
    for name, fetched in tables.items():
        source, table = _next(name, fetched, old=None, old_table=None, today=made_at)
        if table is not None:
            kept[name] = table
        sources.append(replace(source, rows=0 if table is None else table.num_rows))
    return _in_memory(snapshot, made_at, tuple(sources), kept)


def _in_memory(
    snapshot: str, made_at: str, sources: tuple[Source, ...], tables: dict[str, pa.Table]
) -> Snapshot:
    return Snapshot(id=snapshot, made_at=made_at, sources=sources, _tables=tables)


@lru_cache(maxsize=1)
def sample_snapshot() -> Snapshot:
    """Return the snapshot that the product ships; it needs no store."""
    from workbench.risk.snapshot_files import sample_tables

    made_at, tables = sample_tables()
    return in_memory(SAMPLE, tables, made_at=made_at)


@lru_cache(maxsize=2)
def _opened(snapshot: str, folder: Path) -> Snapshot:
    """Return a snapshot by reference, the same one all over a process."""
    return _open(snapshot, folder)


def _open(snapshot: str, folder: Path) -> Snapshot:
    path = folder / _MANIFEST
    try:
        data = path.read_bytes() if path.stat().st_size < _MOST_BYTES else b""
        manifest = json.loads(data)
        newer = manifest["format"] > FORMAT
    except FileNotFoundError:
        raise DataError(f"{path}: is missing; {_SYNC}") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise DataError(f"{path}: no manifest of a snapshot ({what}); {_SYNC}") from None
    if newer:
        raise DataError(
            f"{path}: format {manifest['format']} is newer than {FORMAT}; update Workbench, "
            f"or {_SYNC}"
        )
    # One hash holds everything: it is that of the manifest, which holds those of the files.
    if content_id(manifest) != snapshot:
        raise DataError(f"{path}: was altered, its sha256 is not {snapshot[:12]}…; {_SYNC}")
    try:
        sources = tuple(Source(**one) for one in manifest["sources"])
        return Snapshot(id=snapshot, made_at=manifest["made_at"], sources=sources, folder=folder)
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: no manifest of a snapshot ({error}); {_SYNC}") from None


def _read(path: Path, source: Source) -> pa.Table:
    import pyarrow.parquet as pq

    try:
        data = path.read_bytes()
        if _digest(data) != source.sha256:
            raise DataError(f"{path}: was altered, its sha256 is not as written; {_SYNC}")
        table = pq.read_table(pa.BufferReader(data))
    except FileNotFoundError:
        raise DataError(f"{path}: is missing; {_SYNC}") from None
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: not to be read ({reason}); {_SYNC}") from None
    return conform(table, source.name, where=f"{path}", fix=_SYNC)


def _before(store: Store) -> tuple[Snapshot | None, str]:
    """Return the newest snapshot, or why it cannot be gone on from."""
    if not store.artifacts.newest("snapshot"):
        return None, ""
    try:
        return load_snapshot(store), ""
    except DataError as error:
        return None, f"the snapshot before was lost: {error}"


def _last(before: Snapshot | None, name: str) -> tuple[Source | None, pa.Table | None, str]:
    """Return what was last known of a table, and why that is lost if it is."""
    source = before.source(name) if before else None
    if before is None or source is None:
        return None, None, ""
    try:
        return source, before.table(name), ""
    except DataError as error:  # damaged: what is fetched now mends it
        return source, None, f"the table before was lost: {error}"


def _tomorrow() -> str:
    """Return the latest day that a source can mean: days begin earlier in the east."""
    return (datetime.now(UTC).date() + timedelta(days=1)).isoformat()


def _next(
    name: str, fetched: Fetched, *, old: Source | None, old_table: pa.Table | None, today: str
) -> tuple[Source, pa.Table | None]:
    """Return the source and its table after a fetch, whatever came of that."""
    said = Source(
        name=name, source=fetched.source, url=fetched.url, as_of=fetched.as_of or today[:10],
        rows=0, status="checked", error=fetched.error,
    )  # fmt: skip
    last = replace(
        old or said,
        as_of=old.as_of if old and old_table is not None else "",
        status="missing" if old_table is None else "checked",
    )
    if fetched.table is None:
        return replace(last, error=fetched.error or "nothing was fetched"), old_table
    _check_date(said.as_of, f"{name}: as_of")
    said = replace(said, as_of=min(said.as_of, _tomorrow()))
    new, notes = clean(fetched.table, name, as_of=said.as_of[:10])
    error = "; ".join(filter(None, (fetched.error, notes)))
    if name in WHOLE and old_table is not None and said.as_of[:10] < last.as_of[:10]:
        what = f"{fetched.source}: of {said.as_of[:10]}, older than what is kept: not taken"
        return replace(last, error="; ".join(filter(None, (error, what)))), old_table
    known = old_table.num_rows if old_table is not None else 1
    if name in WHOLE and new.num_rows * 2 < known:
        # A list that lost most of itself is a fault of the feed; believing it would clear CVEs.
        rows = f"{new.num_rows} rows" + (f" after {known}" if old_table is not None else "")
        what = f"{fetched.url or fetched.source}: {rows}: not taken"
        return replace(last, error="; ".join(filter(None, (error, what)))), old_table
    table = new if name not in KEYS else merged(old_table, new, KEYS[name])
    newest = pc.max(table["as_of"]).as_py() if table.num_rows else said.as_of[:10]
    return replace(said, as_of=newest, error=error), table


def _packed(table: pa.Table) -> bytes:
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _digest(data: bytes) -> str:
    return sha256(data).hexdigest()


def _age(iso: str, today: date) -> int:
    return max(0, (today - date.fromisoformat(iso[:10])).days) if iso else 0


def _check_date(iso: str, where: str) -> None:
    """Raise where a text does not begin with a day as it is compared, as text."""
    try:
        datetime.fromisoformat(iso)
        is_day = date.fromisoformat(iso[:10]).isoformat() == iso[:10]
    except ValueError:
        is_day = False
    if not is_day:
        raise DataError(f"snapshot: {where} {iso!r} is no date; write e.g. 2025-08-25")
