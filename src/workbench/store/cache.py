"""Folders that were fetched or unpacked, kept until the room is needed."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock

from workbench.core.identity import new_id
from workbench.store.packing import files_below

__all__ = ["FolderCache"]

_IN_USE_S = 3600
"""What was asked for so lately may still be read, and stays whatever the limit says."""


class FolderCache:
    """Folders by key; what a key holds never changes, so that readers are never disturbed.

    Args:
        root: Where they are kept.
        limit: Bytes from which on the least recently used go.
    """

    def __init__(self, root: Path, *, limit: int) -> None:
        self._root = root
        self._limit = limit

    def get(self, key: str, name: str, fill: Callable[[Path], None]) -> Path:
        """Return a folder, filled by the first who asks; all others wait for it.

        Args:
            key: Letters and digits; another content has another key.
            name: What the folder is called.
            fill: Writes the content into the folder it is given.
        """
        entry = self._root / key
        if (found := entry / name).is_dir():
            self._touch(entry)
            return found
        self._root.mkdir(parents=True, exist_ok=True)
        with FileLock(self._root / f".{key}.lock"):
            if not found.is_dir():
                temporary = self._root / f".{key}.{new_id('tmp')}"
                try:
                    (temporary / name).mkdir(parents=True)
                    fill(temporary / name)
                    temporary.replace(entry)
                finally:
                    shutil.rmtree(temporary, ignore_errors=True)
            self._touch(entry)
        self._evict(but=key)
        return found

    def adopt(self, key: str, name: str, folder: Path) -> None:
        """Move a folder into the cache that would be fetched next otherwise."""
        self.get(key, name, lambda place: _move(folder, place))

    def drop(self, key: str) -> None:
        """Forget a folder; its name is gone before its files are."""
        gone = self._root / f".{key}.{new_id('tmp')}"
        try:
            (self._root / key).replace(gone)
        except FileNotFoundError:
            return
        shutil.rmtree(gone, ignore_errors=True)
        (self._root / f".{key}.lock").unlink(missing_ok=True)

    def _evict(self, *, but: str) -> None:
        kept = sorted(self._entries(), reverse=True)
        total = 0
        for used_at, key, size in kept:
            total += size
            if total > self._limit and key != but and time.time() - used_at > _IN_USE_S:
                self.drop(key)
                total -= size

    def _entries(self) -> Iterator[tuple[float, str, int]]:
        for entry in self._root.iterdir():
            if not entry.name.startswith("."):
                try:
                    size = sum(path.stat().st_size for path in files_below(entry))
                    yield entry.stat().st_mtime, entry.name, size
                except FileNotFoundError:  # dropped by another process meanwhile
                    continue

    @staticmethod
    def _touch(entry: Path) -> None:
        try:
            os.utime(entry)
        except FileNotFoundError:  # dropped by another process meanwhile: the next one fetches it
            return


def _move(folder: Path, place: Path) -> None:
    for one in folder.iterdir():
        one.replace(place / one.name)
