"""Where the content of artifacts is: folders and archives of this machine, or a remote location."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from workbench.core.errors import StoreError
from workbench.core.identity import new_id
from workbench.store.cache import FolderCache
from workbench.store.files import clear_disk_errors
from workbench.store.marks import Mark, new_key
from workbench.store.packing import files_below, pack, sha256_of, unpack
from workbench.store.remote import Remote

__all__ = ["Shelf"]

_ARCHIVE = "folder.tar.zst"


class Shelf:
    """Content by place, ``<kind>/<id>``; which of it counts is told by marks.

    Args:
        root: Folder of this machine.
        remote: Where new content goes instead; what is in the folder stays there.
        cache: Of folders that were fetched or unpacked.
    """

    def __init__(self, root: Path, *, remote: Remote | None, cache: FolderCache) -> None:
        self.root = root
        self.remote = remote
        self._cache = cache

    def shown(self, place: str = "") -> str:
        """Return a place for messages, or where all of them are."""
        where = self.remote.url if self.remote else str(self.root)
        return f"{where}/{place}" if place else where

    def lock(self, place: str) -> FileLock:
        """Return the lock of a place among the processes of this machine."""
        final = self.root / place
        final.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(final.with_name(f".{final.name}.lock"))

    def workspace(self, place: str) -> Path:
        """Return a new empty folder beside a place, so that it can be moved there."""
        final = self.root / place
        folder = final.with_name(f".{final.name}.{new_id('tmp')}")
        with clear_disk_errors(final):
            folder.mkdir(parents=True)
        return folder

    def path(self, place: str, mark: Mark) -> Path:
        """Return the folder with the content that a mark is of, fetched or unpacked if need be.

        Raises:
            FileNotFoundError: If it is gone.
            StoreError: If it is damaged, or cannot be reached.
        """
        final = self.root / place
        if mark.at == "remote":
            return self._cache.get(
                mark.key, final.name, lambda folder: self._fetch(place, mark.key, folder)
            )
        if mark.at == "archive":
            return self._cache.get(
                mark.key, final.name, lambda folder: self._unpack(place, mark, folder)
            )
        if not final.is_dir() and self._aside(final).is_dir():  # killed between two renames
            self._aside(final).replace(final)
        if not final.is_dir():
            raise FileNotFoundError(final)
        return final

    def keep(self, place: str, folder: Path, mark: Mark) -> Mark:
        """Take a written folder; return the mark with where it is now."""
        if self.remote:
            key = self.remote.upload(place, folder)
            self._cache.adopt(key, Path(place).name, folder)
            return replace(mark, at="remote", key=key)
        final = self.root / place
        aside = self._aside(final)
        if final.is_dir():
            shutil.rmtree(aside, ignore_errors=True)
            final.replace(aside)
        folder.replace(final)
        shutil.rmtree(aside, ignore_errors=True)
        return replace(mark, at="folder", key="")

    def pack(self, place: str, mark: Mark, *, most: float) -> Mark:
        """Write the archive of a place beside its content; return the mark that is of it.

        Args:
            place: Kind and id.
            mark: What is there.
            most: Share of the size from which on it is not worth it: the mark then only says so.
        """
        folder, workspace = self.path(place, mark), self.workspace(place)
        archive = workspace / _ARCHIVE
        try:
            with clear_disk_errors(archive):
                sha256 = pack(folder, archive)
                size = archive.stat().st_size
                if size >= mark.bytes * most:
                    return replace(mark, packs_to=size)
                packed = replace(mark, packed=True, stored=size)
                if mark.at == "remote":
                    key = self._reached().upload(place, workspace, packed=True)
                    return replace(packed, key=key)
                archive.replace(self._archive(place))
                return replace(packed, at="archive", key=new_key(), sha256=sha256)
        finally:
            shutil.rmtree(workspace, ignore_errors=True)

    def clear(self, place: str, mark: Mark) -> None:
        """Remove the content that a mark is of; what is gone already is no error."""
        if mark.at == "folder":
            shutil.rmtree(self.root / place, ignore_errors=True)
        elif mark.at == "archive":
            self._archive(place).unlink(missing_ok=True)
        elif mark.at == "remote":
            self._reached().remove(place, mark.key)
        if mark.key:
            self._cache.drop(mark.key)

    def problems(self, place: str, mark: Mark, *, deep: bool) -> list[str]:
        """Return what is wrong with the content that a mark is of, in words."""
        if mark.at == "remote":
            return self._reached().problems(place, mark.key, deep=deep)
        if mark.at == "archive":
            archive = self._archive(place)
            if not archive.is_file():
                return [f"{archive} is missing"]
            is_whole = sha256_of(archive) == mark.sha256
            return [] if is_whole else [f"{archive} no longer matches its sha256"]
        final = self.root / place
        if not final.is_dir() and not self._aside(final).is_dir():
            return [f"{final} is missing"]
        size = sum(path.stat().st_size for path in files_below(final)) if mark.bytes >= 0 else -1
        is_whole = size == mark.bytes or not final.is_dir()
        return [] if is_whole else [f"{final} holds {size:,} bytes, not {mark.bytes:,}"]

    def _fetch(self, place: str, key: str, folder: Path) -> None:
        with clear_disk_errors(folder):
            if self._reached().download(place, key, folder):
                archive = (folder / _ARCHIVE).rename(folder.with_name(f".{_ARCHIVE}"))
                unpack(archive, folder)
                archive.unlink()

    def _unpack(self, place: str, mark: Mark, folder: Path) -> None:
        archive = self._archive(place)
        if sha256_of(archive) != mark.sha256:
            raise StoreError(f"{archive}: damaged; restore it from a backup")
        with clear_disk_errors(folder):
            unpack(archive, folder)

    def _reached(self) -> Remote:
        if self.remote is None:
            raise StoreError(
                "the artifact is at a remote location; set WORKBENCH_ARTIFACTS_URL to the one that"
                " it was written to"
            )
        return self.remote

    def _archive(self, place: str) -> Path:
        return self.root / f"{place}.tar.zst"

    @staticmethod
    def _aside(folder: Path) -> Path:
        """Return where a folder waits until the one that replaces it stands."""
        return folder.with_name(f".{folder.name}.old")
