"""Vectors computed once: an append-only cache on disk, and an encoder that reads it first.

Two files per encoder, ``keys.bin`` (16 bytes a text) and ``rows.f16`` (``2 · dim`` bytes a text),
in a folder that carries the encoder's id: 78 MB for 100,000 texts of MiniLM. Half precision turns
a vector by a cosine of 1 - 10⁻⁷. Rows reach the disk before their keys and the shorter file
counts, so a killed writer loses its last rows and nothing else. Writers take turns by a file lock;
readers need none.

In memory are the keys in order and the number of each one's row, 24 bytes a text; rows stay on the
disk and are mapped.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from workbench.core.cluster import check_executor, open_executor
from workbench.core.errors import ConfigError, StoreError
from workbench.core.identity import text_id
from workbench.embedding.encoder import (
    MINILM_DIM,
    MINILM_IDS,
    Encoder,
    FloatArray,
    MiniLM,
    TokenStates,
    load_encoder,
)  # fmt: skip
from workbench.store.artifacts import clear_disk_errors
from workbench.store.database import Store

__all__ = [
    "CachedEncoder", "VectorCache", "Workers", "encode_elsewhere", "open_encoder", "text_key",
]  # fmt: skip

_KEY_BYTES = 16
_ROW_TYPE = "<f2"
_CHUNK_TEXTS = 512  # encoded between two appends: a kill loses about four seconds of work

_MANY_TEXTS = 2_048
"""From so many on, workers are worth their start."""
_DEALT = 4
"""Chunks per worker that are dealt at once: what is encoded waits here, not in a queue."""


def text_key(text: str) -> bytes:
    """Return the cache's key of a text: the first 16 bytes of its sha256.

    128 bits: among a billion texts two share a key with probability 10⁻²¹.
    """
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:_KEY_BYTES]


class VectorCache:
    """Key → row in half precision for one encoder, shared by processes.

    Each encoder has a cache of its own, a folder in the folder of all caches.
    """

    def __init__(self, folder: Path, encoder_id: str, dim: int) -> None:
        readable = re.sub(r"[^\w.@-]", "_", encoder_id)
        # The dtype is in the name: a cache of float32 rows, as they once were, is left alone.
        self.folder = folder / f"{readable}-{text_id(encoder_id, str(dim), _ROW_TYPE)[:8]}"
        self.dim = dim
        self._keys = self.folder / "keys.bin"
        self._rows = self.folder / "rows.f16"
        self._row_bytes = 2 * dim
        # A last key above all others, of row -1, makes every search end inside the array.
        self._sorted = np.array([b"\xff" * _KEY_BYTES])
        self._numbers = np.array([-1])
        self._map: npt.NDArray[np.float16] = np.empty((0, dim), np.float16)
        with clear_disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._lock():
                self._repair()
        self.refresh()

    def __len__(self) -> int:
        return len(self._map)

    def find(self, keys: Sequence[bytes]) -> npt.NDArray[np.intp]:
        """Return the row number of each key, -1 where no process has appended it yet."""
        wanted = np.array(keys, self._sorted.dtype)
        found = self._search(wanted)
        if -1 in found:
            self.refresh()
            found = self._search(wanted)
        return found

    def _search(self, wanted: npt.NDArray[np.bytes_]) -> npt.NDArray[np.intp]:
        at = self._sorted.searchsorted(wanted)
        return np.where(self._sorted[at] == wanted, self._numbers[at], -1)

    def rows(self, numbers: npt.NDArray[np.intp]) -> FloatArray:
        """Return a copy of rows, ``(len(numbers), dim)`` in float32, of the length they had."""
        return self._map[numbers].astype(np.float32)

    def refresh(self) -> None:
        """Take in what other processes have appended."""
        known, count = len(self._map), self._complete()
        if count == known:
            return
        new = np.fromfile(self._keys, f"S{_KEY_BYTES}", count - known, offset=known * _KEY_BYTES)
        keys = np.concatenate([self._sorted, new])
        numbers = np.concatenate([self._numbers, np.arange(known, count)])
        order = keys.argsort(kind="stable")  # one that makes use of what is in order already
        self._sorted, self._numbers = keys[order], numbers[order]
        self._map = np.asarray(np.memmap(self._rows, _ROW_TYPE, "r", shape=(count, self.dim)))

    def append(self, keys: Sequence[bytes], rows: npt.NDArray[np.floating]) -> None:
        """Add rows; keys that are there already, perhaps from another process, are left alone.

        Raises:
            StoreError: If the disk is full or read-only; what was there before stays.
        """
        with clear_disk_errors(self.folder), self._lock():
            self._repair()
            first = {key: number for number, key in reversed(list(enumerate(keys)))}
            there = self.find(keys) >= 0
            new = sorted(number for number in first.values() if not there[number])
            _extend(self._rows, rows[new].astype(_ROW_TYPE).tobytes())
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
        self,
        load: Callable[[], Encoder],
        folder: Path,
        *,
        encoder_id: str,
        dim: int,
        workers: Workers | None = None,
    ) -> None:
        self.id = encoder_id
        self.dim = dim
        self.cache = VectorCache(folder, encoder_id, dim)
        self._load = load
        self._workers = workers
        self._encoder: Encoder | None = None

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Return ``(len(texts), dim)`` float32 rows of length 1; writes new ones to the cache.

        Raises:
            StoreError: If the loaded encoder is not the one of the cache, or the disk is full.
            WorkerLost: If workers keep dying; what has come back from them is kept.
        """
        keys = [text_key(text) for text in texts]
        found = self.cache.find(keys)
        if missing := {
            keys[number]: texts[number] for number in np.flatnonzero(found < 0).tolist()
        }:
            self._compute(missing)
            found = self.cache.find(keys)
        rows = self.cache.rows(found)
        # Half precision changed the lengths, by some 10⁻⁵.
        lengths: FloatArray = np.sqrt(np.einsum("ij,ij->i", rows, rows))
        return rows / lengths[:, None]

    def tokens(self, texts: Sequence[str]) -> Iterator[TokenStates]:
        """Give the token states of each text, in order; computed each time, none is kept.

        Raises:
            ConfigError: If the encoder has vectors of whole texts only.
            StoreError: If the loaded encoder is not the one of the cache.
        """
        encoder = self._loaded()
        if not isinstance(encoder, MiniLM):
            raise ConfigError(f"encoder {self.id} tells no tokens apart; use 'minilm'")
        return encoder.tokens(texts)

    def _loaded(self) -> Encoder:
        if self._encoder is None:
            encoder = self._load()
            if (encoder.id, encoder.dim) != (self.id, self.dim):
                raise StoreError(
                    f"vector cache of {self.id} got encoder {encoder.id}; open it by that id"
                )
            self._encoder = encoder
        return self._encoder

    def _compute(self, missing: dict[bytes, str]) -> None:
        keys = sorted(missing, key=lambda key: (len(missing[key]), key))  # like lengths together
        chunks = [keys[at : at + _CHUNK_TEXTS] for at in range(0, len(keys), _CHUNK_TEXTS)]
        if self._workers and len(keys) >= _MANY_TEXTS:
            self._compute_elsewhere(chunks, missing, self._workers)
            return
        encoder = self._loaded()
        for chunk in chunks:
            self.cache.append(chunk, encoder.encode([missing[key] for key in chunk]))

    def _compute_elsewhere(
        self, chunks: list[list[bytes]], missing: dict[bytes, str], workers: Workers
    ) -> None:
        """Have workers encode; this process alone writes to the cache, as chunks come back."""
        with open_executor(workers.executor, jobs=workers.jobs) as pool:
            waiting = iter(chunks)
            width = _DEALT * getattr(pool, "width", workers.jobs)
            while some := list(islice(waiting, width)):
                futures = {}
                for chunk in some:
                    texts = [missing[key] for key in chunk]
                    what = (workers.name, workers.offline, self.id, texts)
                    futures[pool.submit(encode_elsewhere, *what)] = chunk
                for future in as_completed(futures):
                    self.cache.append(futures[future], future.result())


