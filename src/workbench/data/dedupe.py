"""Near-duplicates: candidates by MinHash, every one verified by its exact Jaccard similarity.

Unverified candidates would remove most of a corpus grown from templates: pairs that fall a little
short outnumber the near-duplicates there. Sketches rule nearly all out before exact comparison.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias

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

_SMALL = 512
"""Texts of a bucket that are all compared: no slower than hashing them, and none is missed."""
_WHOLE_RUN = 64
"""Texts of one band that are all compared; in longer runs each meets the first ones and the one
before it. Where texts like those before are taken out, the first ``_SMALL`` ones."""

_HASHES = 128
_RECALL_LINKS, _RECALL_REPEATS = 0.995, 0.98
"""Least share of the pairs exactly at the threshold, in large buckets, that become candidates; of
those a little above it nearly all do."""

_WORDS = 16
_DEVIATIONS = 3
"""Standard deviations that a sketch may be off: at the threshold 0.1 % are lost, above it none."""
_LONGEST_SUM = 1 << 16
"""Grams of two texts from which their sketches are full and rule nothing out."""

_BLOCK, _PAIRS = 1 << 15, 1 << 13
_CHUNK = 1 << 16
"""Characters, or cells of a table, that are worked on at a time: they fit into a core's cache."""

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)

_Pairs: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]


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
    links: list[tuple[int, int]] = []
    for places, labels in _groups(len(keys), within):
        some = [keys[place] for place in places]
        search = _Search(some, labels, threshold=threshold, recall=_RECALL_LINKS)
        for block in _blocks(0, len(some)):
            search.show(block)
            earlier, later = search.candidates()
            true = search.similar(earlier, later)
            links += zip(places[earlier[true]].tolist(), places[later[true]].tolist(), strict=True)
    return links


def near_duplicates(
    keys: Sequence[str], *, within: Sequence[str] | None = None
) -> NDArray[np.int64]:
    """Return ``(len(keys),)``: the position of the earlier kept text that each repeats, or −1."""
    repeats = np.full(len(keys), -1, dtype=np.int64)
    for places, labels in _groups(len(keys), within):
        found = _repeats([keys[place] for place in places], labels)
        is_repeat = found >= 0
        repeats[places[is_repeat]] = places[found[is_repeat]]
    return repeats


def resembles_any(
    keys: Sequence[str], known: Sequence[str], *, threshold: float = THRESHOLD
) -> NDArray[np.bool_]:
    """Return ``(len(keys),)``: whether a normalized text is a near-duplicate of a known one."""
    found = np.zeros(len(known) + len(keys), dtype=np.bool_)
    labels = np.zeros(len(found), dtype=np.int64)
    search = _Search([*known, *keys], labels, threshold=threshold, recall=_RECALL_LINKS)
    for block in _blocks(0, len(known)):
        search.show(block)
    for block in _blocks(len(known), len(found)):
        search.show(block, add=False)
        earlier, later = search.candidates()
        found[later[search.similar(earlier, later)]] = True
    return found[len(known) :]


def _grams(text: str) -> frozenset[str]:
    return frozenset(text[at : at + _GRAM] for at in range(max(1, len(text) - _GRAM + 1)))


