"""Files into an index: found, read in processes, cut, encoded, kept; unchanged ones are skipped."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path

from workbench.core.errors import ConfigError, StoreError
from workbench.core.identity import file_sha256, text_id
from workbench.core.plain import one_line
from workbench.core.settings import cores
from workbench.embedding.encoder import Encoder
from workbench.risk.documents.chunks import CHUNKING
from workbench.risk.documents.pool import Job, read_all
from workbench.risk.documents.readers import ENDINGS, LIMITS, Limits
from workbench.risk.documents.records import Document, Index, Vectors, is_date

__all__ = ["Ingested", "ingest"]

_MOST_WORKERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """What became of the files."""

    added: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    chunks: int = 0
    """Of the files added and replaced."""
    problems: tuple[str, ...] = ()
    """One line each: file, reason, fix. What was known of such a file before is kept."""
    note: str = ""
    """Why there are no vectors; empty where there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Labels:
    """What is said of all files of a call, in place of what they say themselves."""

    asset: str
    tags: tuple[str, ...]
    date: str

    def fingerprint(self, sha256: str, encoder_id: str) -> str:
        """Return what a file is kept under: equal ones need not be read again."""
        return text_id(sha256, CHUNKING, encoder_id, self.asset, self.date, *self.tags)

    def put_on(self, document: Document) -> Document:
        """Return a document with these labels, its own where there are none."""
        return replace(
            document,
            asset=self.asset or document.asset,
            tags=self.tags or document.tags,
            date=self.date or document.date,
        )


def ingest(
    index: Index,
    paths: Iterable[Path],
    *,
    encoder: Encoder | None = None,
    asset: str = "",
    tags: Sequence[str] = (),
    date: str = "",
    prune: bool = False,
    workers: int = 0,
    timeout_s: float = 60.0,
    executor: Executor | None = None,
    limits: Limits = LIMITS,
    progress: Callable[[str], None] | None = None,
) -> Ingested:
    """Put files and folders into an index and return what became of each; a bad one stops no other.

    A file is known by its name below the folder given, with that folder's name; by its name alone
    where it was given itself.

    Args:
        index: Where to.
        paths: Files, and folders, of which the files of known kinds count; links are not followed.
        encoder: Makes the vectors; without one, or where it fails, words alone are kept.
        asset: What the files are about; if not given, what each says.
        tags: Likewise.
        date: ISO date; likewise.
        prune: Take out what is known of a folder and no longer there.
        workers: Files read at once; 0 is up to four, by the cores of the machine.
        timeout_s: Seconds after which a file is given up.
        executor: Reads the files in place of processes of its own, e.g. Dask's.
        limits: Beyond which a file is refused.
        progress: Called with the name of each file that is done.

    Raises:
        ConfigError: If the date is none, a package that reads a file is not installed, or the index
            has vectors of another encoder.
        StoreError: If the index cannot be written; files done before are in.
    """
    if date and not is_date(date):
        raise ConfigError(f"date {date!r}: write it as 2026-01-31")
    labels = _Labels(asset=one_line(asset), tags=tuple(map(one_line, tags)), date=date)
    work = _Work(index, encoder, labels, progress)
    listed, folders = work.list_files(paths)
    gone = [
        file
        for file in index.known()
        if prune and file not in listed and any(file.startswith(f"{one}/") for one in folders)
    ]
    jobs = (Job(path, name, limits) for name, path in listed.items() if work.is_new(name, path))
    workers = workers or min(_MOST_WORKERS, cores())
    for job, found in read_all(jobs, workers=workers, timeout_s=timeout_s, executor=executor):
        work.keep(job.name, found)
    work.removed = [file for file in gone if index.remove(file)]
    return work.result()


class _Work:
    """One call of :func:`ingest` as it goes on."""

    def __init__(
        self,
        index: Index,
        encoder: Encoder | None,
        labels: _Labels,
        progress: Callable[[str], None] | None,
    ) -> None:
        self._index = index
        self._known = dict(index.known())
        self._encoder = encoder
        self._labels = labels
        self._progress = progress or (lambda _: None)
        self._note = "" if encoder else "words alone: no encoder was given"
        self._added: list[str] = []
        self._replaced: list[str] = []
        self._unchanged: list[str] = []
        self._problems: list[str] = []
        self._chunks = 0
        self.removed: list[str] = []

    def list_files(self, paths: Iterable[Path]) -> tuple[dict[str, Path], list[str]]:
        """Return name → file, and the names of the folders."""
        listed: dict[str, Path] = {}
        folders = []
        for path in paths:
            if path.is_dir():
                folders.append(one_line(path.resolve().name))
            for name, file in _files_at(path):
                if listed.setdefault(name, file).resolve() != file.resolve():
                    self._problems.append(
                        f"{name}: two files have that name; rename one, or give their folder"
                    )
        return listed, folders

    def is_new(self, name: str, path: Path) -> bool:
        """Return whether a file must be read; one that cannot be is read to learn why."""
        if name not in self._known:
            return True
        try:
            sha256 = file_sha256(path)
        except OSError:
            return True
        if self._known[name] != self._labels.fingerprint(sha256, self._encoder_id()):
            return True
        self._unchanged.append(name)
        self._progress(name)
        return False

    def keep(self, name: str, found: Document | str) -> None:
        """Put a document into the index, or a problem on the list."""
        if isinstance(found, str):
            self._problems.append(found)
        else:
            document = self._labels.put_on(found)
            vectors = self._vectors(document)
            fingerprint = self._labels.fingerprint(document.sha256, self._encoder_id())
            self._index.add(document, fingerprint=fingerprint, vectors=vectors)
            (self._replaced if name in self._known else self._added).append(name)
            self._chunks += len(document.chunks)
        self._progress(name)

    def result(self) -> Ingested:
        """Return what became of the files."""
        return Ingested(
            added=tuple(self._added),
            replaced=tuple(self._replaced),
            unchanged=tuple(self._unchanged),
            removed=tuple(self.removed),
            chunks=self._chunks,
            problems=tuple(self._problems),
            note=self._note,
        )

    def _encoder_id(self) -> str:
        return self._encoder.id if self._encoder else ""

    def _vectors(self, document: Document) -> Vectors | None:
        if self._encoder is None:
            return None
        try:
            rows = self._encoder.encode(document.embedded_texts())
        except (ConfigError, StoreError) as error:
            self._encoder, self._note = None, f"words alone: {error}"
            return None
        return Vectors(rows, self._encoder.id)


def _files_at(path: Path) -> Iterator[tuple[str, Path]]:
    """Give names and files: of a folder all of known kinds, in order."""
    if not path.is_dir():
        yield one_line(path.name), path
        return
    root = one_line(path.resolve().name)
    for folder, below, names in os.walk(path):
        below[:] = sorted(one for one in below if not one.startswith("."))
        for name in sorted(names):
            file = Path(folder) / name
            known = file.suffix.lower() in ENDINGS and not name.startswith((".", "~$"))
            if known and not file.is_symlink():
                yield one_line(f"{root}/{file.relative_to(path).as_posix()}"), file