class Workers(NamedTuple):
    """Who encodes where many texts are missing."""

    name: str
    """Of the encoder, for :func:`workbench.embedding.encoder.load_encoder`."""
    offline: bool
    executor: str
    """See :func:`workbench.core.cluster.check_executor`."""
    jobs: int


def encode_elsewhere(
    name: str, offline: bool, encoder_id: str, texts: Sequence[str]
) -> npt.NDArray[np.float16]:
    """Return rows as the cache keeps them; runs on a worker, which loads an encoder once.

    Raises:
        StoreError: If the worker's encoder is another one.
    """
    encoder = _load_once(name, offline=offline)
    if encoder.id != encoder_id:
        raise StoreError(
            f"a worker has encoder {encoder.id}, not {encoder_id}; give it the same model"
        )
    return encoder.encode(texts).astype(_ROW_TYPE)


@lru_cache(maxsize=2)
def _load_once(name: str, *, offline: bool) -> Encoder:
    return load_encoder(name, offline=offline)


def open_encoder(
    store: Store, name: str = "minilm", *, executor: str = "", jobs: int = 1
) -> CachedEncoder:
    """Return the encoder of that name on the store's vector cache.

    MiniLM, in either precision, is loaded at the first miss only. Another model is loaded at
    once, because its id is the hash of its weights.

    Args:
        store: Has the cache.
        name: As in :func:`workbench.embedding.encoder.load_encoder`.
        executor: Who encodes where thousands of texts are missing, see
            :func:`workbench.core.cluster.check_executor`; this process if empty.
        jobs: How many, but for a scheduler that is running already.

    Raises:
        ConfigError: If the model, or the package that it needs, is not there.
        StoreError: If the cache cannot be used, or weights are not those that were published.
    """
    folder = store.home / "vectors"
    offline = store.settings.offline
    workers = Workers(name, offline, check_executor(executor), jobs) if executor else None
    if name in MINILM_IDS:
        load: Callable[[], Encoder] = partial(MiniLM, name, folder=store.home / "encoders")
        return CachedEncoder(
            load, folder, encoder_id=MINILM_IDS[name], dim=MINILM_DIM, workers=workers
        )
    encoder = load_encoder(name, offline=store.settings.offline)
    return CachedEncoder(
        lambda: encoder, folder, encoder_id=encoder.id, dim=encoder.dim, workers=workers
    )


def _extend(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
