"""Pairs in numbers: where they come from, and how they are kept as Parquet and as a frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from workbench.core.errors import DataError
from workbench.store.records import Pair, Relation, Split

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "RELATIONS", "SPLITS", "PairSet", "Source", "read_pairs", "write_pairs"]

RELATIONS: tuple[Relation, ...] = get_args(Relation)
SPLITS: tuple[Split, ...] = get_args(Split)
COLUMNS = ("id", *(field.name for field in dataclasses.fields(Pair)))
"""Every field of a pair, all of them text, and its id first."""

_SCHEMA = pa.schema([(name, pa.string()) for name in COLUMNS])


@dataclass(frozen=True, kw_only=True)
class Source:
    """What pairs are drawn from."""

    name: str
    """Name that its pairs carry."""
    revision: str
    """Version of its content."""
    license: str
    """SPDX id, or the words of the source."""
    grow: Callable[..., Iterator[Pair]]
    """``grow(seed=...)`` yields pairs in an order that depends on the seed alone."""
    is_endless: bool = False
    """Whether ``grow`` never stops."""


@dataclass(frozen=True, kw_only=True)
class PairSet:
    """A stored set of pairs."""

    version: str
    frame: pd.DataFrame
    """Columns :data:`COLUMNS`, in the order grown."""
    manifest: dict[str, Any]

    def part(self, split: str) -> pd.DataFrame:
        """Return the pairs of one split, numbered from 0.

        Raises:
            DataError: If there is no split of that name.
        """
        if split not in SPLITS:
            raise DataError(f"no split {split!r}; the splits are: {', '.join(SPLITS)}")
        return self.frame[self.frame["split"] == split].reset_index(drop=True)


def write_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    """Write pairs as Parquet."""
    columns = {name: [getattr(pair, name) for pair in pairs] for name in COLUMNS}
    pq.write_table(pa.table(columns, schema=_SCHEMA), path, compression="zstd")


def read_pairs(path: Path) -> pd.DataFrame:
    """Return the frame of pairs that :func:`write_pairs` wrote; refuse a damaged file."""
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: cannot be read ({str(error).splitlines()[0]}); build the set again"
        ) from error
    if tuple(table.schema.names) != COLUMNS:
        raise DataError(f"{path}: columns differ from this version's; build the set again")
    frame: pd.DataFrame = table.to_pandas()
    return frame
