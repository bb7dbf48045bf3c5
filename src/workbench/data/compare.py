"""What differs between two pair sets."""

from __future__ import annotations

from collections import Counter
from typing import Any, TypedDict

from workbench.core.identity import text_id
from workbench.data.pairs import COLUMNS, PairSet

__all__ = ["PairSetDiff", "compare"]

_DECIDES = ("split", "relation", "category", "language", "source")
_OTHERS = tuple(name for name in COLUMNS if name not in {*_DECIDES, "id", "adversarial", "clean"})


class PairSetDiff(TypedDict):
    """From an older to a newer set; a pair is the same if relation and both sides are."""

    old: str
    new: str
    kept: int
    added: int
    removed: int
    moved: dict[str, int]
    """``train → test_intents`` → pairs; towards train is a leak that the splits exclude."""
    relabelled: int
    """Kept pairs of which another field than the split changed."""
    added_by: dict[str, dict[str, int]]
    """Field → value → pairs that came."""
    removed_by: dict[str, dict[str, int]]
    config: dict[str, tuple[Any, Any]]
    """Field of the build that differs → its two values."""


def compare(old: PairSet, new: PairSet) -> PairSetDiff:
    """Return what changed; keeps about 100 bytes of each pair in memory.

    Raises:
        DataError: If a shard is damaged.
    """
    before, after = _labels(old), _labels(new)
    kept = before.keys() & after.keys()
    moved = Counter(
        f"{before[one][0]} → {after[one][0]}" for one in kept if before[one][0] != after[one][0]
    )
    configs = old.manifest["config"], new.manifest["config"]
    fields = {**configs[0], **configs[1]}
    return PairSetDiff(
        old=old.version,
        new=new.version,
        kept=len(kept),
        added=len(after) - len(kept),
        removed=len(before) - len(kept),
        moved=dict(sorted(moved.items())),
        relabelled=sum(before[one][1:] != after[one][1:] for one in kept),
        added_by=_by(after[one] for one in after.keys() - kept),
        removed_by=_by(before[one] for one in before.keys() - kept),
        config={
            name: (configs[0].get(name), configs[1].get(name))
            for name in fields
            if configs[0].get(name) != configs[1].get(name)
        },
    )


def _labels(pair_set: PairSet) -> dict[bytes, tuple[str, ...]]:
    shared: dict[tuple[str, ...], tuple[str, ...]] = {}
    found: dict[bytes, tuple[str, ...]] = {}
    for frame in pair_set.shards():
        rows = zip(*(frame[name] for name in _DECIDES), strict=True)
        others = zip(*(frame[name] for name in _OTHERS), strict=True)
        for one, labels, rest in zip(frame["id"], rows, others, strict=True):
            row = (*labels, text_id(*rest)[:16])
            found[bytes.fromhex(one)[:16]] = shared.setdefault(row, row)
    return found


def _by(labels: Any) -> dict[str, dict[str, int]]:
    counts = {name: Counter[str]() for name in _DECIDES}
    for row in labels:
        for name, value in zip(_DECIDES, row, strict=False):
            counts[name][value] += 1
    return {name: dict(count.most_common()) for name, count in counts.items()}