def _groups(count: int, within: Sequence[str] | None) -> Iterator[_Pairs]:
    """Yield positions and labels of some whole buckets; not of texts alone in theirs."""
    labels = np.zeros(count, dtype=np.int64)
    if within is not None:
        numbers = {label: number for number, label in enumerate(dict.fromkeys(within))}
        labels = np.fromiter(map(numbers.__getitem__, within), dtype=np.int64, count=count)
    sizes = np.bincount(labels, minlength=1)[labels]
    # Small buckets first, then large ones; a few at a time, to bound memory.
    for is_wanted in ((sizes > 1) & (sizes <= _SMALL), sizes > _SMALL):
        places = np.flatnonzero(is_wanted)
        places = places[np.argsort(labels[places], kind="stable")]
        ends = np.append(np.flatnonzero(np.diff(labels[places])) + 1, len(places))
        start = 0
        while start < len(places):
            end = int(np.searchsorted(ends, start + _BLOCK // 2))
            stop = int(ends[min(end, len(ends) - 1)])
            yield places[start:stop], labels[places[start:stop]]
            start = stop


def _blocks(start: int, stop: int) -> Iterator[range]:
    """Yield positions, as many at a time as are compared at once with all before them."""
    return (range(at, min(at + _BLOCK, stop)) for at in range(start, stop, _BLOCK))


def _repeats(keys: Sequence[str], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the earlier kept text that each text repeats, or −1."""
    search = _Search(keys, labels, threshold=THRESHOLD, recall=_RECALL_REPEATS)
    repeats = np.full(len(keys), -1, dtype=np.int64)
    for block in _blocks(0, len(keys)):
        is_kept = np.arange(len(keys)) < block.start  # for sure; the others are out already
        is_kept[block] = search.show(block)
        # The first of each run alone decide about most texts, however long the runs are.
        for most in (1, _SMALL):
            earlier, later = search.candidates(most=most)
            # The likeliest pair of each text: where it is true the others do not matter.
            sure = np.flatnonzero(is_kept[earlier])
            best = sure[np.unique(later[sure], return_index=True)[1]]
            true = best[search.similar(earlier[best], later[best])]
            repeats[later[true]] = earlier[true]
            search.is_out |= repeats >= 0
        is_open = ~(search.is_out[later] | search.is_out[earlier])
        is_open[best] = False
        earlier, later = earlier[is_open], later[is_open]
        true = np.flatnonzero(search.similar(earlier, later))
        for one, other in zip(earlier[true].tolist(), later[true].tolist(), strict=True):
            if repeats[one] < 0 and repeats[other] < 0:
                repeats[other] = one
        search.is_out |= repeats >= 0
    return repeats


class _Search:
    """Compares texts, shown block by block, with those shown before them."""

    def __init__(
        self, keys: Sequence[str], labels: NDArray[np.int64], *, threshold: float, recall: float
    ) -> None:
        self._keys, self._labels = keys, labels
        self._threshold, self._limits = threshold, _limits(threshold)
        self.is_out = np.zeros(len(keys), dtype=np.bool_)
        self._lengths = np.fromiter(map(len, keys), dtype=np.int64, count=len(keys))
        self._sizes = np.zeros(len(keys), dtype=np.int64)
        self._sketches = np.zeros((len(keys), _WORDS), dtype=np.uint64)
        # A small bucket is one run without any hashes: all its texts are compared.
        is_small = np.bincount(labels, minlength=1).max() <= _SMALL
        self._most = _SMALL if is_small else _WHOLE_RUN
        self._rows = 0 if is_small else _rows(threshold, recall=recall)
        # Per band the hash of each text shown, above its position; sorted.
        self._runs = [np.empty(0, dtype=np.uint64)] * (_HASHES // self._rows if self._rows else 1)
        # Per band the texts of the block, and where the earlier ones of their run begin and end.
        self._found: list[tuple[NDArray[np.int64], ...]] = []

    def show(self, block: range, *, add: bool = True) -> NDArray[np.bool_]:
        """Look texts up among those added, these too if so, and return which share no run."""
        codes = np.empty((len(self._runs), len(block)), dtype=np.uint64)
        for part in _parts(np.cumsum(self._lengths[block] + _HASHES // 2), _CHUNK):
            codes[:, part] = self._hash(block[part])
        codes = codes << _HALF | np.array(block, dtype=np.uint64)
        codes.sort(axis=1)
        self._found = []
        is_alone = np.ones(len(block), dtype=np.bool_)
        for band, code in enumerate(codes):
            run = self._runs[band][~self.is_out[_position(self._runs[band])]]
            # Merging two sorted arrays is what the stable sort is fastest at.
            run = np.sort(np.concatenate((run, code)), kind="stable") if add else run
            begins, ends = np.searchsorted(run, code & ~_LOW), np.searchsorted(run, code)
            meets = ends > begins
            later = _position(code[meets])
            is_alone[later - block.start] = False
            self._runs[band] = run
            self._found.append((later, begins[meets], ends[meets]))
        return is_alone

    def candidates(self, *, most: int | None = None) -> _Pairs:
        """Return pairs that may be near-duplicates, by later text, the likeliest first."""
        most = most or self._most
        pairs: list[NDArray[np.int64]] = [np.empty((3, 0), dtype=np.int64)]
        for run, found in zip(self._runs, self._found, strict=True):
            later, begins, ends = (column[~self.is_out[found[0]]] for column in found)
            counts = np.minimum(ends - begins, most + 1)
            totals = np.cumsum(counts)
            for part in _parts(totals, _PAIRS):
                count, stops = counts[part], totals[part] - (totals[part][0] - counts[part][0])
                places = np.arange(stops[-1]) + np.repeat(begins[part] - stops + count, count)
                places[stops - 1] = ends[part] - 1
                pairs.append(self._plausible(_position(run[places]), np.repeat(later[part], count)))
        earlier, later, slack = np.concatenate(pairs, axis=1)
        distinct = np.unique(later << 32 | earlier, return_index=True)[1]
        order = distinct[np.lexsort((-slack[distinct], later[distinct]))]
        return earlier[order], later[order]

    def similar(self, earlier: NDArray[np.int64], later: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which pairs really are near-duplicates."""
        sums = self._lengths[earlier] + self._lengths[later]
        answers = np.empty(len(earlier), dtype=np.bool_)
        # Pairs of like length together waste the least of a table.
        order = np.argsort(-sums, kind="stable")
        start = 0
        while start < len(order):
            some = order[start : start + max(1, _CHUNK // int(sums[order[start]] + 1))]
            start += len(some)
            lefts, rights = ([self._keys[at] for at in side[some]] for side in (earlier, later))
            answers[some] = _jaccards(lefts, rights) >= self._threshold
        return answers

    def _plausible(self, earlier: NDArray[np.int64], later: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return ``(3, n)``: the pairs that their sketches do not rule out, and by how much."""
        sums = np.minimum(self._sizes[earlier] + self._sizes[later], _LONGEST_SUM)
        unlike = self._sketches.take(earlier, axis=0)
        unlike ^= self._sketches.take(later, axis=0)
        slack = self._limits[sums] - np.einsum("ij->i", np.bitwise_count(unlike).astype(np.uint16))
        is_left = (slack >= 0) & ~self.is_out[earlier]
        return np.stack((earlier[is_left], later[is_left], slack[is_left]))

    def _hash(self, part: range) -> NDArray[np.uint64]:
        """Sketch texts and return ``(bands, len(part))`` 32-bit hashes of label and minima."""
        grams = _distinct_grams(self._keys[part.start : part.stop])
        starts = np.searchsorted(grams, np.arange(len(part), dtype=np.uint64) << _HALF)
        self._sizes[part] = np.diff(starts, append=len(grams))
        # Each gram flips one bit: its leading bits choose a word, its last ones the bit in there.
        words = (grams >> np.uint64(33 - _WORDS.bit_length())).astype(np.int64)
        firsts = np.flatnonzero(np.diff(words, prepend=-1))
        bits = np.bitwise_xor.reduceat(np.uint64(1) << (grams & np.uint64(63)), firsts)
        self._sketches[part.start : part.stop].reshape(-1)[words[firsts]] = bits
        hashes = np.tile(self._labels[part].astype(np.uint64), (len(self._runs), 1))
        if self._rows:
            minima = _minima(grams, starts, count=len(hashes) * self._rows)
            for row in range(self._rows):
                hashes = (hashes ^ minima[row :: self._rows]) * _MULTIPLIER
                hashes ^= hashes >> np.uint64(31)
            hashes >>= _HALF
        return hashes


def _position(codes: NDArray[np.uint64]) -> NDArray[np.int64]:
    return (codes & _LOW).astype(np.int64)


def _rows(threshold: float, *, recall: float) -> int:
    """Return the most hashes per band with which pairs at the threshold are still found."""
    rows = _HASHES
    while rows > 1 and 1 - (1 - threshold**rows) ** (_HASHES // rows) < recall:
        rows -= 1
    return rows


@lru_cache(maxsize=8)
def _limits(threshold: float) -> NDArray[np.int64]:
    """Return the most bits in which sketches of near-duplicates differ, by the sum of their grams.

    Source:
        Mitzenmacher, Pagh & Pham 2014, "Efficient estimation for high similarities using odd
        sketches"; here of the grams themselves, so that only two grams on one bit cause an error.
    """
    bits = 64 * _WORDS
    most = np.floor(np.arange(_LONGEST_SUM + 1) * (1 - threshold) / (1 + threshold) + 1e-9)
    two, four = (1 - 2 / bits) ** most, (1 - 4 / bits) ** most
    variance = bits / 4 * (1 - four) + bits**2 / 4 * (four - two**2)
    expected = bits / 2 * (1 - two) + _DEVIATIONS * np.sqrt(np.maximum(variance, 0))
    limits: NDArray[np.int64] = np.minimum(most, expected).astype(np.int64)
    limits[-1] = bits
    return limits


def _parts(totals: NDArray[np.int64], most: int) -> Iterator[slice]:
    """Yield slices in which a running total grows by at most that much, or of one item."""
    start = 0
    while start < len(totals):
        before = totals[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(totals, before + most, side="right")))
        yield slice(start, stop)
        start = stop


def _codes(keys: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Return the characters of all texts and how many each has; a short text is one whole gram."""
    lengths = np.fromiter(map(len, keys), dtype=np.int64, count=len(keys))
    if lengths.min() < _GRAM:
        keys = [key.ljust(_GRAM, "\0") for key in keys]
        lengths = np.maximum(lengths, _GRAM)
    text = "".join(keys).encode("utf-32-le", "surrogatepass")
    return np.frombuffer(text, dtype=np.uint32), lengths


def _is_gram(lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return for each character but the last four whether its gram lies within one text."""
    ends = np.cumsum(lengths)
    is_gram = np.ones(ends[-1], dtype=np.bool_)
    is_gram[np.subtract.outer(ends, np.arange(1, _GRAM))] = False
    return is_gram[: 1 - _GRAM]


def _distinct_grams(keys: Sequence[str]) -> NDArray[np.uint64]:
    """Return the distinct 32-bit hashes of the 5-grams, above each its text's number; sorted."""
    codes, lengths = _codes(keys)
    twos = codes[:-1] * np.uint32(0x9E3779B1) + codes[1:]
    fours = twos[:-2] * np.uint32(0x85EBCA77) + twos[2:]
    mixed = fours[:-1] * np.uint32(0xC2B2AE3D) + codes[4:]
    for shift, factor in ((15, 0x2C1B3C6D), (13, 0x297A2D39), (16, 1)):
        mixed ^= mixed >> np.uint32(shift)
        mixed *= np.uint32(factor)
    owners = np.repeat(np.arange(len(keys), dtype=np.uint64) << np.uint64(32), lengths)
    grams = (owners[: len(mixed)] | mixed)[_is_gram(lengths)]
    grams.sort()
    distinct: NDArray[np.uint64] = grams[np.append(True, grams[1:] != grams[:-1])]
    return distinct


def _minima(grams: NDArray[Any], starts: NDArray[np.int64], *, count: int) -> NDArray[np.uint32]:
    """Return ``(count, texts)``: the least gram of each text in that many random orders."""
    hashes, minima = grams.astype(np.uint32), np.empty((count, len(starts)), dtype=np.uint32)
    mixed = np.empty_like(hashes)
    # An odd factor permutes the 32-bit numbers: as good as a random order of mixed ones.
    factors = np.random.default_rng(0).integers(0, 1 << 31, size=count, dtype=np.uint32) * 2 + 1
    for factor, smallest in zip(factors, minima, strict=True):
        np.multiply(hashes, factor, out=mixed)
        np.minimum.reduceat(mixed, starts, out=smallest)
    return minima


def _jaccards(lefts: Sequence[str], rights: Sequence[str]) -> NDArray[np.float64]:
    """Return the exact :func:`jaccard` of each pair."""
    codes, lengths = _codes([key for pair in zip(lefts, rights, strict=True) for key in pair])
    # Characters by their rank among those that occur, so that a gram fits into one integer.
    ranks = np.cumsum(np.bincount(codes) > 0) - 1
    bits = int(ranks[-1]).bit_length()
    if _GRAM * bits >= np.iinfo(np.uint64).bits:
        return np.array([jaccard(*pair) for pair in zip(lefts, rights, strict=True)])
    ones: NDArray[Any] = ranks.astype(np.uint32 if _GRAM * bits < _HALF else np.uint64)[codes]
    twos = ones[:-1] << bits | ones[1:]
    fours = twos[:-2] << 2 * bits | twos[2:]
    grams = (fours[:-1] << bits | ones[4:])[_is_gram(lengths)]
    # The last bit tells the side; the cells left over hold one more value on every line.
    counts = lengths - _GRAM + 1
    sides = np.repeat(np.arange(len(counts), dtype=ones.dtype) & 1, counts)
    sums = counts[::2] + counts[1::2]
    table = np.full((len(lefts), sums.max() + 1), ~ones.dtype.type(0))
    table[np.arange(table.shape[1]) < sums[:, None]] = grams << 1 | sides
    table.sort(axis=1)
    changes = table[:, 1:] ^ table[:, :-1]
    both, union = (np.bitwise_count(np.packbits(changes > n, axis=1)).sum(axis=1) for n in (0, 1))
    similarities: NDArray[np.float64] = (both - union) / union
    for at in np.flatnonzero(lengths.reshape(-1, 2).min(axis=1) <= _GRAM).tolist():
        similarities[at] = jaccard(lefts[at], rights[at])
    return similarities
