"""What outputs are held against: prompts of like length, the nearest text, the request's place."""

from __future__ import annotations

import re
from bisect import bisect_left

import numpy as np
import numpy.typing as npt

from workbench.diffusion.intervals import Codes
from workbench.embedding.encoder import FloatArray
from workbench.judge.calibrate import Flags, Floats

__all__ = ["core_ranks", "is_nearest", "match_lengths", "nearest_cosines", "token_f1"]

_TOLERANCE = 0.15
_AT_ONCE = 1024
_TOPIC = 100
_SAME = 1e-5
"""Cosines that are as good as equal: a vector in half precision is 10⁻⁷ off."""


def match_lengths(left: Codes, right: Codes, *, seed: int = 0) -> tuple[Codes, Codes]:
    """Return the rows of both sides that are paired, each at most once.

    In random order, each on the left takes the free one on the right that is nearest in length,
    if it is within 15 % of its own.

    Args:
        left: ``(n,)`` characters.
        right: ``(m,)`` characters.
        seed: Decides the order.
    """
    order = np.argsort(right, kind="stable").tolist()
    lengths = right[order].tolist()
    pairs = []
    for row in np.random.default_rng(seed).permutation(len(left)).tolist():
        size, place = int(left[row]), bisect_left(lengths, left[row])
        near = [at for at in (place - 1, place) if 0 <= at < len(lengths)]
        best = min(near, key=lambda at: abs(lengths[at] - size), default=None)
        if best is not None and abs(lengths[best] - size) <= _TOLERANCE * size:
            pairs.append((row, order.pop(best)))
            lengths.pop(best)
    both = np.array(sorted(pairs), np.intp).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def nearest_cosines(vectors: FloatArray, gallery: FloatArray) -> Floats:
    """Return the cosine of each row to the nearest of a gallery, -1 where that is empty."""
    parts = [vectors[at : at + _AT_ONCE] @ gallery.T for at in range(0, len(vectors), _AT_ONCE)]
    best = [part.max(axis=1, initial=-1) for part in parts]
    return np.concatenate([np.empty(0), *best])


def is_nearest(cosines: Floats, others: Floats) -> Flags:
    """Return whether cosines are as high as those of all others, equal ones included."""
    return np.asarray(cosines >= others - _SAME)


def core_ranks(
    vectors: FloatArray,
    own: Codes,
    cores: FloatArray,
    topics: npt.NDArray[np.str_],
    *,
    seed: int = 0,
) -> tuple[Codes, Codes]:
    """Return the rank of each row's own core in a gallery of its topic, 1 for first, and its size.

    Args:
        vectors: Unit rows, ``(n, dim)``.
        own: ``(n,)``: which of the cores is the row's.
        cores: Unit rows, ``(m, dim)``, all distinct.
        topics: ``(m,)``: of each core; a gallery is the core and 99 others of its topic, or
            all where there are fewer.
        seed: Decides which.
    """
    ranks, sizes = np.ones(len(own), np.intp), np.ones(len(own), np.intp)
    order = np.random.default_rng(seed).permutation(len(cores))
    for topic in np.unique(topics[own]):
        rows = np.flatnonzero(topics[own] == topic)
        some = order[topics[order] == topic][:_TOPIC]
        cosines = vectors[rows] @ cores[some].T
        mine = (vectors[rows] * cores[own[rows]]).sum(axis=1)
        is_other = some != own[rows, None]
        is_other[is_other.all(axis=1) & (len(some) == _TOPIC), -1] = False
        ranks[rows] += (is_other & (cosines > mine[:, None] + _SAME)).sum(axis=1)
        sizes[rows] += is_other.sum(axis=1)
    return ranks, sizes


def token_f1(
    text: str, core: str, tokens: npt.NDArray[np.intp], kept: tuple[int, int]
) -> float | None:
    """Return the F1 of the tokens kept against those of the core, wherever it stands in the text.

    Args:
        text: A prompt.
        core: Its request; letters in either case.
        tokens: ``(tokens, 2)``: characters of each.
        kept: Characters kept.

    Returns:
        None where the core does not stand in the text letter by letter.
    """
    places = [one.span() for one in re.finditer(re.escape(core), text, re.IGNORECASE)]
    if not places:
        return None

    def inside(first: int, end: int) -> Flags:
        return np.asarray((tokens[:, 0] < end) & (tokens[:, 1] > first))

    wanted = np.logical_or.reduce([inside(*place) for place in places])
    found = inside(*kept)
    return float(2 * (wanted & found).sum() / max(wanted.sum() + found.sum(), 1))
