"""Files of the store: written whole or not at all, named by content."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from sqlalchemy import Connection, Engine, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from workbench.core.errors import DataError
from workbench.store import schema
from workbench.store.cache import FolderCache
from workbench.store.files import clear_disk_errors, write_atomic, write_json_atomic
from workbench.store.marks import Mark, change_mark, plain, read_mark, still_there
from workbench.store.packing import contents_of
from workbench.store.records import now
from workbench.store.remote import Remote
from workbench.store.rests import sweep
from workbench.store.shelf import Shelf
from workbench.store.transaction import once, retried, transaction

__all__ = [
    "KINDS", "ArtifactKind", "Artifacts", "Say", "clear_disk_errors", "write_atomic",
    "write_json_atomic",
]  # fmt: skip

ArtifactKind = Literal[
    "pair_set", "test_set", "model", "judge", "execution", "expansion", "profile", "snapshot",
    "evidence", "assessment",
]  # fmt: skip

KINDS: tuple[ArtifactKind, ...] = get_args(ArtifactKind)

_MOST_REFERENCES = 10_000
_WORTH_IT = 0.9
"""Share of its size from which on an artifact is not worth packing."""
Say = Callable[[Connection, Mark, Mark], None]
"""Writes what becomes of an artifact in the transaction that makes it so: before, after."""


class Artifacts:
    """Folders under ``<home>/artifacts/<kind>/<id>`` or a remote location, listed in the database.

    An artifact exists once its row does: a folder without a row is the rest of a killed process
    and is replaced. What is remote or packed is given as a folder of a cache.

    Args:
        engine: Of the database.
        root: Folder of the artifacts on this machine.
        owner: Whose what is made is.
        run: That makes it.
        remote: Where new ones go instead of the folder; those that are in the folder stay there.
        cache_bytes: Room for what is fetched or unpacked.
    """

    def __init__(
        self, engine: Engine, root: Path, *, owner: str, run: str = "",
        remote: Remote | None = None, cache_bytes: int = 20_000_000_000,
    ) -> None:  # fmt: skip
        self._engine = engine
        self._owner = owner
        self._run = run
        cache = FolderCache(root.parent / "cache", limit=cache_bytes)
        self._shelf = Shelf(root, remote=remote, cache=cache)

    def seeing(self, engine: Engine) -> Artifacts:
        """Return the same artifacts as another engine of the same database shows them."""
        other = copy(self)
        other._engine = engine  # noqa: SLF001 - our own
        return other

    def sweep(self) -> int:
        """Remove what killed processes left and is a day old; return how many rests that were.

        The engine must show the rows of all users.
        """
        return sweep(self._engine, self._shelf.root, self._shelf.remote)

    def path(self, kind: ArtifactKind, artifact_id: str) -> Path:
        """Return the folder of an artifact that exists; fetched or unpacked where it has to be.

        Raises:
            DataError: If there is none of that id, or it was removed: when, and by which policy.
            StoreError: If it is damaged, or where it is cannot be reached.
        """
        place = _place(kind, artifact_id)
        for _ in range(2):
            mark = self._mark(kind, artifact_id)
            try:
                return self._shelf.path(place, mark)
            except FileNotFoundError:  # replaced by another process meanwhile, or gone
                continue
        where = self._shelf.shown(place)
        raise DataError(f"{where}: {kind} was removed; run with --force to make it again")

    def exists(self, kind: ArtifactKind, artifact_id: str) -> bool:
        """Return whether the artifact was written completely, and not removed since."""
        found = read_mark(self._engine, kind, artifact_id)
        return found is not None and not found[1].removed_at

    def metadata(self, kind: ArtifactKind, artifact_id: str) -> dict[str, Any]:
        """Return what was said of an artifact when it was written.

        Raises:
            DataError: As :meth:`path`.
        """
        self._mark(kind, artifact_id)
        found = read_mark(self._engine, kind, artifact_id)
        return found[0] if found else {}

    @retried
    def newest(self, kind: ArtifactKind, *, said: Mapping[str, str] | None = None) -> str:
        """Return the id of the newest artifact of a kind, or an empty string.

        Those whose metadata have the values of ``said`` go before all others.
        """
        table = schema.artifacts
        saying = [
            (func.coalesce(table.c.metadata[name].as_string(), "") == value).desc()
            for name, value in (said or {}).items()
        ]
        query = select(table.c.id).where(table.c.kind == kind, still_there())
        query = query.order_by(*saying, table.c.created_at.desc()).limit(1)
        with transaction(self._engine) as connection:
            return connection.execute(query).scalar() or ""

    @retried
    def resolve(self, kind: ArtifactKind, beginning: str) -> str:
        """Return the id that begins so, also of one that was removed.

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
            raise DataError(f"no {kind} {beginning!r} in {self._shelf.shown()}; newest: {newest}")
        return str(found[0])

    @retried
    def renew(self, kind: ArtifactKind, artifact_id: str) -> None:
        """Make an artifact the newest: it would have been made now, were it not there."""
        table = schema.artifacts
        mine = (table.c.kind == kind) & (table.c.id == artifact_id)
        with transaction(self._engine) as connection:
            connection.execute(update(table).where(mine).values(created_at=now()))

    @retried
    def rows(self, kind: ArtifactKind) -> list[dict[str, Any]]:
        """Return id, created_at, owner and metadata of the artifacts of a kind, newest first."""
        table = schema.artifacts
        columns = (table.c.id, table.c.created_at, table.c.owner, table.c.metadata)
        query = select(*columns).where(table.c.kind == kind, still_there())
        with transaction(self._engine) as connection:
            rows = connection.execute(query.order_by(table.c.created_at.desc())).mappings()
            return [{**row, "metadata": plain(row["metadata"])} for row in rows]

    @retried
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
        place = _place(kind, artifact_id)
        with self._shelf.lock(place):
            found = read_mark(self._engine, kind, artifact_id)
            with transaction(self._engine) as connection:
                connection.execute(delete(table).where(mine))
            self._shelf.clear(place, found[1] if found else Mark())

    @contextmanager
    def create(
        self, kind: ArtifactKind, artifact_id: str, metadata: dict[str, Any], *, mend: bool = False
    ) -> Iterator[Path]:
        """Give an empty folder to write into; it becomes the artifact when the block ends well.

        Where the artifact exists already the new folder is dropped: same id, same content.

        ``metadata`` may be filled inside the block. ``mend`` puts the new folder in the place of
        one that is damaged.

        Raises:
            StoreError: If the disk is full or read-only, or a remote location cannot be written.
        """
        place = _place(kind, artifact_id)
        folder = self._shelf.workspace(place)
        try:
            with clear_disk_errors(folder.with_name(artifact_id[:32])):
                yield folder
                with self._shelf.lock(place):
                    found = read_mark(self._engine, kind, artifact_id)
                    old = found[1] if found else None
                    if old is None or old.removed_at or mend:
                        self._keep(kind, artifact_id, metadata, folder=folder, old=old)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def push(self, kind: ArtifactKind, artifact_id: str) -> list[str]:
        """Take an artifact to where new ones go; return what is wrong with one that stays.

        Raises:
            DataError: As :meth:`path`.
            StoreError: If it cannot be written there; it stays where it was.
        """
        if wrong := self.problems(kind, artifact_id):
            return wrong
        source, metadata = self.path(kind, artifact_id), self.metadata(kind, artifact_id)
        with self.create(kind, artifact_id, metadata, mend=True) as folder:
            shutil.copytree(source, folder, dirs_exist_ok=True)
        return []

    def pack(self, kind: ArtifactKind, artifact_id: str, *, say: Say) -> bool:
        """Put an archive in the place of an artifact's files; return whether that was worth it.

        Killed at any moment, one of the two counts; ``store.rests`` removes the other.

        Raises:
            DataError: As :meth:`path`.
            StoreError: If the disk is full, or a remote location cannot be reached.
        """
        place = _place(kind, artifact_id)
        with self._shelf.lock(place):
            mark = self.measured(kind, artifact_id)
            if mark.packed or mark.hold:
                return False
            packed = self._shelf.pack(place, mark, most=_WORTH_IT)
            with transaction(self._engine) as connection:
                current = change_mark(connection, kind, artifact_id)
                is_same = current is not None and current[1].content == mark.content
                if current is not None and is_same and not current[1].hold:
                    change_mark(connection, kind, artifact_id, **vars(packed))
                    if packed.packed:
                        say(connection, mark, packed)
                else:  # mended or held meanwhile, by another machine: that counts
                    mark, packed = packed, mark
            if mark.content != packed.content:
                self._shelf.clear(place, mark)
        return packed.packed

    def expire(self, kind: ArtifactKind, artifact_id: str, *, policy: str, say: Say) -> bool:
        """Remove the content of an artifact and remember that; return whether it was removed.

        What is on legal hold, or removed already, stays as it is.
        """
        place = _place(kind, artifact_id)
        with self._shelf.lock(place):
            with transaction(self._engine) as connection:
                found = change_mark(connection, kind, artifact_id)  # from here on nobody else
                if found is None or found[0].hold or found[0].removed_at:
                    return False
                mark = found[0]
                gone = replace(
                    Mark(), at="nowhere", bytes=mark.bytes, stored=0, removed_at=now(),
                    policy=policy, refers=mark.refers,
                )  # fmt: skip
                change_mark(connection, kind, artifact_id, **vars(gone))
                say(connection, mark, gone)
            self._shelf.clear(place, mark)
        return True

    def measured(self, kind: ArtifactKind, artifact_id: str) -> Mark:
        """Return the mark of an artifact with its sizes, measured now where they are not known.

        Raises:
            DataError: As :meth:`path`.
        """
        mark = self._mark(kind, artifact_id)
        if mark.bytes >= 0:
            return mark
        return self._described(kind, artifact_id, self.path(kind, artifact_id), mark)

    def problems(self, kind: ArtifactKind, artifact_id: str, *, deep: bool = False) -> list[str]:
        """Return what is wrong with the content of an artifact, in words; nothing is changed.

        A removed one has nothing wrong. With ``deep`` every byte at a remote location is read.
        """
        found = read_mark(self._engine, kind, artifact_id)
        if found is None or found[1].removed_at:
            return []
        return self._shelf.problems(_place(kind, artifact_id), found[1], deep=deep)

    def _mark(self, kind: ArtifactKind, artifact_id: str) -> Mark:
        found = read_mark(self._engine, kind, artifact_id)
        if found is None:
            newest = self.newest(kind) or "none"
            raise DataError(f"no {kind} {artifact_id!r} in {self._shelf.shown()}; newest: {newest}")
        mark = found[1]
        if mark.removed_at:
            raise DataError(
                f"{kind} {artifact_id[:12]} was removed on {mark.removed_at[:10]} by the policy"
                f" {mark.policy!r}; what it came to is kept, to have it again make it with --force"
            )
        return mark

    def _keep(
        self, kind: ArtifactKind, artifact_id: str, metadata: dict[str, Any], *,
        folder: Path, old: Mark | None,
    ) -> None:  # fmt: skip
        """Make a written folder the artifact, in the place of an old one if there is."""
        place = _place(kind, artifact_id)
        mark = self._described(kind, artifact_id, folder, Mark())
        mark = self._shelf.keep(place, folder, mark)
        if old is None or old.removed_at:
            try:
                self._add_row(kind, artifact_id, mark.within(metadata))
            except IntegrityError:  # made elsewhere meanwhile: same id, same content
                if mark.at == "remote":
                    self._shelf.clear(place, mark)
            return
        with transaction(self._engine) as connection:
            found = change_mark(connection, kind, artifact_id)
            hold = found[1].hold if found else {}
            change_mark(connection, kind, artifact_id, **vars(replace(mark, hold=hold)))
        if old.content != mark.content:
            self._shelf.clear(place, old)

    @retried
    def _described(self, kind: ArtifactKind, artifact_id: str, folder: Path, mark: Mark) -> Mark:
        """Return a mark with what a folder holds."""
        found = contents_of(folder)
        table = schema.artifacts
        ids = sorted(found.ids - {artifact_id})[:_MOST_REFERENCES]
        query = select(table.c.id).where(table.c.id.in_(ids), table.c.kind != kind)
        known: list[str] = []
        if ids:
            with transaction(self._engine) as connection:
                known = sorted(connection.execute(query).scalars())
        return replace(
            mark, bytes=found.bytes, stored=found.bytes, packs_to=found.packs_to,
            refers=tuple(known),
        )  # fmt: skip

    def _add_row(self, kind: ArtifactKind, artifact_id: str, metadata: dict[str, Any]) -> None:
        """Say that an artifact exists, in the place of what is said of a removed one."""
        table = schema.artifacts
        row = {
            "kind": kind,
            "id": artifact_id,
            "created_at": now(),
            "owner": self._owner,
            "run": self._run,
            "metadata": metadata,
        }
        removed = (table.c.kind == kind) & (table.c.id == artifact_id) & ~still_there()

        def write(connection: Connection) -> None:
            if not connection.execute(update(table).where(removed).values(**row)).rowcount:
                connection.execute(insert(table), row)

        once(self._engine, write)


def _place(kind: str, artifact_id: str) -> str:
    return f"{kind}/{artifact_id[:32]}"
