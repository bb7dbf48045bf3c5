"""Folders of runs: executed notebooks and kernel logs in less space, then only their results."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from workbench.core.errors import StoreError
from workbench.store.files import clear_disk_errors, write_json_atomic
from workbench.store.packing import PACKED, contents_of, files_below, pack_file

__all__ = ["RunFolder", "compress_run", "hold_of", "hold_run", "look_at", "reduce_run"]

_HOLD = "hold.json"
_KEPT = {"result.json", _HOLD}
"""What stays for ever."""
_SMALLEST = 4096
"""Bytes under which a file takes no less space compressed."""


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """What is in the folder of a run."""

    bytes: int
    packs_to: int
    """Estimated, of what could be compressed; as ``bytes`` where nothing could."""
    kept: int
    """Bytes of what stays for ever."""


def look_at(folder: Path, *, home: Path) -> RunFolder | None:
    """Return what a run's folder holds; None if it is gone, or not below the home."""
    if not folder.is_dir() or not folder.resolve().is_relative_to(home.resolve()):
        return None
    files = list(files_below(folder))
    sizes = {path: path.stat().st_size for path in files}
    compressible = sum(sizes[path] for path in _compressible(folder))
    whole = sum(sizes.values())
    ratio = 1.0
    if compressible:
        found = contents_of(folder)
        ratio = found.packs_to / max(found.bytes, 1)
    return RunFolder(
        bytes=whole,
        packs_to=round(whole - compressible * (1 - ratio)),
        kept=sum(size for path, size in sizes.items() if path.name in _KEPT),
    )


def compress_run(folder: Path) -> int:
    """Compress the large files of a run's folder, each by itself; return the bytes left in all.

    ``store.packing.read_bytes`` reads them as before. Killed in between, each file is whole.
    """
    with clear_disk_errors(folder):
        for path in list(_compressible(folder)):
            pack_file(path)
    return _size(folder)


def reduce_run(folder: Path) -> int:
    """Remove all of a run's folder but its result; return the bytes left."""
    with clear_disk_errors(folder):
        for path in list(files_below(folder)):
            if path.name not in _KEPT:
                path.unlink()
    return _size(folder)


def hold_run(folder: Path, hold: Mapping[str, str]) -> None:
    """Put a run on legal hold, or release it where nothing is said.

    Raises:
        StoreError: If its folder is gone.
    """
    if not folder.is_dir():
        raise StoreError(f"{folder}: the folder of the run is gone; there is nothing to hold")
    if hold:
        write_json_atomic(folder / _HOLD, dict(hold))
    else:
        (folder / _HOLD).unlink(missing_ok=True)


def hold_of(folder: Path) -> dict[str, str]:
    """Return the legal hold of a run; empty without one. One that cannot be read is one."""
    try:
        said = json.loads((folder / _HOLD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        return {"why": "cannot be read"}
    return dict(said) if isinstance(said, dict) and said else {"why": "cannot be read"}


def _compressible(folder: Path) -> Iterator[Path]:
    for path in files_below(folder):
        is_meant = path.name not in _KEPT and path.suffix not in {PACKED, ".parquet"}
        if is_meant and path.name[0] != "." and path.stat().st_size >= _SMALLEST:
            yield path


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in files_below(folder))
