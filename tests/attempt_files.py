"""Attempts as an execution keeps them, in a Parquet file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

TEXTS = (
    "execution", "case_id", "target", "sent", "received", "decision", "usd", "error", "plugin",
    "strategy", "category", "severity", "goal",
)  # fmt: skip
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in TEXTS),
        ("trial", pa.int32()),
        ("is_control", pa.bool_()),
        ("success", pa.bool_()),
        ("latency_ms", pa.float64()),
        ("scores", pa.map_(pa.string(), pa.float64())),
        ("reasons", pa.map_(pa.string(), pa.string())),
    ]
)


@dataclass
class Executed:
    """What the statistics look at of an execution."""

    path: Path
    targets: tuple[str, ...]
    thresholds: dict[str, float] = field(default_factory=dict)


def attempt(goal: str = "g", **changes: Any) -> dict[str, Any]:
    """Return a row; its case is named after goal and strategy where nothing else is said."""
    row = {
        "execution": "e", "target": "t", "sent": goal, "received": "", "decision": "pass",
        "usd": "0", "error": "", "plugin": "harm-violence", "strategy": "plain",
        "category": "violence", "severity": "high", "goal": goal, "trial": 0,
        "is_control": False, "success": False, "latency_ms": 1.0, "scores": {}, "reasons": {},
    }  # fmt: skip
    row |= changes
    row.setdefault("case_id", f"{row['plugin']}:{goal}:{row['strategy']}")
    return row


def write_attempts(path: Path, rows: Iterable[dict[str, Any]], *, per_group: int = 7) -> Path:
    """Write rows in small groups, so that each has a dictionary of its own."""
    table = [
        {**row, "scores": list(row["scores"].items()), "reasons": list(row["reasons"].items())}
        for row in rows
    ]
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for start in range(0, len(table) or 1, per_group):
            page = pa.Table.from_pylist(table[start : start + per_group], schema=SCHEMA)
            writer.write_table(page)
    return path
