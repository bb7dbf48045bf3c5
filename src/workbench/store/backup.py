"""All of a store in one file, and a store from such a file, on either kind of database.

The file is a compressed tar: a manifest with the hash of everything first, then the rows of each
table as JSON lines, as of one moment, then artifacts and folders of runs. Caches are left out.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from sqlalchemy import Connection, Engine, MetaData, Table, delete, insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError

from workbench import __version__
from workbench.core.errors import DataError, InputError, StoreError
from workbench.core.identity import file_sha256, new_id
from workbench.core.settings import Settings
from workbench.store import schema
from workbench.store.backup_file import MANIFEST, is_safe, unpack_backup
from workbench.store.database import SCHEMA_VERSION, Store, migrate_to, open_store, plain_engine
from workbench.store.files import clear_disk_errors
from workbench.store.isolation import everybody
from workbench.store.marks import read_mark
from workbench.store.packing import files_below
from workbench.store.records import now
from workbench.store.transaction import transaction

__all__ = ["Backup", "backup", "restore"]

_HOME = "home:/"
"""How the folder of a run begins that is inside the home, wherever the home is."""
_ROWS = 1_000


@dataclass(frozen=True, kw_only=True)
class Backup:
    """What a backup holds."""

    path: Path
    schema: str
    rows: dict[str, int]
    files: int
    bytes: int
    """Of all files, unpacked."""


def backup(store: Store, path: Path) -> Backup:
    """Write the whole store of all users to a new file; it is there whole or not at all.

    Others may write to the store meanwhile: the rows are of one moment, and what they name.

    Raises:
        InputError: If there is something at ``path``.
        StoreError: If the disk is full, or an artifact is damaged.
    """
    if path.exists():
        raise InputError(f"{path}: there is something already; give a new name")
    temporary = path.with_name(f".{path.name}.{new_id('tmp')}")
    with clear_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        try:
            files, rows = _gather(store, temporary)
            manifest = {
                "workbench": __version__,
                "schema": SCHEMA_VERSION,
                "created_at": now(),
                "rows": rows,
                "files": {
                    name: {"sha256": file_sha256(file), "bytes": file.stat().st_size}
                    for name, file in files.items()
                },
            }
            packed = temporary / "packed"
            _pack(packed, manifest, files)
            packed.replace(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return _backup(path, manifest)


def restore(path: Path, settings: Settings, *, most_bytes: int | None = None) -> Backup:
    """Make the store that settings name from a backup; whole or not at all.

    Args:
        path: Of the backup.
        settings: A home that is empty, and a database without tables.
        most_bytes: Most that it may unpack to; by default what is free on the disk.

    Raises:
        InputError: If home or database are not empty.
        DataError: If the file is damaged, no backup, or was made to do harm.
        StoreError: If it is of a newer schema, or the disk is full.
    """
    home = settings.home
    if home.exists() and (not home.is_dir() or any(home.iterdir())):
        raise InputError(f"{home}: not empty; set WORKBENCH_HOME to a new folder")
    with clear_disk_errors(home):
        home.parent.mkdir(parents=True, exist_ok=True)
        temporary = home.with_name(f".{home.name}.{new_id('tmp')}")
        temporary.mkdir()
        try:
            manifest = unpack_backup(path, temporary, most_bytes=most_bytes)
            _load(temporary, manifest, settings)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    open_store(settings).engine.dispose()  # newer tables, where the backup is older
    return _backup(path, manifest)


def _backup(path: Path, manifest: dict[str, Any]) -> Backup:
    files = manifest["files"].values()
    return Backup(
        path=path, schema=manifest["schema"], rows=manifest["rows"], files=len(files),
        bytes=sum(one["bytes"] for one in files),
    )  # fmt: skip


def _gather(store: Store, folder: Path) -> tuple[dict[str, Path], dict[str, int]]:
    """Return the files of a backup by their names in it, and rows by table."""
    engine = everybody(store.engine)
    counts: dict[str, int] = {}
    files: dict[str, Path] = {}
    (folder / "rows").mkdir()
    with _one_moment(engine) as connection:
        for table in schema.metadata.sorted_tables:
            file = folder / "rows" / f"{table.name}.jsonl"
            rows = _dumped(connection, table)
            if table is schema.artifacts:
                listed = list(rows)
                continue
            counts[table.name] = _write_rows(file, _with_folders(rows, store, files, table))
            files[f"rows/{file.name}"] = file
    file = folder / "rows" / "artifacts.jsonl"
    counts["artifacts"] = _write_rows(file, _with_content(listed, store, engine, files))
    files[f"rows/{file.name}"] = file
    return files, counts


@contextmanager
def _one_moment(engine: Engine) -> Iterator[Connection]:
    is_sqlite = engine.dialect.name == "sqlite"
    if not is_sqlite:
        engine = engine.execution_options(isolation_level="REPEATABLE READ")
    with transaction(engine) as connection:
        if is_sqlite:  # its driver begins no transaction to read
            connection.exec_driver_sql("BEGIN")
        yield connection


def _dumped(connection: Connection, table: Table) -> Iterator[dict[str, Any]]:
    query = select(table).order_by(*table.primary_key.columns)
    for row in connection.execution_options(yield_per=_ROWS).execute(query).mappings():
        yield dict(row)


def _with_folders(
    rows: Iterable[dict[str, Any]], store: Store, files: dict[str, Path], table: Table
) -> Iterator[dict[str, Any]]:
    """Give rows; those of runs with their folder, which is noted among the files."""
    for row in rows:
        folder = Path(row["folder"]) if table is schema.runs else None
        if folder and folder.is_absolute() and folder.is_relative_to(store.home):
            below = folder.relative_to(store.home).as_posix()
            row["folder"] = f"{_HOME}{below}"
            if row["state"] != "running":
                files.update(
                    (f"runs/{below}/{file.relative_to(folder).as_posix()}", file)
                    for file in files_below(folder)
                )
        yield row


def _with_content(
    rows: Iterable[dict[str, Any]], store: Store, engine: Engine, files: dict[str, Path]
) -> Iterator[dict[str, Any]]:
    """Give the rows of artifacts as plain folders, wherever their content is now."""
    content = store.artifacts.seeing(engine)
    for row in rows:
        found = read_mark(engine, row["kind"], row["id"])
        if found is None:  # removed since
            continue
        metadata, mark = found
        if not mark.removed_at:
            folder = content.path(row["kind"], row["id"])
            place = f"artifacts/{row['kind']}/{row['id'][:32]}"
            files.update(
                (f"{place}/{file.relative_to(folder).as_posix()}", file)
                for file in files_below(folder)
            )
            mark = replace(mark, at="folder", key="", packed=False, sha256="", stored=mark.bytes)
        yield row | {"metadata": mark.within(metadata)}


def _write_rows(file: Path, rows: Iterable[dict[str, Any]]) -> int:
    count = 0
    with file.open("w", encoding="utf-8") as out:
        for count, row in enumerate(rows, 1):  # noqa: B007 - counted
            out.write(json.dumps(row, ensure_ascii=True) + "\n")
    return count


def _pack(path: Path, manifest: dict[str, Any], files: dict[str, Path]) -> None:
    import io

    import pyarrow as pa

    with (
        pa.output_stream(str(path), compression="zstd") as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        told = json.dumps(manifest).encode()
        _add(tar, MANIFEST, io.BytesIO(told), len(told))
        for name, file in files.items():
            with file.open("rb") as content:
                size = os.fstat(content.fileno()).st_size
                if size != manifest["files"][name]["bytes"]:
                    raise StoreError(f"{file} changed while it was backed up; back up again")
                _add(tar, name, content, size)
    with path.open("rb") as done:
        os.fsync(done.fileno())


def _add(tar: tarfile.TarFile, name: str, content: IO[bytes], size: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = size
    tar.addfile(entry, content)


def _load(folder: Path, manifest: dict[str, Any], settings: Settings) -> None:
    """Put rows into the database and files into the home, both or neither."""
    home = settings.home
    built = folder / "home"
    built.mkdir()
    is_inside = settings.database_url == f"sqlite:///{home / 'workbench.db'}"
    url = f"sqlite:///{built / 'workbench.db'}" if is_inside else settings.database_url
    engine = plain_engine(url)
    try:
        migrate_to(engine, manifest["schema"])
        with transaction(engine) as connection:
            if engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            tables = MetaData()
            tables.reflect(connection)
            for name in manifest["rows"]:
                if name not in tables.tables or name not in schema.metadata.tables:
                    raise DataError(f"the backup has a table {name[:60]!r} that nobody knows")
                with _damage_told(name):
                    _fill(connection, tables.tables[name], folder / "rows" / f"{name}.jsonl", home)
            if (folder / "artifacts").is_dir():
                (folder / "artifacts").replace(built / "artifacts")
            for one in sorted((folder / "runs").glob("*")):
                if (built / one.name).exists():
                    raise DataError(f"the backup puts a run in the place of {one.name!r}; damaged")
                one.replace(built / one.name)
            if not is_inside:
                _move(built, home)
    finally:
        engine.dispose()
    if is_inside:
        _move(built, home)


def _move(built: Path, home: Path) -> None:
    if home.exists():
        home.rmdir()  # still empty, or this says so
    built.replace(home)


def _fill(connection: Connection, table: Table, file: Path, home: Path) -> None:
    connection.execute(delete(table))  # what a migration puts there
    page: list[dict[str, Any]] = []
    columns = set(table.c.keys())
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if set(row) != columns:
                raise DataError(f"a row of {table.name} in the backup has other columns; damaged")
            page.append(_placed(row, table.name, home))
            if len(page) == _ROWS:
                connection.execute(insert(table), page)
                page = []
    if page:
        connection.execute(insert(table), page)
    if connection.dialect.name == "postgresql" and "id" in columns:
        _go_on_counting(connection, table)


@contextmanager
def _damage_told(table: str) -> Iterator[None]:
    """Tell a line that is no JSON, or no row of its table, from a database that fails."""
    try:
        yield
    except (
        ValueError, TypeError, AttributeError, RecursionError, OverflowError, StatementError
    ) as error:  # fmt: skip
        if isinstance(error, DBAPIError) and not isinstance(error, IntegrityError):
            raise
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"a row of {table} in the backup is damaged: {reason}") from None


def _placed(row: dict[str, Any], table: str, home: Path) -> dict[str, Any]:
    """Return a row with its folder in this home; names that lead elsewhere are refused."""
    place = f"artifacts/{row['kind']}/{row['id']}" if table == "artifacts" else ""
    if table == "runs" and row["folder"].startswith(_HOME):
        below = row["folder"].removeprefix(_HOME)
        place, row["folder"] = f"runs/{below}", str(home / below)
    is_one = place.removeprefix("artifacts/").count("/") == 1 or table == "runs"
    if place and not (is_one and is_safe(place)):
        raise DataError(f"{place[:80]!r} of {table} leads out of the store; the backup is damaged")
    return row


def _go_on_counting(connection: Connection, table: Table) -> None:
    """Let ids go on behind those that are there."""
    found = connection.execute(
        text("SELECT pg_get_serial_sequence(:table, 'id')"), {"table": table.name}
    ).scalar()
    if found:
        highest = f"SELECT coalesce(max(id), 0) + 1 FROM {table.name}"  # noqa: S608 - reflected
        connection.execute(text(f"SELECT setval('{found}', ({highest}), false)"))
