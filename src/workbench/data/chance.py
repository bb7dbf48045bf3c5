"""Seeded chance: the same parts give the same draws in every process."""

from __future__ import annotations

import random

__all__ = ["seeded"]


def seeded(*parts: str | int) -> random.Random:
    """Return a generator of draws that depends on the parts alone."""
    # Text seeds go through sha512 inside Random, never through the salted hash().
    return random.Random("\x1f".join(str(part) for part in parts))  # noqa: S311 - no secrets here
