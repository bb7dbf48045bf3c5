"""Executions in the store: rows while they run, one Parquet artifact afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from workbench.core.errors import StoreError
from workbench.store.artifacts import write_json_atomic
from workbench.store.campaigns import attempt_pages, remove_attempts
from workbench.store.database import Store
from workbench.store.records import Attempt
from workbench.store.results import JudgeReport

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Execution", "compact", "load_execution"]

_ATTEMPTS_FILE = "attempts.parquet"
_MANIFEST_FILE = "manifest.json"
_ROWS_PER_GROUP = 10_000
_TEXTS = ("execution", "case_id", "target", "sent", "received", "decision", "usd", "error")
_PARQUET = pa.schema(
    [
        *((name, pa.string()) for name in _TEXTS),
        ("scores", pa.map_(pa.string(), pa.float64())),
        ("success", pa.bool_()),
        ("latency_ms", pa.float64()),
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


def compact(store: Store, manifest: dict[str, Any]) -> None:
    """Turn the rows of an execution into its artifact, then remove them.

    Killed in between, the artifact stands and removing the rows is all that is left to do.
    """
    execution = manifest["execution"]
    metadata = {"test_set": manifest["test_set"], "targets": manifest["targets"]}
    with store.artifacts.create("execution", execution, metadata) as folder:
        path = folder / _ATTEMPTS_FILE
        with pq.ParquetWriter(path, _PARQUET, compression="zstd") as writer:
            for page in attempt_pages(store.engine, execution, rows=_ROWS_PER_GROUP):
                rows = [{**row, "scores": sorted(row["scores"].items())} for row in page]
                writer.write_table(pa.Table.from_pylist(rows, schema=_PARQUET))
        write_json_atomic(folder / _MANIFEST_FILE, manifest)
    remove_attempts(store.engine, execution)


def load_execution(store: Store, execution: str = "", *, resumed: int = 0) -> Execution:
    """Return a finished execution; an empty id means the newest.

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
