"""The file of a backup, read as if an enemy had made it."""

from __future__ import annotations

import json
import os
import re
import shutil
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any

from workbench.core.errors import DataError, StoreError
from workbench.core.identity import file_sha256
from workbench.store.database import SCHEMA_VERSION

__all__ = ["MANIFEST", "is_safe", "unpack_backup"]

MANIFEST = "manifest.json"

_PLACES = ("rows", "artifacts", "runs")
_MOST_MANIFEST = 256_000_000
_MOST_NAME = 255
"""Bytes of one part of a name: more, no file system takes."""
_CHUNK = 1 << 20


def unpack_backup(path: Path, folder: Path, *, most_bytes: int | None) -> dict[str, Any]:
    """Write the files of a backup below a folder, each checked; return its manifest."""
    import pyarrow as pa

    try:
        with (
            pa.input_stream(str(path), compression="zstd") as packed,
            tarfile.open(fileobj=packed, mode="r|") as tar,
        ):
            manifest = _manifest(tar)
            known = manifest["files"]
            total = sum(one["bytes"] for one in known.values())
            most = shutil.disk_usage(folder).free if most_bytes is None else most_bytes
            if total > most:
                raise DataError(f"{path}: unpacks to {total:,} bytes, {most:,} are allowed or free")
            left = set(known)
            while entry := tar.next():
                if entry.name not in left or not entry.isreg():
                    raise DataError(f"{path}: {entry.name[:80]!r} does not belong into a backup")
                left.remove(entry.name)
                _extract(tar, entry, folder / entry.name, known[entry.name])
            if left:
                raise DataError(f"{path}: {len(left)} files are missing, e.g. {min(left)[:80]!r}")
    except (tarfile.TarError, pa.ArrowException, OSError, EOFError) as error:
        is_ours = isinstance(error, OSError) and error.errno is not None and path.is_file()
        if is_ours and not isinstance(error, FileExistsError | NotADirectoryError):
            raise
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{path}: no backup, or damaged ({reason}); take another one") from None
    return manifest


def _manifest(tar: tarfile.TarFile) -> dict[str, Any]:
    entry = tar.next()
    content = tar.extractfile(entry) if entry and entry.isreg() else None
    if entry is None or content is None or entry.name != MANIFEST or entry.size > _MOST_MANIFEST:
        raise DataError("the file is no backup: it begins without a manifest")
    try:
        found = json.loads(content.read())
        for name, one in found["files"].items():
            is_told = isinstance(one["sha256"], str) and type(one["bytes"]) is int
            if not is_safe(name) or not is_told or one["bytes"] < 0:
                raise ValueError(f"{name[:80]!r} is no name in a backup")  # noqa: TRY301
        version = found["schema"]
        rows = {f"rows/{table}.jsonl" for table in found["rows"]}
        is_version = isinstance(version, str) and re.fullmatch("(?!0000)[0-9]{4}", version)
        is_whole = rows <= set(found["files"])
        is_whole &= all(type(count) is int for count in found["rows"].values())
        if not (is_version and is_whole):
            raise ValueError("fields are missing")  # noqa: TRY301
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"the manifest of the backup is damaged: {error}") from None
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"the backup has schema {version}, this version knows {SCHEMA_VERSION}; upgrade"
            " prompt-safety-workbench"
        )
    return dict(found)


def is_safe(name: str) -> bool:
    """Return whether a name stays in its place, on every system."""
    path = PurePosixPath(name)
    is_plain = path.as_posix() == name and "\\" not in name and "\x00" not in name
    parts = path.parts
    is_plain &= all(len(part.encode()) <= _MOST_NAME for part in parts)
    return is_plain and len(parts) > 1 and parts[0] in _PLACES and not {"..", "."} & set(parts)


def _extract(tar: tarfile.TarFile, entry: tarfile.TarInfo, target: Path, told: Any) -> None:
    """Write one file, not more than was told, and check it."""
    if entry.size != told["bytes"]:
        raise DataError(f"{entry.name[:80]!r} has {entry.size:,} bytes, not {told['bytes']:,}")
    content = tar.extractfile(entry)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as out:
        while content and (chunk := content.read(_CHUNK)):
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())
    if file_sha256(target) != told["sha256"]:
        raise DataError(f"{entry.name[:80]!r} does not match its hash; the backup is damaged")
