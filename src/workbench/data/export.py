"""A pair set for other programs and for people: exported whole, or some pairs of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from heapq import nsmallest
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, Literal

from workbench.core.errors import ConfigError, DataError
from workbench.core.identity import new_id, stable_fraction
from workbench.data.card import card_markdown, make_card
from workbench.data.pairs import SPLITS, PairSet
from workbench.store.artifacts import clear_disk_errors

__all__ = ["FORMATS", "Format", "export", "sample"]

Format = Literal["jsonl", "parquet", "datasets"]


def export(pair_set: PairSet, out: Path, *, form: Format) -> None:
    """Write a pair set and its card into a new folder, whole or not at all.

    Args:
        pair_set: What to export.
        out: Folder that does not exist yet.
        form: ``jsonl`` or ``parquet``: a file per split; ``datasets``: what
            ``datasets.load_from_disk`` reads, a ``DatasetDict`` of the splits.

    Raises:
        ConfigError: If the folder exists.
        DataError: If a shard is damaged.
        StoreError: If the disk is full.
    """
    if out.exists():
        raise ConfigError(f"{out} exists; give a folder that does not")
    temporary = out.with_name(f".{out.name}.{new_id('tmp')}")
    with clear_disk_errors(out):
        try:
            temporary.mkdir(parents=True)
            FORMATS[form](pair_set, temporary)
            (temporary / "README.md").write_text(card_markdown(make_card(pair_set)), "utf-8")
            temporary.replace(out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _jsonl(pair_set: PairSet, folder: Path) -> None:
    for frame in pair_set.shards():
        for split, part in frame.groupby("split"):
            with (folder / f"{split}.jsonl").open("a", encoding="utf-8") as file:
                for row in part.to_dict(orient="records"):
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _parquet(pair_set: PairSet, folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    writers: dict[str, pq.ParquetWriter] = {}
    try:
        for frame in pair_set.shards():
            for split, part in frame.groupby("split"):
                table = pa.Table.from_pandas(part, preserve_index=False)
                if (split := str(split)) not in writers:
                    path = folder / f"{split}.parquet"
                    writers[split] = pq.ParquetWriter(path, table.schema, compression="zstd")
                writers[split].write_table(table)
    finally:
        for writer in writers.values():
            writer.close()


def _datasets(pair_set: PairSet, folder: Path) -> None:
    from datasets import DatasetDict, load_dataset

    rows = folder / ".rows"
    rows.mkdir()
    _parquet(pair_set, rows)
    files = {
        split: str(rows / f"{split}.parquet")
        for split in SPLITS
        if (rows / f"{split}.parquet").is_file()
    }
    found: DatasetDict = load_dataset("parquet", data_files=files, cache_dir=str(folder / ".cache"))
    found.save_to_disk(folder)
    del found  # its files are mapped
    for name in (".rows", ".cache"):
        shutil.rmtree(folder / name)


FORMATS: Final[dict[Format, Callable[[PairSet, Path], None]]] = {
    "jsonl": _jsonl,
    "parquet": _parquet,
    "datasets": _datasets,
}


def sample(
    pair_set: PairSet, *, count: int, seed: int, only: Mapping[str, str]
) -> list[dict[str, str]]:
    """Return some pairs, drawn evenly from those that fit.

    Args:
        pair_set: Where from; its shards are read one by one.
        count: Most pairs.
        seed: Decides which.
        only: Column → the value that it must have.

    Raises:
        DataError: If nothing fits, or a shard is damaged.
    """
    drawn: list[tuple[float, Any]] = []
    for frame in pair_set.shards():
        for name, value in only.items():
            frame = frame[frame[name] == value]  # noqa: PLW2901
        lots = [stable_fraction("sample", str(seed), one) for one in frame["id"]]
        rows = zip(lots, frame.to_dict(orient="records"), strict=True)
        drawn = nsmallest(count, chain(drawn, rows), key=itemgetter(0))
    if not drawn:
        wanted = ", ".join(f"{name} {value}" for name, value in only.items())
        raise DataError(f"pair set {pair_set.version[:12]} has no pair with {wanted}")
    return [row for _, row in drawn]
