"""What a store holds, to be compared before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import select

from workbench.core.identity import file_sha256
from workbench.store import schema
from workbench.store.artifacts import KINDS
from workbench.store.database import Store
from workbench.store.isolation import everybody


def contents(store: Store) -> dict[str, Any]:
    """Return all rows by table, paths in the home shortened, and the hash of every file."""
    found: dict[str, Any] = {}
    engine = everybody(store.engine)
    with engine.connect() as connection:
        for table in schema.metadata.sorted_tables:
            rows = connection.execute(select(table)).mappings()
            found[table.name] = sorted(
                repr(dict(row)).replace(str(store.home), "HOME") for row in rows
            )
    artifacts = store.artifacts.seeing(engine)
    for kind in KINDS:
        for row in artifacts.rows(kind):
            folder = artifacts.path(kind, row["id"])
            found[f"{kind} {row['id']}"] = files(folder)
    return found


def files(folder: Path) -> dict[str, str]:
    """Return name → hash of the files below a folder."""
    below = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): file_sha256(path) for path in below}
