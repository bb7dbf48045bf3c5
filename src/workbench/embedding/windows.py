"""Long prompts as overlapping windows, since the encoder sees 256 tokens at once.

Two thirds of real jailbreaks are longer; cutting them off would hide the request at their end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["STRIDE_TOKENS", "WINDOWING", "WINDOW_TOKENS", "merge", "windows"]

T = TypeVar("T")
Row = TypeVar("Row", bound=np.generic)

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


def merge(parts: Sequence[npt.NDArray[Row]]) -> npt.NDArray[Row]:
    """Return one row per token of a text from the rows of its windows: undoes :func:`windows`.

    A token that two windows saw counts where more text surrounds it: the first 32 of the 64
    shared ones are taken from the earlier window, the other 32 from the later.

    Args:
        parts: ``(tokens of the window, width)`` of each window, in order.
    """
    seam, last = (WINDOW_TOKENS - STRIDE_TOKENS) // 2, len(parts) - 1
    return np.concatenate(
        [
            part[seam if number else 0 : len(part) if number == last else STRIDE_TOKENS + seam]
            for number, part in enumerate(parts)
        ]
    )
