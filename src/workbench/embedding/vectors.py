"""Vectors computed once: an append-only cache on disk, and an encoder that reads it first.

Two files per encoder, ``keys.bin`` (16 bytes a text) and ``rows.f32`` (``4 · dim`` bytes a text),
in a folder that carries the encoder's id. Rows reach the disk before their keys and the shorter
file counts, so a killed writer loses its last rows and nothing else. Writers take turns by a file
lock; readers need none.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from workbench.core.errors import StoreError
from workbench.core.identity import text_id
from workbench.embedding.encoder import MINILM_DIM, MINILM_ID, Encoder, FloatArray, load_encoder
from workbench.store.artifacts import clear_disk_errors
from workbench.store.database import Store

__all__ = ["CachedEncoder", "VectorCache", "open_encoder", "text_key"]

_KEY_BYTES = 16
_CHUNK_TEXTS = 512  # encoded between two appends: a kill loses about four seconds of work


def text_key(text: str) -> bytes:
    """Return the cache's key of a text: the first 16 bytes of its sha256.

    128 bits: among a billion texts two share a key with probability 10⁻²¹.
    """
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:_KEY_BYTES]


class VectorCache:
    """Key → float32 row for one encoder, shared by processes.

    Each encoder has a cache of its own, a folder in the folder of all caches.
    """

    def __init__(self, folder: Path, encoder_id: str, dim: int) -> None:
        readable = re.sub(r"[^\w.@-]", "_", encoder_id)
        self.folder = folder / f"{readable}-{text_id(encoder_id, str(dim))[:8]}"
        self.dim = dim
        self._keys = self.folder / "keys.bin"
        self._rows = self.folder / "rows.f32"
        self._row_bytes = 4 * dim
        self._index: dict[bytes, int] = {}
        self._map: FloatArray = np.empty((0, dim), np.float32)
        with clear_disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._lock():
                self._repair()
        self.refresh()

    def __len__(self) -> int:
        return len(self._map)

    def find(self, keys: Sequence[bytes]) -> npt.NDArray[np.intp]:
        """Return the row number of each key, -1 where no process has appended it yet."""
        if not all(key in self._index for key in keys):
            self.refresh()
        return np.array([self._index.get(key, -1) for key in keys], np.intp)

    def rows(self, numbers: npt.NDArray[np.intp]) -> FloatArray:
        """Return a copy of rows, ``(len(numbers), dim)``."""
        return np.asarray(self._map[numbers])

    def refresh(self) -> None:
        """Take in what other processes have appended."""
        known, count = len(self._map), self._complete()
        if count == known:
            return
        with self._keys.open("rb") as file:
            file.seek(known * _KEY_BYTES)
            data = file.read((count - known) * _KEY_BYTES)
        new = np.frombuffer(data, f"V{_KEY_BYTES}").tolist()
        self._index.update(zip(new, range(known, count), strict=True))
        self._map = np.memmap(self._rows, np.float32, "r", shape=(count, self.dim))

    def append(self, keys: Sequence[bytes], rows: FloatArray) -> None:
        """Add rows; keys that are there already, perhaps from another process, are left alone.

        Raises:
            StoreError: If the disk is full or read-only; what was there before stays.
        """
        with clear_disk_errors(self.folder), self._lock():
            self._repair()
            self.refresh()
            first = {key: number for number, key in reversed(list(enumerate(keys)))}
            new = sorted(number for key, number in first.items() if key not in self._index)
            _extend(self._rows, np.ascontiguousarray(rows[new], "<f4").tobytes())
            _extend(self._keys, b"".join(keys[number] for number in new))
        self.refresh()

    def _lock(self) -> FileLock:
        return FileLock(self.folder / "lock")

    def _complete(self) -> int:
        return min(
            self._keys.stat().st_size // _KEY_BYTES, self._rows.stat().st_size // self._row_bytes
        )

    def _repair(self) -> None:
        """Cut both files to the texts that are complete in both; for holders of the lock."""
        for file in (self._keys, self._rows):
            file.touch()
        count = self._complete()
        for file, size in ((self._keys, _KEY_BYTES), (self._rows, self._row_bytes)):
            if file.stat().st_size != count * size:
                os.truncate(file, count * size)


class CachedEncoder:
    """An encoder that computes a text once and loads its network at the first text it never saw."""

    def __init__(
        self, load: Callable[[], Encoder], folder: Path, *, encoder_id: str, dim: int
    ) -> None:
        self.id = encoder_id
        self.dim = dim
        self.cache = VectorCache(folder, encoder_id, dim)
        self._load = load
        self._encoder: Encoder | None = None

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Return ``(len(texts), dim)`` float32 rows of length 1; writes new ones to the cache.

        Raises:
            StoreError: If the loaded encoder is not the one of the cache, or the disk is full.
        """
        keys = [text_key(text) for text in texts]
        found = self.cache.find(keys)
        if missing := {
            keys[number]: texts[number] for number in np.flatnonzero(found < 0).tolist()
        }:
            self._compute(missing)
            found = self.cache.find(keys)
        return self.cache.rows(found)

    def _compute(self, missing: dict[bytes, str]) -> None:
        if self._encoder is None:
            self._encoder = self._load()
            if (self._encoder.id, self._encoder.dim) != (self.id, self.dim):
                raise StoreError(
                    f"vector cache of {self.id} got encoder {self._encoder.id}; open it by that id"
                )
        keys = sorted(missing, key=lambda key: (len(missing[key]), key))  # like lengths together
        for start in range(0, len(keys), _CHUNK_TEXTS):
            chunk = keys[start : start + _CHUNK_TEXTS]
            self.cache.append(chunk, self._encoder.encode([missing[key] for key in chunk]))


def open_encoder(store: Store, name: str = "minilm") -> CachedEncoder:
    """Return the encoder of that name on the store's vector cache.

    MiniLM is loaded at the first miss only. Another model is loaded at once, because its id is
    the hash of its weights.

    Raises:
        ConfigError: If the model, or the package that it needs, is not there.
        StoreError: If the cache cannot be used, or weights are not those that were published.
    """
    folder = store.home / "vectors"
    if name == "minilm":
        return CachedEncoder(load_encoder, folder, encoder_id=MINILM_ID, dim=MINILM_DIM)
    encoder = load_encoder(name, offline=store.settings.offline)
    return CachedEncoder(lambda: encoder, folder, encoder_id=encoder.id, dim=encoder.dim)


def _extend(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
