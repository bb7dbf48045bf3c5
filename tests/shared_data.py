"""Real public data for development, where the machine has it; the product never needs it."""

from __future__ import annotations

from pathlib import Path

import pytest

__all__ = ["shared"]

_FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data"


def shared(path: str) -> Path:
    """Return a file of the shared data; skips the test where it is absent."""
    found = _FOLDER / path
    if not found.exists():
        pytest.skip(f"no shared data at {path}")
    return found
