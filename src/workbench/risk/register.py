"""The register as one table: every risk of an assessment with what is known of it, worst first."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from workbench.core.errors import DataError
from workbench.core.identity import file_sha256
from workbench.store.artifacts import write_json_atomic
from workbench.store.risk_results import RiskRow

if TYPE_CHECKING:
    from workbench.store.database import Store

__all__ = [
    "RISKS", "Assessment", "as_risks", "load_assessment", "matrix", "recorded", "row_of",
    "rows_of", "save_assessment",
]  # fmt: skip

_FORMAT = 1
_TEXTS = pa.list_(pa.string())


def _fields(kind: pa.DataType, names: str, *, nullable: bool = False) -> list[pa.Field]:
    return [pa.field(name, kind, nullable=nullable) for name in names.split()]


RISKS = pa.schema([
    *_fields(pa.string(), "id kind subject title asset component state level"),
    *_fields(pa.int16(), "score score_known likelihood impact likelihood_known impact_known"),
    *_fields(pa.float64(), "p_exploit annual_loss_usd"),
    *_fields(pa.string(), "decision decision_known due owner status first_seen reason source"),
    *_fields(pa.string(), "told_by fixed_in"),
    *_fields(_TEXTS, "missing stale weakness techniques"),
    *_fields(pa.int8(), "criticality", nullable=True),
    *_fields(pa.float64(), "cvss epss", nullable=True),
    *_fields(pa.bool_(), "kev ransomware", nullable=True),
    *_fields(pa.string(), "exposure cvss_vector kev_added exploitation automatable", nullable=True),
    *_fields(pa.string(), "technical_impact execution explanation explained_by", nullable=True),
    *_fields(pa.int64(), "attempts successes", nullable=True),
    *_fields(_TEXTS, "reasons", nullable=True),
])  # fmt: skip
"""Columns of ``risks.parquet``: those of ``RiskRow`` and the evidence. What can be null is
unknown, or is said of one kind of risk, or of the top risks, only."""

_ORDER = [
    ("score", "descending"), ("score_known", "descending"), ("p_exploit", "descending"),
    ("annual_loss_usd", "descending"), ("subject", "ascending"), ("asset", "ascending"),
    ("component", "ascending"), ("id", "ascending"),
]  # fmt: skip
_OPTIONAL = ("reasons", "explanation", "explained_by", "techniques", "fixed_in")
_ROW = tuple(name for name in RISKS.names if name in RiskRow.__annotations__)
_RECORDED = (
    "id", "kind", "subject", "title", "asset", "component", "level", "score", "likelihood",
    "impact", "p_exploit", "annual_loss_usd", "decision", "due", "owner", "state", "reason",
    "told_by",
)  # fmt: skip
_FIX = "assess again with `workbench risk assess`"


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """What was found on one day: the register, and what it rests on."""

    id: str
    table: pa.Table
    """Columns of :data:`RISKS`, worst first."""
    manifest: Mapping[str, Any]
    """Whatever of ``AssessmentResult`` is no row: today, policy, snapshot, sources, problems."""


def as_risks(columns: pa.Table | Mapping[str, Any]) -> pa.Table:
    """Return columns as the table of a register, worst first; what may be null may be absent.

    Raises:
        ValueError: If a column that every risk has is absent or holds null.
    """
    table = columns if isinstance(columns, pa.Table) else pa.table(dict(columns))
    made = []
    for field in RISKS:
        if field.name in table.column_names:
            made.append(table[field.name].cast(field.type))
        elif field.nullable:
            made.append(pa.nulls(len(table), field.type))
        else:
            raise ValueError(f"no column {field.name!r} in the table of risks")
        if not field.nullable and made[-1].null_count:
            raise ValueError(f"column {field.name!r} of the risks holds null")
    return pa.table(made, schema=RISKS).sort_by(_ORDER).combine_chunks()


def save_assessment(store: Store, table: pa.Table, manifest: Mapping[str, Any]) -> None:
    """Write an assessment as an artifact, in the place of the same one; it is the newest then.

    Args:
        store: The store.
        table: As :func:`as_risks` gives it.
        manifest: Its id under ``assessment``; JSON values.
    """
    one = str(manifest["assessment"])
    about = {"today": manifest.get("today", ""), "risks": len(table)}
    with store.artifacts.create("assessment", one, about, mend=True) as folder:
        file = folder / "risks.parquet"
        pq.write_table(table, file, compression="zstd")
        told = {**manifest, "format": _FORMAT, "risks_sha256": file_sha256(file)}
        write_json_atomic(folder / "manifest.json", told)
    store.artifacts.renew("assessment", one)


def load_assessment(store: Store, beginning: str = "") -> Assessment:
    """Return an assessment by the beginning of its id; the newest where none is given.

    Raises:
        DataError: If there is none, or it is damaged.
        StoreError: If the database cannot be read.
    """
    newest = store.artifacts.newest("assessment")
    if not newest:
        raise DataError("no assessment yet; make one with `workbench risk assess`")
    one = store.artifacts.resolve("assessment", beginning) if beginning else newest
    folder = store.artifacts.path("assessment", one)
    manifest = _manifest(folder / "manifest.json")
    table = _table(folder / "risks.parquet", sha256=manifest.pop("risks_sha256", ""))
    return Assessment(id=one, table=table, manifest=manifest)


def _manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({type(error).__name__}); {_FIX}") from error
    if not isinstance(manifest, dict) or manifest.pop("format", None) != _FORMAT:
        raise DataError(f"{path}: not of format {_FORMAT}; {_FIX}")
    return manifest


def _table(path: Path, *, sha256: str) -> pa.Table:
    try:
        if file_sha256(path) != sha256:
            raise DataError(f"{path}: altered since it was written; {_FIX}")
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: cannot be read ({type(error).__name__}); {_FIX}") from error
    if not table.schema.equals(RISKS):
        raise DataError(f"{path}: has the columns of another version; {_FIX}")
    return table


def rows_of(table: pa.Table, *, top: int | None = None) -> list[RiskRow]:
    """Return the first risks of a table, or all, as a report shows them; without empty extras."""
    rows = table.select(_ROW).slice(0, top).to_pylist()
    kept = (
        {name: value for name, value in row.items() if value or name not in _OPTIONAL}
        for row in rows
    )
    return cast("list[RiskRow]", list(kept))


def recorded(table: pa.Table) -> list[dict[str, Any]]:
    """Return what ``store.risks.record`` takes of each risk."""
    columns = (table[name].to_pylist() for name in _RECORDED)
    return [dict(zip(_RECORDED, values, strict=True)) for values in zip(*columns, strict=True)]


def matrix(table: pa.Table) -> list[list[int]]:
    """Return how many open risks there are by likelihood (rows, 1 to 5) and impact (columns)."""
    still = table.filter(pc.equal(table["status"], "open"))
    likelihood, impact = (still[name].to_numpy() for name in ("likelihood", "impact"))
    counted = np.zeros((5, 5), dtype=np.int64)
    np.add.at(counted, (likelihood - 1, impact - 1), 1)
    return counted.tolist()


def row_of(store: Store, risk: str, *, assessment: str) -> dict[str, Any]:
    """Return all that an assessment says of a risk; nothing where it is damaged or gone."""
    try:
        table = load_assessment(store, assessment).table
    except DataError:
        return {}
    rows: list[dict[str, Any]] = table.filter(pc.equal(table["id"], risk)).to_pylist()
    return rows[0] if rows else {}
