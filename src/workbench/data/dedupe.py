"""Near-duplicates: candidates by MinHash, every one verified by its exact Jaccard similarity.

Unverified candidates would remove most of a corpus grown from templates.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "SAME_WRAPPER", "THRESHOLD", "jaccard", "near_duplicates", "near_links", "normalize",
    "resembles_any",
]  # fmt: skip

THRESHOLD: Final = 0.8
"""Jaccard similarity of character 5-grams from which two texts are near-duplicates."""

SAME_WRAPPER: Final = 0.6
"""Jaccard similarity from which two texts wear one wrapper around different requests."""

_GRAM = 5
# Format characters (Unicode category Cf) that hide in Latin text.
_INVISIBLE = re.compile(
    "[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\U000e0001-\U000e007f]"
)
_BANDS = 16
_ROWS = 4
# 16 bands of 4: a pair at the threshold is missed with (1 - 0.8^4)^16 = 0.02 %.
_HASHES = _BANDS * _ROWS
# Four standard deviations of the estimate at the usual threshold: 4 * sqrt(0.8 * 0.2 / 64).
_MARGIN = 0.2
_CHUNK = 1 << 15
_WHOLE_RUN = 64
"""Texts of one band that are all compared; in longer runs each meets the first ones only, and the
one before it."""
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def normalize(text: str) -> str:
    """Return the key under which texts that read alike are equal; never the text to train on."""
    text = unicodedata.normalize("NFKC", text)
    return " ".join(_INVISIBLE.sub("", text).casefold().split())


def jaccard(left: str, right: str) -> float:
    """Return the Jaccard similarity of the character 5-grams of two normalized texts."""
    a, b = _grams(left), _grams(right)
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)


def near_links(
    keys: Sequence[str], *, within: Sequence[str] | None = None, threshold: float = THRESHOLD
) -> list[tuple[int, int]]:
    """Return the pairs (earlier, later) of texts that are near-duplicates.

    Args:
        keys: Normalized texts, see :func:`normalize`.
        within: One label per text; only texts of equal label are compared.
        threshold: Smallest Jaccard similarity, in (0, 1].

    Source:
        Broder 1997, "On the resemblance and containment of documents"; banding as in Leskovec,
        Rajaraman & Ullman, "Mining of Massive Datasets", section 3.4.
    """
    if not keys:
        return []
    labels = np.unique(within or [""] * len(keys), return_inverse=True)[1]
    signatures = _signatures(keys)
    candidates = _candidates(signatures, labels)
    links = []
    for start in range(0, len(candidates), _CHUNK):
        pairs = candidates[start : start + _CHUNK]
        agreement = (signatures[pairs[:, 0]] == signatures[pairs[:, 1]]).mean(axis=1)
        links += [
            (earlier, later)
            for earlier, later in pairs[agreement >= threshold - _MARGIN].tolist()
            if keys[earlier] == keys[later] or jaccard(keys[earlier], keys[later]) >= threshold
        ]
    return links


def near_duplicates(
    keys: Sequence[str], *, within: Sequence[str] | None = None
) -> NDArray[np.int64]:
    """Return ``(len(keys),)``: the position of the earlier kept text that each repeats, or −1."""
    repeats = np.full(len(keys), -1, dtype=np.int64)
    for earlier, later in sorted(near_links(keys, within=within), key=lambda link: link[::-1]):
        if repeats[later] < 0 and repeats[earlier] < 0:
            repeats[later] = earlier
    return repeats


def resembles_any(
    keys: Sequence[str], known: Sequence[str], *, threshold: float = THRESHOLD
) -> NDArray[np.bool_]:
    """Return ``(len(keys),)``: whether a normalized text is a near-duplicate of a known one."""
    found = np.zeros(len(keys), dtype=np.bool_)
    for earlier, later in near_links([*known, *keys], threshold=threshold):
        if earlier < len(known) <= later:
            found[later - len(known)] = True
    return found


@lru_cache(maxsize=512)
def _grams(text: str) -> frozenset[str]:
    if len(text) <= _GRAM:
        return frozenset((text,))
    return frozenset(text[start : start + _GRAM] for start in range(len(text) - _GRAM + 1))


def _signatures(keys: Sequence[str]) -> NDArray[np.uint32]:
    """Return ``(len(keys), 64)`` smallest hashes; memory for grams is bounded by the chunk."""
    draw = np.random.default_rng(0)
    # Odd factors permute the 32-bit numbers: as good as a random order on hashes already mixed.
    factors = draw.integers(0, 1 << 31, size=_HASHES, dtype=np.uint32) * 2 + 1
    terms = draw.integers(0, 1 << 32, size=_HASHES, dtype=np.uint32)
    signatures = np.empty((len(keys), _HASHES), dtype=np.uint32)
    for start, stop in _chunks(keys):
        grams, offsets = _gram_hashes(keys[start:stop])
        mixed = np.empty_like(grams)
        for column in range(_HASHES):
            np.multiply(grams, factors[column], out=mixed)
            mixed += terms[column]
            signatures[start:stop, column] = np.minimum.reduceat(mixed, offsets)
    return signatures


def _chunks(keys: Sequence[str]) -> Iterator[tuple[int, int]]:
    start, size = 0, 0
    for index, key in enumerate(keys):
        if size and size + len(key) > _CHUNK:
            yield start, index
            start, size = index, 0
        size += len(key)
    yield start, len(keys)


def _gram_hashes(keys: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Return the hashes of all 5-grams, one text after another, and where each text begins."""
    # Pad to one whole gram: a short text then has exactly one.
    padded = [key.ljust(_GRAM, "\0") for key in keys]
    lengths = np.fromiter(map(len, padded), dtype=np.int64, count=len(padded))
    codes = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    codes = codes.astype(np.uint64)
    hashes = np.zeros(len(codes) - _GRAM + 1, dtype=np.uint64)
    for position in range(_GRAM):
        hashes = (hashes ^ codes[position : position + len(hashes)]) * _MULTIPLIER
        hashes ^= hashes >> np.uint64(29)
    is_gram = np.ones(len(codes), dtype=np.bool_)
    ends = np.cumsum(lengths)
    for position in range(1, _GRAM):
        is_gram[ends - position] = False
    hashes = hashes[is_gram[: len(hashes)]]
    counts = lengths - _GRAM + 1
    return (hashes >> np.uint64(32)).astype(np.uint32), np.cumsum(counts) - counts


def _candidates(signatures: NDArray[np.uint32], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the distinct ``(n, 2)`` pairs, earlier first, that share a label and a band."""
    count = len(signatures)
    found = []
    for band in range(_BANDS):
        keys = labels.astype(np.uint64)
        for column in range(band * _ROWS, (band + 1) * _ROWS):
            keys = (keys ^ signatures[:, column]) * _MULTIPLIER
            keys ^= keys >> np.uint64(31)
        order = np.argsort(keys, kind="stable")
        starts = np.flatnonzero(np.diff(keys[order], prepend=~keys[order[:1]]))
        # For each place in the order, where the run of equal keys begins.
        begin = np.repeat(starts, np.diff(starts, append=count))
        later = np.flatnonzero(begin < np.arange(count))
        found.append(order[later - 1] * count + order[later])
        for nth in range(_WHOLE_RUN):
            later = later[later - begin[later] > nth]
            found.append(order[begin[later] + nth] * count + order[later])
    codes = np.unique(np.concatenate(found))
    pairs = np.stack((codes // count, codes % count), axis=1)
    # Label by label: the grams of one bucket then fit into the cache of grams.
    return pairs[np.argsort(labels[pairs[:, 0]], kind="stable")]
