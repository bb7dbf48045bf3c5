"""Folders and files in less space, and what a folder holds."""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from workbench.core.errors import StoreError

__all__ = [
    "PACKED", "Contents", "contents_of", "files_below", "pack", "pack_file", "read_bytes",
    "sha256_of", "unpack",
]  # fmt: skip

PACKED = ".zst"
"""Ending of a file that :func:`pack_file` put in the place of another."""

_SAMPLE = 1 << 16
_CHUNK = 1 << 20
_LARGEST_JSON = 4_000_000
_ID = re.compile(rb"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What is known of a folder without its content."""

    bytes: int
    packs_to: int
    """What it would take packed: estimated from the beginning of each file."""
    ids: frozenset[str]
    """Whatever its small JSON files hold that looks like the id of an artifact."""


def files_below(folder: Path) -> Iterator[Path]:
    """Give the regular files below a folder in the order of their names; no links."""
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(place, name)
            if path.is_file() and not path.is_symlink():
                yield path


def sha256_of(path: Path) -> str:
    """Return the hex sha256 of a file, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def contents_of(folder: Path) -> Contents:
    """Return how large a folder is, would be, and what it speaks of."""
    size, packed, ids = 0, 0.0, set[str]()
    for path in files_below(folder):
        here = path.stat().st_size
        with path.open("rb") as file:
            sample = file.read(_SAMPLE)
        size += here
        packed += here * len(zlib.compress(sample, 1)) / max(len(sample), 1)
        if path.suffix == ".json" and here <= _LARGEST_JSON:
            ids |= {found.decode() for found in _ID.findall(path.read_bytes())}
    return Contents(bytes=size, packs_to=round(min(packed, size)), ids=frozenset(ids))


def pack(folder: Path, archive: Path) -> str:
    """Write a folder as one compressed archive, synced to disk; return its sha256.

    Equal content gives equal archives: no times, no owners.
    """
    import pyarrow as pa

    with (
        pa.output_stream(str(archive), compression="zstd") as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in files_below(folder):
            entry = tarfile.TarInfo(path.relative_to(folder).as_posix())
            entry.size = path.stat().st_size
            with path.open("rb") as file:
                tar.addfile(entry, file)
    _sync(archive)
    return sha256_of(archive)


def unpack(archive: Path, folder: Path) -> None:
    """Write what is in an archive into a folder; nothing gets out of it.

    Raises:
        StoreError: If the archive is damaged.
    """
    import pyarrow as pa

    folder.mkdir(parents=True, exist_ok=True)
    try:
        with (
            pa.input_stream(str(archive), compression="zstd") as packed,
            tarfile.open(fileobj=packed, mode="r|") as tar,
        ):
            tar.extractall(folder, filter="data")
    except (tarfile.TarError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:120]
        raise StoreError(f"{archive}: damaged ({reason}); restore it from a backup") from error


def pack_file(path: Path) -> int:
    """Put a compressed file in the place of a file; return the bytes that are left.

    Killed in between, both are there and either is whole.
    """
    import pyarrow as pa

    target = path.with_name(path.name + PACKED)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with path.open("rb") as file, pa.output_stream(str(temporary), compression="zstd") as out:
            while chunk := file.read(_CHUNK):
                out.write(chunk)
        _sync(temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    path.unlink()
    return target.stat().st_size


def read_bytes(path: Path) -> bytes:
    """Return the content of a file, also where :func:`pack_file` has been.

    Raises:
        FileNotFoundError: If there is neither.
    """
    import pyarrow as pa

    try:
        return path.read_bytes()
    except FileNotFoundError:
        packed = path.with_name(path.name + PACKED)
        if not packed.is_file():
            raise
        with pa.input_stream(str(packed), compression="zstd") as file:
            content: bytes = file.read()
        return content


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
