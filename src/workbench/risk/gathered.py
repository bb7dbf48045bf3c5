"""Evidence that is gathered once: kept under what it depends on, and found again after a kill."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from datetime import date
from typing import Final

import pyarrow as pa

from workbench.core.identity import content_id
from workbench.risk.evidence import gather
from workbench.risk.snapshot import Snapshot
from workbench.store.database import Store

__all__ = ["gathered"]

_FILE: Final = "evidence.parquet"
_FORMAT: Final = 2
"""Raised where the same snapshot says something else, or in other columns."""


def gathered(
    store: Store,
    cves: Sequence[str],
    snapshot: Snapshot,
    *,
    today: date,
    executor: Executor | None = None,
) -> pa.Table:
    """Return ``evidence.gather`` of the ids; from the store where it was gathered before.

    Raises:
        DataError: If a file of the snapshot is damaged.
        StoreError: If the disk is full or read-only.
    """
    import pyarrow.parquet as pq

    one = content_id([_FORMAT, snapshot.id, snapshot.made_at, today.isoformat(), list(cves)])
    if store.artifacts.exists("evidence", one):
        try:
            return pq.read_table(store.artifacts.path("evidence", one) / _FILE)
        except (OSError, pa.ArrowException):  # damaged: what can be gathered again is
            store.artifacts.remove("evidence", one)
    table = gather(cves, snapshot, today=today, executor=executor)
    about = {"snapshot": snapshot.id, "today": today.isoformat(), "cves": len(cves)}
    with store.artifacts.create("evidence", one, about) as folder:
        pq.write_table(table, folder / _FILE, compression="zstd")
    return table
