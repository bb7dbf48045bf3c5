"""Pairs as columns: one Arrow schema, and the ways between records, Parquet and frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from workbench.core.errors import DataError
from workbench.store.records import Pair, Relation, Split

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "RELATIONS",
    "SCHEMA",
    "SPLITS",
    "PairSet",
    "read_pairs",
    "to_records",
    "to_table",
    "write_pairs",
]

RELATIONS: tuple[Relation, ...] = get_args(Relation)
SPLITS: tuple[Split, ...] = get_args(Split)

_FIELDS = tuple(field.name for field in dataclasses.fields(Pair))
SCHEMA = pa.schema([(name, pa.string()) for name in ("id", *_FIELDS)])
"""Every field of a pair, and its id first."""


@dataclass(frozen=True, kw_only=True)
class PairSet:
    """A stored set of pairs."""

    version: str
    frame: pd.DataFrame
    """Columns of :data:`SCHEMA`, sorted as grown."""
    manifest: dict[str, Any]

    def part(self, split: str) -> pd.DataFrame:
        """Return the pairs of one split, numbered from 0.

        Raises:
            DataError: If there is no split of that name.
        """
        if split not in SPLITS:
            raise DataError(f"no split {split!r}; the splits are: {', '.join(SPLITS)}")
        return self.frame[self.frame["split"] == split].reset_index(drop=True)


def to_table(pairs: Sequence[Pair]) -> pa.Table:
    """Return pairs as an Arrow table of :data:`SCHEMA`."""
    names = SCHEMA.names
    return pa.Table.from_arrays(
        [pa.array([getattr(pair, name) for pair in pairs], pa.string()) for name in names],
        schema=SCHEMA,
    )


def to_records(frame: pd.DataFrame) -> list[Pair]:
    """Return the rows of a frame as pairs."""
    columns = [frame[name].tolist() for name in _FIELDS]
    return [
        Pair(**dict(zip(_FIELDS, values, strict=True))) for values in zip(*columns, strict=True)
    ]


def write_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    """Write pairs as Parquet."""
    pq.write_table(to_table(pairs), path, compression="zstd")


def read_pairs(path: Path) -> pd.DataFrame:
    """Return the frame of pairs that :func:`write_pairs` wrote.

    Raises:
        DataError: If the file is damaged or has other columns.
    """
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: cannot be read ({str(error).splitlines()[0]}); build the set again"
        ) from error
    if table.schema.names != SCHEMA.names:
        raise DataError(f"{path}: columns differ from this version's; build the set again")
    frame: pd.DataFrame = table.to_pandas()
    return frame
