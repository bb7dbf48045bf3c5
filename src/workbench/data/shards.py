"""Growing one shard: draw, clean, drop repeats, write. Depends on its plan alone."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, Final

from workbench.core.identity import file_sha256
from workbench.data.clean import QUARANTINED, clean_pair, redact_pair
from workbench.data.dedupe import near_duplicates, normalize, resembles_any
from workbench.data.grammar import NESTED
from workbench.data.local import SCRUBBED
from workbench.data.pairs import COLUMNS, write_pairs
from workbench.data.plan import Planned, ShardPlan
from workbench.data.split import assign_split
from workbench.store.artifacts import clear_disk_errors, write_json_atomic
from workbench.store.records import Pair

__all__ = ["COUNTED", "Grown", "grow_shard", "row_digest", "write_shard"]

COUNTED: Final = (
    "split", "category", "relation", "wrapper_family", "language", "domain", "context", "source",
    "license", "generator",
)  # fmt: skip
"""Fields of a pair by whose values the card counts."""

_REPEATED: Final = "near-duplicate of the same request in the same wrapper"
_WRAPPER_KNOWN: Final = "wrapper of the evaluation sources"
_OTHER_KNOWN: Final = "second wrapper that other sources may have"
_PROMPT_KNOWN: Final = "like a prompt of the evaluation sources"
_NO_SPLIT: Final = "validation request in a test wrapper"
_EVALUATED_ELSEWHERE: Final = "test_both left to the evaluation sources"
_EXACT: Final = "exact duplicate"

_SPARE = 1.15
"""How many times its quota a stem is asked for at first, for those that will be dropped."""
_GROWTH = 0.25
"""Least share of the pairs drawn so far that another round draws, so that all rounds together look
at no more than five times the pairs of the last one."""
_WORTH_ANOTHER_ROUND = 0.02
"""Share of a round's draws that must be new for another round."""


@dataclass(frozen=True, kw_only=True)
class Grown:
    """The pairs of a shard, and what became of the others."""

    pairs: list[Pair]
    """Sorted by id."""
    quarantine: list[Pair]
    """Redacted."""
    dropped: Counter[str]


@dataclass(kw_only=True)
class _Stock:
    """Pairs drawn so far, cleaned and distinct, and what became of the others."""

    pairs: list[Pair] = field(default_factory=list)
    origins: list[int] = field(default_factory=list)
    """Number of the stem that each pair grew from."""
    quarantine: list[Pair] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    seen: set[str] = field(default_factory=set)

    def add(self, pair: Pair, *, origin: int, plan: ShardPlan) -> None:
        family = plan.same_families.get(pair.wrapper_family, pair.wrapper_family)
        split, reason = _side(pair.group, family, plan.has_evaluation)
        if pair.wrapper_family in plan.known_families:
            reason = _WRAPPER_KNOWN
        elif pair.generator.endswith(NESTED) and not plan.takes_nested:
            reason = _OTHER_KNOWN
        if not reason:
            pair, reason = clean_pair(pair)
            if not reason and pair.generator == SCRUBBED:  # patterns miss names: a person looks
                reason = QUARANTINED
            if reason == QUARANTINED:
                self.quarantine.append(redact_pair(pair))
            elif not reason and pair.id in self.seen:
                reason = _EXACT
        if reason:
            self.dropped[reason] += 1
            return
        self.seen.add(pair.id)
        self.pairs.append(replace(pair, split=split))
        self.origins.append(origin)


def grow_shard(plan: ShardPlan) -> Grown:
    """Return the pairs of a shard: its quota of every stem, as far as the stems give it.

    Where a stem falls short others give more, and where nothing new comes any more, repetitions in
    other words fill up, marked by ``near_dup_of``.
    """
    growths = [_pairs_of(planned, seed=plan.seed) for planned in plan.stems]
    asked = [int(planned.quota * _SPARE) + 2 if planned.quota else 0 for planned in plan.stems]
    stock = _Stock()
    good: list[Pair] = []
    repeated: list[Pair] = []
    reasons: Counter[str] = Counter()
    while plan.wanted:
        before, drawn = len(good), 0
        for origin, count in enumerate(asked):
            for pair in islice(growths[origin], count):
                drawn += 1
                stock.add(pair, origin=origin, plan=plan)
        good, repeated, reasons = _select(stock, plan=plan)
        missing = plan.wanted - len(good)
        if missing <= 0 or len(good) - before <= _WORTH_ANOTHER_ROUND * drawn:
            break
        more = max(missing * _SPARE, len(stock.pairs) * _GROWTH)
        asked = [int(more / len(growths)) + 1] * len(growths)
    fill = repeated[: plan.wanted - len(good)]
    reasons[_REPEATED] = len(repeated) - len(fill)
    pairs = sorted([*good, *fill], key=lambda pair: pair.id)
    return Grown(pairs=pairs, quarantine=stock.quarantine, dropped=stock.dropped + reasons)


