"""Executions in the store: rows while they run, one Parquet artifact afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import delete, insert, select

from workbench.core.errors import StoreError
from workbench.store import schema
from workbench.store.artifacts import write_json_atomic
from workbench.store.database import Store
from workbench.store.records import Attempt
from workbench.store.results import JudgeReport

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["AttemptRows", "Execution", "is_finished", "load_execution"]

_ATTEMPTS_FILE = "attempts.parquet"
_MANIFEST_FILE = "manifest.json"
_ROWS_PER_GROUP = 10_000
_PARQUET = pa.schema(
    [
        ("execution", pa.string()),
        ("case_id", pa.string()),
        ("target", pa.string()),
        ("sent", pa.string()),
        ("received", pa.string()),
        ("decision", pa.string()),
        ("scores", pa.map_(pa.string(), pa.float64())),
        ("success", pa.bool_()),
        ("latency_ms", pa.float64()),
        ("usd", pa.string()),
        ("error", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Execution:
    """A finished execution: every case against every target, once."""

    id: str
    test_set: str
    targets: tuple[str, ...]
    baselines: tuple[str, ...]
    """Targets that do not claim to defend."""
    attempts: tuple[Attempt, ...]
    """By target, then case id."""
    judges: tuple[JudgeReport, ...]
    thresholds: dict[str, float]
    """Judge id → probability from which a text counts as unsafe."""
    resumed: int = 0
    """Attempts that an earlier process had already made."""

    @property
    def errors(self) -> int:
        """Attempts whose target failed; neither successes nor failures."""
        return sum(bool(attempt.error) for attempt in self.attempts)

    def frame(self) -> pd.DataFrame:
        """Return the attempts as a data frame, for notebooks."""
        import pandas as pd

        return pd.DataFrame([asdict(attempt) for attempt in self.attempts])


class AttemptRows:
    """The rows of one execution while it runs."""

    def __init__(self, store: Store, execution: str) -> None:
        self._engine = store.engine
        self._store = store
        self._execution = execution

    def done(self, target: str) -> set[str]:
        """Return the ids of the cases that were already sent to a target."""
        table = schema.attempts
        query = select(table.c.case_id).where(
            table.c.execution == self._execution, table.c.target == target
        )
        with self._engine.connect() as connection:
            return set(connection.execute(query).scalars())

    def add(self, attempts: Iterable[Attempt]) -> None:
        """Write attempts in one transaction."""
        rows = [asdict(attempt) | {"usd": str(attempt.usd)} for attempt in attempts]
        if rows:
            with self._engine.begin() as connection:
                connection.execute(insert(schema.attempts), rows)

    def compact(self, manifest: dict[str, Any]) -> None:
        """Turn the rows into the artifact of the execution, then remove them.

        Killed in between, the artifact stands and :meth:`remove` is all that is left to do.

        Raises:
            StoreError: If the disk is full or read-only; the rows are kept.
        """
        metadata = {"test_set": manifest["test_set"], "targets": manifest["targets"]}
        with self._store.artifacts.create("execution", self._execution, metadata) as folder:
            path = folder / _ATTEMPTS_FILE
            with pq.ParquetWriter(path, _PARQUET, compression="zstd") as writer:
                for rows in self._pages():
                    writer.write_table(pa.Table.from_pylist(rows, schema=_PARQUET))
            write_json_atomic(folder / _MANIFEST_FILE, manifest)
        self.remove()

    def remove(self) -> None:
        """Remove the rows."""
        table = schema.attempts
        with self._engine.begin() as connection:
            connection.execute(delete(table).where(table.c.execution == self._execution))

    def _pages(self) -> Iterator[list[dict[str, Any]]]:
        table = schema.attempts
        query = (
            select(table)
            .where(table.c.execution == self._execution)
            .order_by(table.c.target, table.c.case_id)
        )
        with self._engine.connect() as connection:
            for page in connection.execute(query).mappings().partitions(_ROWS_PER_GROUP):
                yield [{**row, "scores": sorted(row["scores"].items())} for row in page]


def is_finished(store: Store, execution: str) -> bool:
    """Return whether an execution is complete."""
    return store.artifacts.exists("execution", execution)


def load_execution(store: Store, execution: str = "", *, resumed: int = 0) -> Execution:
    """Return a finished execution; an empty id means the newest.

    Args:
        store: Where it is.
        execution: Its id.
        resumed: What to say of attempts made by an earlier process.

    Raises:
        DataError: If there is none of that id.
        StoreError: If its files are damaged.
    """
    execution = execution or store.artifacts.newest("execution")
    folder = store.artifacts.path("execution", execution)
    try:
        manifest = json.loads((folder / _MANIFEST_FILE).read_text(encoding="utf-8"))
        attempts = tuple(_attempts(folder / _ATTEMPTS_FILE))
        return Execution(
            id=execution,
            test_set=manifest["test_set"],
            targets=tuple(manifest["targets"]),
            baselines=tuple(manifest["baselines"]),
            attempts=attempts,
            judges=tuple(manifest["judges"]),
            thresholds=manifest["thresholds"],
            resumed=resumed,
        )
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(f"{folder}: damaged ({error}); execute the test set again") from error


def _attempts(path: Path) -> Iterator[Attempt]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_ROWS_PER_GROUP):
            for row in batch.to_pylist():
                yield Attempt(**{**row, "scores": dict(row["scores"]), "usd": Decimal(row["usd"])})
