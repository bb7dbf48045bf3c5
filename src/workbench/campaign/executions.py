"""Executions in the store: rows while they run, one Parquet artifact afterwards."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from workbench.campaign.strategies.base import chain_name
from workbench.campaign.targets.base import Kind
from workbench.core.errors import DataError, StoreError
from workbench.core.plain import storable
from workbench.core.redact import redact
from workbench.store.artifacts import write_json_atomic
from workbench.store.campaigns import add_outcomes, attempt_pages, remove_attempts
from workbench.store.database import Store
from workbench.store.leases import Lease
from workbench.store.records import Attempt, TestCase
from workbench.store.results import JudgeReport
from workbench.store.test_sets import owners_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Execution", "compact", "finished", "load_execution"]

_ATTEMPTS_FILE = "attempts.parquet"
_MANIFEST_FILE = "manifest.json"
_ROWS_PER_GROUP = 10_000
_SEVERITIES = {"": 0, "low": 1, "medium": 2, "high": 3, "critical": 4}
_ROWS_AT_ONCE = 500
"""Held as Python objects at a time while rows become an artifact."""
_ATTEMPT = (
    "execution", "case_id", "target", "trial", "sent", "received", "replies", "decision", "scores",
    "reasons", "success", "latency_ms", "usd", "error",
)  # fmt: skip
_FACTS = ("plugin", "strategy", "category", "severity", "goal", "is_control")
"""Of the case, beside each attempt: so that no analysis has to look into the test set."""
_OTHER_TYPES: Mapping[str, pa.DataType] = {
    "trial": pa.int32(),
    "scores": pa.map_(pa.string(), pa.float64()),
    "reasons": pa.map_(pa.string(), pa.string()),
    "replies": pa.list_(pa.string()),
    "success": pa.bool_(),
    "is_control": pa.bool_(),
    "latency_ms": pa.float64(),
}
_PARQUET = pa.schema([(name, _OTHER_TYPES.get(name, pa.string())) for name in (*_ATTEMPT, *_FACTS)])

_JSON = pa.schema(
    [
        (one.name, pa.list_(pa.struct([("key", one.type.key_type), ("value", one.type.item_type)])))
        if pa.types.is_map(one.type)
        else (one.name, one.type)
        for one in _PARQUET
    ]
)
"""The same as Arrow reads it from JSON, which knows no maps."""


@dataclass(frozen=True, kw_only=True)
class Execution:
    """A finished execution: every case against every target, as often as asked for."""

    id: str
    test_set: str
    targets: tuple[str, ...]
    kinds: Mapping[str, Kind]
    """Target → whether it is a guard or a model."""
    baselines: tuple[str, ...]
    """Targets that do not claim to defend."""
    trials: int
    count: int
    """Attempts."""
    errors: int
    """Attempts whose target failed; neither successes nor failures."""
    usd: Decimal
    """What it cost, judges included where they do."""
    judges: tuple[JudgeReport, ...]
    """The probes and their own error."""
    thresholds: Mapping[str, float]
    """Judge id → score from which it says that an attack succeeded."""
    accuracy: tuple[Mapping[str, Any], ...]
    """Of the judges of answers, on labelled cases."""
    path: Path
    """Parquet file of the attempts."""
    resumed: int = 0
    """Attempts that an earlier process had already made."""

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return attempts as an Arrow table, texts as dictionaries; all columns, or some."""
        texts = [one.name for one in _PARQUET if one.type == pa.string()]
        return pq.read_table(self.path, columns=columns, read_dictionary=texts)

    def attempts(self) -> Iterator[Attempt]:
        """Iterate over the attempts; holds some thousands at a time."""
        for row in _rows(self.path, _ATTEMPT):
            yield Attempt(**{**row, "replies": tuple(row["replies"])})

    def frame(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Return attempts as a data frame, for notebooks."""
        frame: pd.DataFrame = self.table(columns).to_pandas(maps_as_pydicts="lossy")
        return frame


def compact(
    store: Store,
    manifest: dict[str, Any],
    *,
    cases: Iterable[TestCase],
    before: Path | None = None,
    lease: Lease | None = None,
) -> None:
    """Turn the rows of an execution into its artifact, then remove them.

    Killed in between, the artifact stands and removing the rows is all that is left to do.

    Args:
        store: Where rows and artifact are.
        manifest: What is known of the execution but for its counts.
        cases: All that were sent.
        before: Attempts of an earlier artifact of the same execution, of which rows replace the
            failed ones.
        lease: Of the execution; rows stay where it is another's by now, who needs them.
    """
    execution = manifest["execution"]
    facts, taxonomies = _facts_of(cases)
    metadata = {"test_set": manifest["test_set"], "targets": manifest["targets"]}
    counts: Counter[str] = Counter()
    usd = Decimal(0)
    outcomes: dict[tuple[str, str, str], _Outcome] = {}
    with store.artifacts.create("execution", execution, metadata, mend=bool(before)) as folder:
        with pq.ParquetWriter(folder / _ATTEMPTS_FILE, _PARQUET, compression="zstd") as writer:
            waiting: list[pa.Table] = []
            for page in _pages(store, execution, before=before):
                for row in page:
                    row.update(zip(_FACTS, facts[row["case_id"]], strict=True))
                    counts["attempts"] += 1
                    counts["errors"] += bool(row["error"])
                    usd += Decimal(row["usd"])
                    _count_outcome(outcomes, row, taxonomies[row["case_id"]])
                waiting.append(_as_table(page))
                if len(waiting) * _ROWS_AT_ONCE >= _ROWS_PER_GROUP:
                    writer.write_table(pa.concat_tables(waiting))
                    waiting.clear()
            if waiting:
                writer.write_table(pa.concat_tables(waiting))
        write_json_atomic(folder / _MANIFEST_FILE, {"usd": str(usd), **manifest, **counts})
    add_outcomes(
        store.engine,
        execution,
        [
            {"target": target, "plugin": plugin, "strategy": strategy, **one.row()}
            for (target, plugin, strategy), one in sorted(outcomes.items(), key=itemgetter(0))
        ],
    )
    remove_attempts(store.engine, execution, lease=lease)


def finished(path: Path) -> dict[str, set[tuple[str, int]]]:
    """Return target → (case id, trial) of the attempts in a Parquet file that did not fail."""
    done: dict[str, set[tuple[str, int]]] = {}
    for row in _rows(path, ("target", "case_id", "trial", "error")):
        if not row["error"]:
            done.setdefault(row["target"], set()).add((row["case_id"], row["trial"]))
    return done


def load_execution(store: Store, execution: str = "", *, resumed: int = 0) -> Execution:
    """Return a finished execution; an empty id means the newest.

    Args:
        store: Where it is.
        execution: Its id, or the beginning of it.
        resumed: Attempts that an earlier process had made.

    Raises:
        DataError: If there is none of that id, or its test set belongs to others.
        StoreError: If its files are damaged.
    """
    kind: Final = "execution"
    known = execution or store.artifacts.newest(kind)
    if execution and not store.artifacts.exists(kind, execution):
        known = store.artifacts.resolve(kind, execution)
    folder = store.artifacts.path(kind, known)
    try:
        manifest = json.loads((folder / _MANIFEST_FILE).read_text(encoding="utf-8"))
        _check_owner(store, manifest["test_set"], execution=known)
        return Execution(
            id=known,
            test_set=manifest["test_set"],
            targets=tuple(manifest["targets"]),
            kinds=manifest["kinds"],
            baselines=tuple(manifest["baselines"]),
            trials=manifest["trials"],
            count=manifest["attempts"],
            errors=manifest["errors"],
            usd=Decimal(manifest["usd"]),
            judges=tuple(manifest["judges"]),
            thresholds=manifest["thresholds"],
            accuracy=tuple(manifest["accuracy"]),
            path=_checked(folder / _ATTEMPTS_FILE, rows=manifest["attempts"]),
            resumed=resumed,
        )
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(
            f"{folder}: damaged or of an older version ({error}); execute the test set again"
        ) from error


def _check_owner(store: Store, test_set: str, *, execution: str) -> None:
    owners = owners_of(store.engine, test_set)
    if owners and store.settings.user not in owners:
        raise DataError(
            f"execution {execution[:12]} is of a test set that {store.settings.user!r} does not"
            " own; have it shared first"
        )


def _checked(path: Path, *, rows: int) -> Path:
    found = pq.read_metadata(path).num_rows
    if found != rows:
        raise ValueError(f"{path.name} has {found} attempts, not {rows}")
    return path


@dataclass(slots=True)
class _Outcome:
    """What the attempts of one attack on one target came to."""

    successes: int = 0
    attempts: int = 0
    severity: str = ""
    taxonomy: set[str] = field(default_factory=set)

    def row(self) -> dict[str, Any]:
        return asdict(self) | {"taxonomy": sorted(self.taxonomy)}


def _facts_of(
    cases: Iterable[TestCase],
) -> tuple[dict[str, tuple[str | bool, ...]], dict[str, tuple[str, ...]]]:
    """Return :data:`_FACTS` and taxonomy ids of cases by their id."""
    facts: dict[str, tuple[str | bool, ...]] = {}
    taxonomies: dict[str, tuple[str, ...]] = {}
    shared: dict[tuple[str, ...], tuple[str, ...]] = {}  # one object per kind, not per case
    for case in cases:
        facts[case.id] = (
            *map(storable, (case.plugin, chain_name(case.strategies), case.category)),
            case.severity, storable(redact(case.goal)), case.is_control,
        )  # fmt: skip
        told = tuple(map(storable, case.taxonomy))
        taxonomies[case.id] = shared.setdefault(told, told)
    return facts, taxonomies


def _count_outcome(
    outcomes: dict[tuple[str, str, str], _Outcome],
    row: Mapping[str, Any],
    taxonomy: Iterable[str],
) -> None:
    if row["is_control"] or row["error"]:
        return
    cell = outcomes.setdefault((row["target"], row["plugin"], row["strategy"]), _Outcome())
    cell.successes += row["success"]
    cell.attempts += 1
    worst = len(_SEVERITIES)  # what other tools call it counts as the worst
    cell.severity = max(
        cell.severity, row["severity"], key=lambda name: _SEVERITIES.get(name, worst)
    )
    cell.taxonomy.update(taxonomy)


def _pages(store: Store, execution: str, *, before: Path | None) -> Iterator[list[dict[str, Any]]]:
    """Give the rows of an execution, then what an earlier artifact has beside them."""
    written: set[tuple[str, str, int]] = set()
    for page in attempt_pages(store.engine, execution, rows=_ROWS_AT_ONCE):
        if before:
            written.update((row["target"], row["case_id"], row["trial"]) for row in page)
        for row in page:
            row.update(scores=_entries(row["scores"]), reasons=_entries(row["reasons"]))
        yield page
    if before:
        with pq.ParquetFile(before) as file:
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=list(_ATTEMPT)):
                rows = [
                    row | {"scores": _entries(row["scores"]), "reasons": _entries(row["reasons"])}
                    for row in batch.to_pylist(maps_as_pydicts="lossy")
                    if (row["target"], row["case_id"], row["trial"]) not in written
                ]
                if rows:
                    yield rows


def _entries(by_judge: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": judge, "value": value} for judge, value in sorted(by_judge.items())]


def _as_table(page: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return rows as a table; ``Table.from_pylist`` would import pandas, which takes 40 MB."""
    import pyarrow.json as pj

    text = "".join(json.dumps(row) + "\n" for row in page).encode()
    table = pj.read_json(
        pa.BufferReader(text),
        read_options=pj.ReadOptions(use_threads=False, block_size=len(text) + 1),
        parse_options=pj.ParseOptions(explicit_schema=_JSON),
    )
    for name in ("scores", "reasons"):
        pairs = table.column(name).combine_chunks()
        entries = pairs.values
        by_judge = pa.MapArray.from_arrays(
            pairs.offsets, entries.field("key"), entries.field("value")
        )
        table = table.set_column(table.schema.get_field_index(name), name, by_judge)
    return table.select(_PARQUET.names)


def _rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_ROWS_PER_GROUP, columns=list(columns)):
            for row in batch.to_pylist(maps_as_pydicts="lossy"):
                yield row | {"usd": Decimal(row["usd"])} if "usd" in row else row
