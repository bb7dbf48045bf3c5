"""What killed processes left: folders half written, packed or removed, and half uploads."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock
from sqlalchemy import Engine

from workbench.store.marks import Marked, marked, read_mark
from workbench.store.remote import Remote

__all__ = ["sweep"]

_DAY_S = 24 * 3600
_ARCHIVE = ".tar.zst"


def sweep(engine: Engine, root: Path, remote: Remote | None, *, older_s: float = _DAY_S) -> int:
    """Remove what no artifact is made of and is a day old; return how many rests that were.

    Args:
        engine: Of the database, for the rows of all users.
        root: Folder of the artifacts on this machine.
        remote: Location of the others.
        older_s: Age in seconds from which on a rest belongs to nobody.
    """
    rows = {f"{one.kind}/{one.id[:32]}": one for one in marked(engine)}
    removed = 0
    for path in sorted(root.glob("*/*")):
        if time.time() - path.lstat().st_mtime >= older_s:
            removed += _remove_rest(engine, path, rows)
    if remote:
        for place, key in remote.everything():
            counts = rows[place].mark.key if place in rows else ""
            if key != counts and _age_s(key) >= older_s:
                remote.remove(place, key)
                removed += 1
    return removed


def _remove_rest(engine: Engine, path: Path, rows: Mapping[str, Marked]) -> bool:
    """Remove a folder or archive if it is one; return whether it was."""
    if path.name.startswith("."):
        if is_rest := ".tmp-" in path.name:
            shutil.rmtree(path, ignore_errors=True)
        return is_rest
    stem = path.name.removesuffix(_ARCHIVE)
    one = rows.get(f"{path.parent.name}/{stem}")
    at = "archive" if path.name.endswith(_ARCHIVE) else "folder"
    if one is None or one.mark.at == at:  # without a row: it is replaced when it is made again
        return False
    with FileLock(path.with_name(f".{stem}.lock")):
        found = read_mark(engine, one.kind, one.id)  # as it is now that nobody changes it
        if found is None or found[1].at == at:
            return False
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
    return True


def _age_s(key: str) -> float:
    """Return how old an upload is, by its name; one that is not ours never is."""
    try:
        return time.time() - int(key.split("-")[1], 16) / 1000
    except (IndexError, ValueError):
        return -1.0
