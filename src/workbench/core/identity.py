"""Content hashes and ids: the same content has the same name everywhere."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = [
    "canonical_json",
    "content_id",
    "file_sha256",
    "new_id",
    "sorted_ids_hash",
    "stable_fraction",
    "text_id",
]

_CHUNK_BYTES = 1 << 20


def canonical_json(value: Any) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, UTF-8 kept.

    Raises:
        ValueError: If the value holds NaN or infinity, which JSON cannot say.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def content_id(value: Any) -> str:
    """Return the hex sha256 of a value's canonical JSON."""
    return text_id(canonical_json(value))


def text_id(*parts: str) -> str:
    """Return the hex sha256 of texts; the boundary between parts counts."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Return the hex sha256 of a file, read in chunks of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def new_id(prefix: str) -> str:
    """Return a new id that sorts by time: ``prefix-<ms since 1970, hex>-<64 random bits>``."""
    return f"{prefix}-{time.time_ns() // 1_000_000:011x}-{os.urandom(8).hex()}"


def stable_fraction(*parts: str) -> float:
    """Return a fraction in [0, 1) that depends on the parts alone, for hashed splits."""
    return int(text_id(*parts)[:13], 16) / 16**13


def sorted_ids_hash(ids: Iterable[str]) -> str:
    """Return the hex sha256 of ids in sorted order, so that order of arrival does not count."""
    digest = hashlib.sha256()
    for one in sorted(ids):
        digest.update(one.encode())
        digest.update(b"\n")
    return digest.hexdigest()
