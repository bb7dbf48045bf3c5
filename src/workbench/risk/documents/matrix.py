"""Vectors in one file, mapped, one row a chunk; searched by an exact product."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from workbench.core.errors import ConfigError, StoreError
from workbench.embedding.encoder import FloatArray

__all__ = ["Matrix", "Rows", "map_vectors", "write_vectors"]

_TYPE = "<f4"  # a product in half precision is ten times slower: no library has one for CPUs
_VALUE_BYTES = 4

Rows = npt.NDArray[np.int64]


class Matrix(NamedTuple):
    """The vectors of an index as one generation of it knows them."""

    rows: Rows
    """Those in use, ascending."""
    files: Rows
    """The file of each."""
    all: FloatArray
    """``(rows, dim)``, free ones too."""

    def nearest(self, vector: FloatArray, files: Rows | None, *, depth: int) -> list[int]:
        """Return the rows of highest cosine, best first, ties by row; exact.

        Args:
            vector: ``(dim,)`` of length 1.
            files: Only rows of these; None: of all.
            depth: The most rows.

        Raises:
            ConfigError: If the vector has another length.
        """
        rows = self.rows if files is None else self.rows[np.isin(self.files, files)]
        if not len(rows):
            return []
        if vector.shape != (self.all.shape[1],):
            raise ConfigError(
                f"query vector of shape {vector.shape}, the index has {self.all.shape[1]} columns; "
                "use its encoder"
            )
        # Single rows are copied first, which costs about as much as the product itself.
        is_few = 2 * len(rows) < len(self.all)
        scores = self.all[rows] @ vector if is_few else (self.all @ vector)[rows]
        if depth < len(rows):
            best = np.argpartition(-scores, depth)[:depth]
            rows, scores = rows[best], scores[best]
        ordered: list[int] = rows[np.lexsort((rows, -scores))].tolist()
        return ordered


def map_vectors(path: Path, *, count: int, dim: int) -> FloatArray:
    """Return the first rows of a file of vectors, mapped.

    Raises:
        StoreError: If it has fewer.
    """
    if not count:
        return np.empty((0, dim), np.float32)
    if not path.exists() or path.stat().st_size < count * dim * _VALUE_BYTES:
        raise StoreError(f"{path}: shorter than its index; remove that folder and ingest again")
    return np.asarray(np.memmap(path, _TYPE, "r", shape=(count, dim)))


def write_vectors(path: Path, rows: Sequence[int], vectors: FloatArray) -> None:
    """Write vectors at their rows of a file; they are on the disk when it returns."""
    data = np.ascontiguousarray(vectors, _TYPE)
    row_bytes = data.shape[1] * _VALUE_BYTES
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    with os.fdopen(handle, "r+b") as file:
        for run in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows) != 1) + 1):
            file.seek(rows[run[0]] * row_bytes)
            file.write(data[run].tobytes())
        file.flush()
        os.fsync(handle)
