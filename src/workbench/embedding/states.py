"""Token states computed once: an append-only, memory-mapped cache on disk with a limit.

Three files per encoder: ``keys.bin`` (16 bytes a text), ``ends.i64`` (the row after the text's
last) and ``states.f16``. Rows reach the disk before their keys and the shortest file counts, so a
killed writer loses its last texts and nothing else. A text that the limit leaves no room for is
computed each time it is asked for.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from workbench.core.identity import text_id
from workbench.embedding.encoder import FloatArray, MiniLM, Window
from workbench.embedding.vectors import text_key
from workbench.store.artifacts import clear_disk_errors

__all__ = ["LIMIT_BYTES", "StateCache"]

LIMIT_BYTES: Final = 10 * 10**9
_KEY_BYTES, _END_BYTES = 16, 8
_CHUNK_TEXTS = 64  # at most some 100 MB in memory


class StateCache:
    """States of the windows of texts, special tokens included, in half precision.

    Args:
        folder: Where caches are kept; each encoder has a folder of its own in it.
        encoder: Computes what is missing.
        limit_bytes: How large the file of states may become.
    """

    def __init__(self, folder: Path, encoder: MiniLM, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self.encoder = encoder
        self.folder = folder / f"{encoder.id}-{text_id(encoder.id)[:8]}"
        self._files = [self.folder / name for name in ("keys.bin", "ends.i64", "states.f16")]
        self._limit_rows = limit_bytes // (2 * encoder.dim)
        self._places: dict[bytes, int] = {}
        self._ends: npt.NDArray[np.int64] = np.zeros(1, np.int64)
        self._map: npt.NDArray[np.float16] = np.empty((0, encoder.dim), np.float16)
        with clear_disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._lock():
                self._repair()
        self._refresh()

    def fill(self, texts: Sequence[str], *, tell: Callable[[int, int], None] | None = None) -> None:
        """Compute and keep what is missing, as far as the limit allows; ``tell(done, total)``.

        Raises:
            StoreError: If the disk is full or read-only; what was there before stays.
        """
        wanted = {text_key(text): text for text in texts}
        missing = [text for key, text in wanted.items() if key not in self._places]
        missing.sort(key=len)  # like lengths together
        chunks = [
            missing[start : start + _CHUNK_TEXTS] for start in range(0, len(missing), _CHUNK_TEXTS)
        ]
        # in an order of its own: of two that fill at once, each finds what the other has computed
        random.shuffle(chunks)
        done = 0
        for chunk in chunks:
            self._refresh()
            if self._ends[-1] >= self._limit_rows:
                return
            left = [text for text in chunk if text_key(text) not in self._places]
            if left:
                self._append(left)
            done += len(chunk)
            if tell:
                tell(done, len(missing))

    def get(self, texts: Sequence[str]) -> list[FloatArray]:
        """Return the states of each text, its windows end to end, ``(tokens, dim)``."""
        keys = [text_key(text) for text in texts]
        missing = [number for number, key in enumerate(keys) if key not in self._places]
        computed = dict(zip(missing, self._compute([texts[one] for one in missing]), strict=True))
        found = []
        for number, key in enumerate(keys):
            place = self._places.get(key)
            rows = (
                computed[number]
                if place is None
                else self._map[self._ends[place] : self._ends[place + 1]]
            )
            found.append(rows.astype(np.float32))
        return found

    def windows(self, texts: Sequence[str]) -> Iterator[list[Window]]:
        """Give the windows of each text as :meth:`MiniLM.windows` does, computed once and kept."""
        self.fill(texts)
        spans = self.encoder.spans(texts)
        for text, several in zip(texts, spans, strict=True):
            edges = np.cumsum([len(one) for one in several])[:-1]
            states = np.split(self.get([text])[0], edges)
            yield list(map(Window, states, several))

    def _compute(self, texts: Sequence[str]) -> Iterator[npt.NDArray[np.float16]]:
        for several in self.encoder.windows(texts):
            # rounded whether kept or not: what is trained on does not depend on the limit
            yield np.concatenate([one.states for one in several]).astype(np.float16)

    def _append(self, texts: Sequence[str]) -> None:
        rows = list(self._compute(texts))
        with clear_disk_errors(self.folder), self._lock():
            self._repair()
            self._refresh()
            new = [
                (key, states)
                for text, states in zip(texts, rows, strict=True)
                if (key := text_key(text)) not in self._places
            ]
            ends = np.cumsum([len(states) for _, states in new]) + self._ends[-1]
            contents = (
                b"".join(key for key, _ in new),
                ends.astype("<i8").tobytes(),
                b"".join(states.astype("<f2").tobytes() for _, states in new),
            )
            for file, content in reversed(list(zip(self._files, contents, strict=True))):
                with file.open("ab") as handle:
                    handle.write(content)
        self._refresh()

    def _lock(self) -> FileLock:
        return FileLock(self.folder / "lock")

    def _complete(self) -> int:
        """Return how many texts are whole in all three files."""
        keys, ends, states = self._files
        count = min(keys.stat().st_size // _KEY_BYTES, ends.stat().st_size // _END_BYTES)
        rows = states.stat().st_size // (2 * self.encoder.dim)
        return int(np.searchsorted(np.fromfile(ends, "<i8", count), rows, side="right"))

    def _refresh(self) -> None:
        keys, ends, states = self._files
        known = len(self._places)
        # keys reach the disk last: without new ones there is nothing to read
        if keys.stat().st_size // _KEY_BYTES == known or (count := self._complete()) == known:
            return
        new = np.fromfile(keys, f"V{_KEY_BYTES}", count - known, offset=known * _KEY_BYTES)
        self._places |= {key.tobytes(): known + number for number, key in enumerate(new)}
        self._ends = np.concatenate([[0], np.fromfile(ends, "<i8", count)])
        shape = (int(self._ends[-1]), self.encoder.dim)
        self._map = np.asarray(np.memmap(states, "<f2", "r", shape=shape))

    def _repair(self) -> None:
        """Cut the files to the texts that are whole in all of them; for holders of the lock."""
        for file in self._files:
            file.touch()
        count = self._complete()
        rows = int(np.fromfile(self._files[1], "<i8", count)[-1]) if count else 0
        sizes = (count * _KEY_BYTES, count * _END_BYTES, rows * 2 * self.encoder.dim)
        for file, size in zip(self._files, sizes, strict=True):
            if file.stat().st_size != size:
                os.truncate(file, size)
