"""Columns of an execution as numbers: what statistics need of a million attempts at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from workbench.core.errors import StoreError

if TYPE_CHECKING:
    import pyarrow as pa

    from workbench.campaign.executions import Execution

__all__ = ["Codes", "Columns", "Source", "as_numpy", "cells", "dollars", "read_columns"]

Source: TypeAlias = "Execution | Path"
"""An execution, or the Parquet file of its attempts."""
Codes = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_TEXTS = frozenset(
    {"case_id", "target", "plugin", "strategy", "category", "severity", "goal", "error", "usd"}
)


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Equally long columns; texts are codes into a list of distinct values."""

    rows: int
    values: dict[str, npt.NDArray[Any]]
    distinct: dict[str, pa.Array]

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """Return a column: numbers, flags, or the codes of texts."""
        return self.values[name]

    def labels(self, name: str) -> list[str]:
        """Return the distinct texts of a column, by code."""
        found: list[str] = self.distinct[name].to_pylist()
        return found

    def count(self, name: str) -> int:
        """Return how many distinct texts a column has."""
        return len(self.distinct[name])

    def code(self, name: str, text: str) -> int:
        """Return the code of a text; -1 where no attempt has it."""
        labels = self.labels(name)
        return labels.index(text) if text in labels else -1

    def combined(self, names: Sequence[str]) -> Codes:
        """Return one code per distinct combination of text columns, in the order of the names."""
        codes = np.zeros(self.rows, np.int64)
        for name in names:
            codes = codes * self.count(name) + self[name]
        return codes

    def where(self, mask: Flags) -> Columns:
        """Return only some of the attempts."""
        some = {name: column[mask] for name, column in self.values.items()}
        return Columns(rows=int(mask.sum()), values=some, distinct=self.distinct)

    def answered(self) -> Flags:
        """Return which attempts got an answer; needs ``error``."""
        return np.asarray(self["error"] == self.code("error", ""))


def read_columns(source: Source, names: Iterable[str]) -> Columns:
    """Return some columns of the attempts, in their order.

    Raises:
        StoreError: If the file is damaged, or of a version without these columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = sorted(set(names))
    path = source if isinstance(source, Path) else source.path
    columns, distinct = {}, {}
    try:
        with pq.ParquetFile(path, read_dictionary=[n for n in wanted if n in _TEXTS]) as file:
            if missing := ", ".join(sorted(set(wanted) - set(file.schema_arrow.names))):
                raise StoreError(f"{path}: of an older version, without {missing}; execute again")
            rows = file.metadata.num_rows
            for name in wanted:  # one at a time: half the memory of all at once
                column = file.read(columns=[name]).column(name)
                if name in _TEXTS:
                    column = column.unify_dictionaries().combine_chunks()
                    distinct[name], column = column.dictionary, column.indices
                columns[name] = as_numpy(column)
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{path}: damaged ({error}); execute the test set again") from error
    return Columns(rows=rows, values=columns, distinct=distinct)


def as_numpy(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[Any]:
    """Return an Arrow column without nulls as an array.

    Arrow's own ``to_numpy`` imports pandas, which takes 40 MB and a quarter of a second.
    """
    import pyarrow as pa

    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_boolean(whole.type):
        return np.from_dlpack(whole.cast(pa.int8())).astype(np.bool_)
    return np.from_dlpack(whole)


def dollars(columns: Columns) -> Decimal:
    """Return what attempts cost, exactly; most of them share a few prices. Needs ``usd``."""
    prices = columns.labels("usd")
    times = np.bincount(columns["usd"], minlength=len(prices)).tolist()
    return sum((Decimal(p) * n for p, n in zip(prices, times, strict=True) if n), Decimal(0))


def cells(keys: Codes, outcomes: Flags) -> tuple[Codes, Codes, Codes]:
    """Return the distinct keys in order, the successes and the attempts of each."""
    found, sizes = np.unique(keys, return_counts=True)
    won, hits = np.unique(keys[outcomes], return_counts=True)
    successes = np.zeros(len(found), np.int64)
    successes[np.searchsorted(found, won)] = hits
    return found, successes, sizes
