"""Content hashes and ids: the same content has the same name everywhere."""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = [
    "canonical_json", "content_id", "file_sha256", "new_id", "seeded", "sorted_ids_hash",
    "stable_fraction", "text_id",
]  # fmt: skip

_CANONICAL = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False,
    check_circular=False,
)  # fmt: skip
"""Made once: that is half the time of a small value."""


def canonical_json(value: Any) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, UTF-8 kept.

    Raises:
        ValueError: If the value holds NaN or infinity, which JSON cannot say.
    """
    return _CANONICAL.encode(value)


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
    """Return the hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def new_id(prefix: str) -> str:
    """Return a new id that sorts by time: ``prefix-<ms since 1970, hex>-<64 random bits>``."""
    return f"{prefix}-{time.time_ns() // 1_000_000:011x}-{os.urandom(8).hex()}"


def stable_fraction(*parts: str) -> float:
    """Return a fraction in [0, 1) that depends on the parts alone, for hashed splits."""
    return int(text_id(*parts)[:13], 16) / 16**13


def seeded(*parts: str | int) -> random.Random:
    """Return a generator of draws that depends on the parts alone, in every process."""
    # Text seeds go through sha512 inside Random, never through the salted hash().
    return random.Random("\x1f".join(str(part) for part in parts))  # noqa: S311 - no secrets here


def sorted_ids_hash(ids: Iterable[str]) -> str:
    """Return the hex sha256 of ids in sorted order, so that order of arrival does not count."""
    return hashlib.sha256("".join(f"{one}\n" for one in sorted(ids)).encode()).hexdigest()