def write_shard(grown: Grown, folder: Path, *, name: str) -> dict[str, Any]:
    """Write a shard and what was counted of it, each whole or not at all; return the counts.

    The counts, ``<name>.json``, come last: a shard exists once they do.
    """
    files = {f"pairs-{name}.parquet": grown.pairs, f"quarantine-{name}.parquet": grown.quarantine}
    for file, pairs in files.items():
        with clear_disk_errors(folder / file):
            temporary = folder / f".{file}.{os.getpid()}.tmp"
            write_pairs(temporary, pairs)
            temporary.replace(folder / file)
    shard, quarantine = files
    digests = sorted(row_digest(pair) for pair in grown.pairs)
    counts = {
        "file": shard,
        "sha256": file_sha256(folder / shard),
        "rows": len(grown.pairs),
        "rows_sha256": sha256(b"".join(digests)).hexdigest(),
        "quarantine": quarantine,
        "quarantined": len(grown.quarantine),
        "near_duplicates": sum(bool(pair.near_dup_of) for pair in grown.pairs),
        "requests": len({normalize(pair.core) for pair in grown.pairs}),
        "groups": len({pair.group for pair in grown.pairs}),
        "dropped": dict(sorted(grown.dropped.items())),
        "by": {
            name: dict(Counter(getattr(pair, name) for pair in grown.pairs)) for name in COUNTED
        },
    }
    write_json_atomic(folder / f"{name}.json", counts)
    return counts


def row_digest(pair: Pair) -> bytes:
    """Return the sha256 of all fields: a relabelled pair is another one.

    Fields are free of control characters once cleaned, so one of those can stand between them.
    """
    row = "\x1f".join(getattr(pair, name) for name in COLUMNS)
    return sha256(row.encode()).digest()


def _pairs_of(planned: Planned, *, seed: int) -> Iterator[Pair]:
    return (replace(pair, group=planned.group) for pair in planned.stem.grow(seed=seed))


@lru_cache(maxsize=1 << 14)  # a group has its pairs in one shard
def _side(group: str, family: str, has_evaluation: bool) -> tuple[str, str]:
    """Return the split of a pair, and the reason to drop it."""
    split = assign_split(group, family)
    if split is None:
        return "", _NO_SPLIT
    if split == "test_both" and has_evaluation:
        return "", _EVALUATED_ELSEWHERE
    return split, ""


def _select(stock: _Stock, *, plan: ShardPlan) -> tuple[list[Pair], list[Pair], Counter[str]]:
    """Return pairs to keep up to the plan, near-duplicates, and why others are dropped."""
    keys = [normalize(pair.adversarial) for pair in stock.pairs]
    reasons: Counter[str] = Counter()
    places = list(range(len(keys)))
    if plan.attacks:
        like_known = resembles_any(keys, plan.attacks)
        reasons[_PROMPT_KNOWN] = int(like_known.sum())
        places = [place for place in places if not like_known[place]]
    pairs = [stock.pairs[place] for place in places]
    origins = [stock.origins[place] for place in places]
    buckets = [
        f"{pair.group}\n{pair.wrapper_family}\n{pair.language}\n{pair.relation}" for pair in pairs
    ]
    repeats = near_duplicates([keys[place] for place in places], within=buckets)
    left = [planned.quota for planned in plan.stems]
    good: list[Pair] = []
    extra: list[Pair] = []
    repeated: list[Pair] = []
    for pair, number, origin in zip(pairs, repeats.tolist(), origins, strict=True):
        if number >= 0:
            repeated.append(replace(pair, near_dup_of=pairs[number].id))
        elif left[origin]:
            left[origin] -= 1
            good.append(pair)
        else:
            extra.append(pair)
    return [*good, *extra[: plan.wanted - len(good)]], repeated, reasons
