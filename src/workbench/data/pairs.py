"""Pairs in numbers: what they grow from, and how a set of them is kept as shards of Parquet."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from workbench.core.errors import DataError
from workbench.core.identity import file_sha256
from workbench.store.records import Pair, Relation, Split

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "COLUMNS", "RELATIONS", "SPLITS", "PairSet", "Source", "Stem", "read_pairs", "write_pairs",
]  # fmt: skip

RELATIONS: tuple[Relation, ...] = get_args(Relation)
SPLITS: tuple[Split, ...] = get_args(Split)
COLUMNS = ("id", *(field.name for field in dataclasses.fields(Pair)))
"""Every field of a pair, all of them text, and its id first."""

_SCHEMA = pa.schema([(name, pa.string()) for name in COLUMNS])


@dataclass(frozen=True, kw_only=True, slots=True)
class Stem:
    """One request, and the pairs that grow from it; it can be sent to another process."""

    core: str
    """The request, whatever it is wrapped in; its own safe ones may be asked for as well."""
    parent_id: str = ""
    """The seed that it is, translates or paraphrases; empty where the source names none."""
    category: str
    language: str = "en"
    texts: tuple[str, ...]
    """The core and the clean sides of its pairs: what evaluation sets are compared with."""
    grow: Callable[..., Iterator[Pair]]
    """``grow(seed=...)`` yields pairs in an order that depends on stem and seed alone."""
    size: int | None = 1
    """Pairs that ``grow`` yields; None: it never stops."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """What pairs are drawn from."""

    name: str
    """Name that its pairs carry."""
    revision: str
    """Version of its content, as whoever made it calls it."""
    content: str
    """Hash of all that its pairs are made of, whatever the revision is called."""
    license: str
    """SPDX id, or the words of the source."""
    stems: Sequence[Stem]
    limit: int | None = None
    """Pairs to draw; None: an equal share of what the target leaves."""
    is_trained_only: bool = False
    """Whether its pairs may be trained on but never tested on, e.g. feedback."""
    is_evaluated_only: bool = False
    """Whether training on it would spoil a benchmark."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Reason → rows that no pair was made of."""


@dataclass(frozen=True, kw_only=True)
class PairSet:
    """A stored set of pairs: shards of Parquet and a manifest."""

    version: str
    folder: Path
    manifest: dict[str, Any]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """Columns :data:`COLUMNS`, all pairs in memory; for a large set read :meth:`shards`."""
        import pandas as pd

        return pd.concat(self.shards(), ignore_index=True)

    def part(self, split: str) -> pd.DataFrame:
        """Return the pairs of one split, numbered from 0.

        Raises:
            DataError: If there is no split of that name.
        """
        if split not in SPLITS:
            raise DataError(f"no split {split!r}; the splits are: {', '.join(SPLITS)}")
        return self.frame[self.frame["split"] == split].reset_index(drop=True)

    def shards(self) -> Iterator[pd.DataFrame]:
        """Yield the pairs of one shard after another, at most 20,000 at a time.

        Raises:
            DataError: As :meth:`verify`.
        """
        for shard in self.manifest["shards"]:
            self._check(shard)
            yield read_pairs(self.folder / shard["file"])

    def verify(self) -> None:
        """Check that every shard is as it was written.

        Raises:
            DataError: If one is missing or altered; names it.
        """
        for shard in self.manifest["shards"]:
            self._check(shard)

    def _check(self, shard: dict[str, Any]) -> None:
        path = self.folder / shard["file"]
        if not path.is_file():
            raise DataError(f"{path}: shard is missing; build the set again")
        if file_sha256(path) != shard["sha256"]:
            raise DataError(f"{path}: shard was altered after it was written; build the set again")


def write_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    """Write pairs as Parquet."""
    columns = {name: [getattr(pair, name) for pair in pairs] for name in COLUMNS}
    # level 1 takes a fifth of the time of level 3 and leaves 8 % more on disk
    pq.write_table(pa.table(columns, schema=_SCHEMA), path, compression="zstd", compression_level=1)


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
