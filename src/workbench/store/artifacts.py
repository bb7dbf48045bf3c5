"""Files of the store: written whole or not at all, named by content."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock
from sqlalchemy import Engine, delete, func, insert, select, update

from workbench.core.errors import DataError, StoreError
from workbench.core.identity import new_id
from workbench.store import schema
from workbench.store.records import now
from workbench.store.transaction import transaction

__all__ = ["ArtifactKind", "Artifacts", "clear_disk_errors", "write_atomic", "write_json_atomic"]

ArtifactKind = Literal[
    "pair_set", "test_set", "model", "judge", "execution", "expansion", "profile", "snapshot",
    "evidence", "assessment",
]  # fmt: skip


@contextmanager
def clear_disk_errors(path: Path) -> Iterator[None]:
    """Turn a full or read-only disk into a :class:`StoreError` that names the path."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise StoreError(
                f"{path}: the disk is full; free space and run again, finished steps are kept"
            ) from error
        if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
            raise StoreError(
                f"{path}: not writable; set WORKBENCH_HOME to a folder that is"
            ) from error
        raise


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that readers see the old content or all of the new, also after a power cut.

    Raises:
        StoreError: If the disk is full or read-only; the old file, if any, is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    with clear_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_json_atomic(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically.

    Raises:
        ValueError: If the value holds NaN or infinity.
        StoreError: As :func:`write_atomic`.
    """
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomic(path, text.encode())


class Artifacts:
    """Folders under ``<home>/artifacts/<kind>/<id>``, listed in the database.

    An artifact exists once its row does: a folder without a row is the rest of a killed process
    and is replaced.
    """

    def __init__(self, engine: Engine, root: Path, *, owner: str, run: str = "") -> None:
        self._engine = engine
        self._root = root
        self._owner = owner
        self._run = run

    def path(self, kind: ArtifactKind, artifact_id: str) -> Path:
        """Return the folder of an artifact that exists.

        Raises:
            DataError: If there is none of that id.
        """
        if not self.exists(kind, artifact_id):
            raise DataError(
                f"no {kind} {artifact_id!r} in {self._root}; newest: {self.newest(kind) or 'none'}"
            )
        folder = self._folder(kind, artifact_id)
        if not folder.is_dir() and self._aside(folder).is_dir():  # killed between two renames
            self._aside(folder).replace(folder)
        if not folder.is_dir():
            raise DataError(f"{folder}: {kind} was removed; run with --force to make it again")
        return folder

    def exists(self, kind: ArtifactKind, artifact_id: str) -> bool:
        """Return whether the artifact was written completely."""
        return self._row(kind, artifact_id) is not None

    def metadata(self, kind: ArtifactKind, artifact_id: str) -> dict[str, Any]:
        """Return what was said of an artifact when it was written; raises as :meth:`path`."""
        self.path(kind, artifact_id)
        return dict(self._row(kind, artifact_id) or {})

    def newest(self, kind: ArtifactKind, *, said: Mapping[str, str] | None = None) -> str:
        """Return the id of the newest artifact of a kind, or an empty string.

        Those whose metadata have the values of ``said`` go before all others.
        """
        table = schema.artifacts
        saying = [
            (func.coalesce(table.c.metadata[name].as_string(), "") == value).desc()
            for name, value in (said or {}).items()
        ]
        query = select(table.c.id).where(table.c.kind == kind)
        query = query.order_by(*saying, table.c.created_at.desc()).limit(1)
        with transaction(self._engine) as connection:
            return connection.execute(query).scalar() or ""

    def resolve(self, kind: ArtifactKind, beginning: str) -> str:
        """Return the id that begins so.

        Raises:
            DataError: If there is none, or more than one.
        """
        table = schema.artifacts
        begins = table.c.id.startswith(beginning, autoescape=True)
        query = select(table.c.id).where(table.c.kind == kind, begins).limit(2)
        with transaction(self._engine) as connection:
            found = connection.execute(query).scalars().all()
        if len(found) > 1:
            raise DataError(f"several {kind}s begin with {beginning!r}; give more of the id")
        if not found:
            newest = self.newest(kind) or "none"
            raise DataError(f"no {kind} {beginning!r} in {self._root}; newest: {newest}")
        return str(found[0])

    def renew(self, kind: ArtifactKind, artifact_id: str) -> None:
        """Make an artifact the newest: it would have been made now, were it not there."""
        table = schema.artifacts
        mine = (table.c.kind == kind) & (table.c.id == artifact_id)
        with transaction(self._engine) as connection:
            connection.execute(update(table).where(mine).values(created_at=now()))

    def rows(self, kind: ArtifactKind) -> list[dict[str, Any]]:
        """Return id, created_at, owner and metadata of the artifacts of a kind, newest first."""
        table = schema.artifacts
        columns = (table.c.id, table.c.created_at, table.c.owner, table.c.metadata)
        query = select(*columns).where(table.c.kind == kind).order_by(table.c.created_at.desc())
        with transaction(self._engine) as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def referring(self, kind: ArtifactKind, name: str, value: str) -> list[str]:
        """Return the ids of the artifacts of a kind whose metadata have that value."""
        table = schema.artifacts
        says = table.c.metadata[name].as_string() == value
        query = select(table.c.id).where(table.c.kind == kind, says).order_by(table.c.created_at)
        with transaction(self._engine) as connection:
            return list(connection.execute(query).scalars())

    def remove(self, kind: ArtifactKind, artifact_id: str) -> None:
        """Remove an artifact, its row first; what refers to it is the caller's care."""
        table = schema.artifacts
        mine = (table.c.kind == kind) & (table.c.id == artifact_id)
        final = self._folder(kind, artifact_id)
        with FileLock(final.with_name(f".{final.name}.lock")):
            with transaction(self._engine) as connection:
                connection.execute(delete(table).where(mine))
            shutil.rmtree(final, ignore_errors=True)

    @contextmanager
    def create(
        self, kind: ArtifactKind, artifact_id: str, metadata: dict[str, Any], *, mend: bool = False
    ) -> Iterator[Path]:
        """Give an empty folder to write into; it becomes the artifact when the block ends well.

        Where the artifact exists already the new folder is dropped: same id, same content.

        ``metadata`` may be filled inside the block. ``mend`` puts the new folder in the place of
        one that is damaged.

        Raises:
            StoreError: If the disk is full or read-only.
        """
        final = self._folder(kind, artifact_id)
        temporary = final.with_name(f".{final.name}.{new_id('tmp')}")
        with clear_disk_errors(final):
            temporary.mkdir(parents=True)
            try:
                yield temporary
                with FileLock(final.with_name(f".{final.name}.lock")):
                    is_new = not self.exists(kind, artifact_id)
                    if is_new or mend:
                        aside = self._aside(final)
                        if final.is_dir():
                            shutil.rmtree(aside, ignore_errors=True)
                            final.replace(aside)
                        temporary.replace(final)
                        shutil.rmtree(aside, ignore_errors=True)
                    if is_new:
                        self._add_row(kind, artifact_id, metadata)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)

    def _folder(self, kind: ArtifactKind, artifact_id: str) -> Path:
        return self._root / kind / artifact_id[:32]

    @staticmethod
    def _aside(folder: Path) -> Path:
        """Return where a folder waits until the one that replaces it stands."""
        return folder.with_name(f".{folder.name}.old")

    def _row(self, kind: ArtifactKind, artifact_id: str) -> dict[str, Any] | None:
        table = schema.artifacts
        query = select(table.c.metadata).where(table.c.kind == kind, table.c.id == artifact_id)
        with transaction(self._engine) as connection:
            return connection.execute(query).scalar()

    def _add_row(self, kind: ArtifactKind, artifact_id: str, metadata: dict[str, Any]) -> None:
        row = {
            "kind": kind,
            "id": artifact_id,
            "created_at": now(),
            "owner": self._owner,
            "run": self._run,
            "metadata": metadata,
        }
        with transaction(self._engine) as connection:
            connection.execute(insert(schema.artifacts), row)
