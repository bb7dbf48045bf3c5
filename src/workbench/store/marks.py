"""What the store says of an artifact beside what its maker said: where it is, how large, on hold.

It is one entry of the metadata, which nobody else is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, func, select, update

from workbench.core.identity import new_id
from workbench.store import schema
from workbench.store.ledger import take_turn
from workbench.store.transaction import retried, transaction

__all__ = [
    "ENTRY", "Mark", "Marked", "change_mark", "marked", "new_key", "plain", "read_mark",
    "still_there",
]  # fmt: skip

ENTRY = "_storage"


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Where the content of an artifact is."""

    at: str = "folder"
    """``folder`` or ``archive`` below the home, ``remote``, or ``nowhere`` once it is removed."""
    key: str = ""
    """Name of the upload, or under which an archive is unpacked; another content, another key."""
    sha256: str = ""
    """Of the archive, where there is one below the home."""
    packed: bool = False
    bytes: int = -1
    """Of the whole content; -1 where it was never measured."""
    stored: int = -1
    """Of what is kept of it now."""
    packs_to: int = -1
    """What it would take packed: estimated, or measured where packing was not worth it."""
    refers: tuple[str, ...] = ()
    """Ids of the artifacts that it was made from."""
    hold: Mapping[str, str] = field(default_factory=dict)
    """Legal hold: who, when and why; empty without one."""
    removed_at: str = ""
    policy: str = ""
    """By which it was removed."""

    @property
    def content(self) -> tuple[str, str]:
        """Where the content is; equal marks of one artifact have one content."""
        return (self.at, self.key)

    @classmethod
    def of(cls, metadata: Mapping[str, Any] | None) -> Mark:
        """Return the mark in metadata; that of a plain folder where there is none."""
        said = (metadata or {}).get(ENTRY) or {}
        known = {one.name: said[one.name] for one in fields(cls) if one.name in said}
        return cls(**known | {"refers": tuple(known.get("refers", ()))})

    def within(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Return metadata with the mark in it."""
        usual = asdict(Mark())
        said = {name: value for name, value in asdict(self).items() if value != usual[name]}
        return {**metadata, ENTRY: said}


@dataclass(frozen=True, kw_only=True)
class Marked:
    """An artifact and its mark."""

    kind: str
    id: str
    created_at: str
    owner: str
    metadata: Mapping[str, Any]
    """What its maker said."""
    mark: Mark


@retried
def read_mark(engine: Engine, kind: str, artifact_id: str) -> tuple[dict[str, Any], Mark] | None:
    """Return what its maker said of an artifact, and its mark; None if it never was."""
    with transaction(engine) as connection:
        return _read(connection, kind, artifact_id)


def change_mark(
    connection: Connection, kind: str, artifact_id: str, **changes: Any
) -> tuple[Mark, Mark] | None:
    """Change fields of a mark in a transaction of the caller's; return it before and after.

    Who changes another at the same time waits, on any machine. None if the artifact never was.
    """
    take_turn(connection)
    found = _read(connection, kind, artifact_id)
    if found is None:
        return None
    metadata, mark = found
    changed = Mark(**{**vars(mark), **changes})
    table = schema.artifacts
    mine = (table.c.kind == kind) & (table.c.id == artifact_id)
    connection.execute(update(table).where(mine).values(metadata=changed.within(metadata)))
    return mark, changed


@retried
def marked(engine: Engine) -> list[Marked]:
    """Return all artifacts with their marks, also the removed ones, oldest first."""
    table = schema.artifacts
    columns = (table.c.kind, table.c.id, table.c.created_at, table.c.owner, table.c.metadata)
    query = select(*columns).order_by(table.c.created_at, table.c.kind, table.c.id)
    with transaction(engine) as connection:
        rows = [dict(row) for row in connection.execute(query).mappings()]
    return [
        Marked(**{**row, "metadata": plain(row["metadata"])}, mark=Mark.of(row["metadata"]))
        for row in rows
    ]


def still_there() -> ColumnElement[bool]:
    """Return the condition that an artifact was not removed."""
    return func.coalesce(schema.artifacts.c.metadata[(ENTRY, "removed_at")].as_string(), "") == ""


def new_key() -> str:
    """Return a name for content that was not there before; it tells when it was made."""
    return new_id("up")


def _read(
    connection: Connection, kind: str, artifact_id: str
) -> tuple[dict[str, Any], Mark] | None:
    table = schema.artifacts
    query = select(table.c.metadata).where(table.c.kind == kind, table.c.id == artifact_id)
    metadata = connection.execute(query).scalar()
    return None if metadata is None else (plain(metadata), Mark.of(metadata))


def plain(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata without the mark."""
    return {name: value for name, value in metadata.items() if name != ENTRY}
