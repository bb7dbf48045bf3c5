"""Long prompts as overlapping windows, since the encoder sees 256 tokens at once.

Two thirds of real jailbreaks are longer; cutting them off would hide the request at their end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

__all__ = ["STRIDE_TOKENS", "WINDOWING", "WINDOW_TOKENS", "windows"]

T = TypeVar("T")

WINDOW_TOKENS = 254
"""Tokens of text in one window; with the two special tokens it fills the encoder."""
STRIDE_TOKENS = 190
"""Tokens from the start of one window to the start of the next; 64 are seen twice."""
WINDOWING = f"w{WINDOW_TOKENS}s{STRIDE_TOKENS}"
"""Name of this way of cutting; part of the encoder's id, since vectors depend on it."""


def windows(tokens: Sequence[T]) -> list[Sequence[T]]:
    """Return the windows that cover all tokens, in order; one, perhaps empty, for a short text."""
    last_start = max(len(tokens) - (WINDOW_TOKENS - STRIDE_TOKENS), 1)
    return [tokens[start : start + WINDOW_TOKENS] for start in range(0, last_start, STRIDE_TOKENS)]
