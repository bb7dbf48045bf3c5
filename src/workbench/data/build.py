"""Building a pair set: draw, clean, group, split, deduplicate, decontaminate, write."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

from workbench.core.errors import ConfigError, DataError
from workbench.core.identity import content_id, sorted_ids_hash
from workbench.core.settings import project_root
from workbench.data.clean import QUARANTINED, clean_pair, redact_pair
from workbench.data.dedupe import near_duplicates, normalize, resembles_any
from workbench.data.pairs import PairSet, read_pairs, write_pairs
from workbench.data.sources import Source, SourceSpec, open_source
from workbench.data.split import assign_split, group_requests
from workbench.store.artifacts import write_json_atomic
from workbench.store.database import Store
from workbench.store.records import Pair

__all__ = ["BuildConfig", "build_pairs", "load_pairs"]

_PAIRS_FILE = "pairs.parquet"
_QUARANTINE_FILE = "quarantine.parquet"
_MANIFEST_FILE = "manifest.json"

_logger = logging.getLogger(__name__)

_REPEATED: Final = "near-duplicate of the same request in the same wrapper"
_CONTAMINATED: Final = "request of the evaluation sources"
_WRAPPER_KNOWN: Final = "wrapper of the evaluation sources"
_NO_SPLIT: Final = "validation request in a test wrapper"
_EVALUATED_ELSEWHERE: Final = "test_both left to the evaluation sources"

_SPARE = 1.2
"""How many times the missing pairs a round draws, for those that will be dropped."""
_TEXTS_PER_FAMILY = 8
"""Texts by which a wrapper is compared with those of the evaluation sources."""
_SAME_WRAPPER = 0.6
"""Jaccard similarity from which two texts wear one wrapper around different requests."""
_WORTH_ANOTHER_ROUND = 0.02
"""Share of a round's draws that must be new for another round."""


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """What to build."""

    target_pairs: int = 2000
    """Pairs to grow; those of the evaluation sources come on top."""
    seed: int = 0
    """Order and style of everything grown."""
    sources: Sequence[SourceSpec] = ("seeds",)
    """What pairs are grown from, in equal shares; see ``data.sources``."""
    evaluation: Sequence[SourceSpec] = ()
    """What is only ever tested on; where given, it alone is the split ``test_both``."""
    folder: Path | None = None
    """Folder that relative paths of sources start from; none: the project's."""

    def __post_init__(self) -> None:
        if self.target_pairs < 1:
            raise ConfigError(f"target_pairs is {self.target_pairs}; give at least 1")
        if not self.sources:
            raise ConfigError("sources is empty; name at least one, e.g. seeds")

    def to_json(self) -> dict[str, Any]:
        """Return what names the set: everything but where on this machine its files lie."""
        return {
            "target_pairs": self.target_pairs,
            "seed": self.seed,
            "sources": [_without_folders(spec) for spec in self.sources],
            "evaluation": [_without_folders(spec) for spec in self.evaluation],
        }


@dataclass(kw_only=True)
class _Growth:
    """Pairs drawn so far, and what became of the others."""

    kept: list[Pair] = field(default_factory=list)
    quarantine: list[Pair] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    seen: set[str] = field(default_factory=set)

    def add(self, pairs: Iterator[Pair] | Sequence[Pair]) -> None:
        """Clean pairs and keep those that are good and new."""
        for pair in pairs:
            cleaned, reason = clean_pair(pair)
            if not reason and cleaned.id in self.seen:
                reason = "exact duplicate"
            if reason:
                self.dropped[reason] += 1
            else:
                self.seen.add(cleaned.id)
                self.kept.append(cleaned)
            if reason == QUARANTINED:
                self.quarantine.append(redact_pair(cleaned))


def build_pairs(store: Store, config: BuildConfig) -> PairSet:
    """Build a pair set, write it to the store and return it.

    The same config on the same data gives the same version; a killed build leaves nothing behind
    and is simply run again.

    Args:
        store: Where the set is kept.
        config: What to build.

    Raises:
        ConfigError: If a source is described wrongly.
        DataError: If all sources fail, an evaluation source fails, or nothing is left to train on.
        StoreError: If the store cannot be written.
    """
    folder = config.folder or project_root()
    sources, rows = _open_all(config.sources, folder=folder)
    # A missing evaluation set would silently change what test_both means: no excuse here.
    evaluation = [open_source(spec, folder=folder) for spec in config.evaluation]
    held = _Growth()
    for source in evaluation:
        held.add(source.grow(seed=config.seed))
    evaluated = _hold_out(held.kept)
    grown, growth = _grow(sources, config=config, evaluated=evaluated)
    if not grown:
        raise DataError(f"no pairs left to train on; dropped: {dict(growth.dropped) or 'none'}")
    pairs = [*grown, *evaluated]
    counts = Counter(pair.source for pair in pairs)
    rows = [{**row, "pairs": counts[row["name"]]} for row in rows]
    rows += [{**_source_row(source), "pairs": counts[source.name]} for source in evaluation]
    manifest = {
        "config": config.to_json(),
        "pairs": len(pairs),
        "shortfall": _shortfall(config.target_pairs - len(grown)),
        "near_duplicates": growth.dropped[_REPEATED]
        + sum(bool(pair.near_dup_of) for pair in grown),
        "dropped": dict(sorted((growth.dropped + held.dropped).items())),
        "sources": rows,
    }
    version = content_id(
        {
            "config": config.to_json(),
            "pairs": sorted_ids_hash(f"{pair.id}:{pair.split}" for pair in pairs),
        }
    )
    with store.artifacts.create(
        "pair_set", version, {"pairs": len(pairs), "seed": config.seed}
    ) as target:
        write_pairs(target / _PAIRS_FILE, pairs)
        write_pairs(target / _QUARANTINE_FILE, [*growth.quarantine, *held.quarantine])
        write_json_atomic(target / _MANIFEST_FILE, manifest)
    return load_pairs(store, version)


def load_pairs(store: Store, version: str) -> PairSet:
    """Return a stored pair set.

    Args:
        store: Where the set is kept.
        version: Its id; empty: the newest.

    Raises:
        DataError: If there is none, or its files are damaged.
    """
    version = version or store.artifacts.newest("pair_set")
    if not version:
        raise DataError("no pair set yet; run the notebook 01_expand_pairs first")
    folder = store.artifacts.path("pair_set", version)
    try:
        manifest = json.loads((folder / _MANIFEST_FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder / _MANIFEST_FILE}: damaged ({error}); build the set again"
        ) from error
    return PairSet(version=version, frame=read_pairs(folder / _PAIRS_FILE), manifest=manifest)


def _open_all(
    specs: Sequence[SourceSpec], *, folder: Path
) -> tuple[list[Source], list[dict[str, Any]]]:
    sources, rows = [], []
    for spec in specs:
        try:
            source = open_source(spec, folder=folder)
        except DataError as error:
            name = spec if isinstance(spec, str) else str(spec.get("name") or spec.get("path"))
            _logger.error("source %s is left out: %s", name, error)  # noqa: TRY400 - one clear line
            rows.append(
                {"name": name, "revision": "", "license": "", "pairs": 0, "error": str(error)}
            )
        else:
            sources.append(source)
            rows.append(_source_row(source))
    if not sources:
        raise DataError(
            "no source could be loaded: " + "; ".join(str(row["error"]) for row in rows)
        )
    names = Counter(row["name"] for row in rows)
    if twice := [name for name, times in names.items() if times > 1]:
        raise ConfigError(f"two sources are called {twice[0]!r}; give one another name")
    return sources, rows


def _source_row(source: Source) -> dict[str, Any]:
    return {
        "name": source.name,
        "revision": source.revision,
        "license": source.license,
        "error": "",
    }


def _hold_out(pairs: Sequence[Pair]) -> list[Pair]:
    groups = group_requests([pair.core for pair in pairs], [pair.parent_id for pair in pairs])
    return [
        dataclasses.replace(pair, group=group, split="test_both")
        for pair, group in zip(pairs, groups, strict=True)
    ]


def _grow(
    sources: Sequence[Source], *, config: BuildConfig, evaluated: Sequence[Pair]
) -> tuple[list[Pair], _Growth]:
    """Draw from all sources in turn until the target is reached or nothing new comes."""
    drawn = _in_turn([source.grow(seed=config.seed) for source in sources])
    growth = _Growth()
    good: list[Pair] = []
    repeated: list[Pair] = []
    reasons: Counter[str] = Counter()
    while (missing := config.target_pairs - len(good)) > 0:
        before, batch = len(good), list(islice(drawn, int(missing * _SPARE) + 16))
        growth.add(batch)
        good, repeated, reasons = _select(growth.kept, config=config, evaluated=evaluated)
        if len(good) - before <= _WORTH_ANOTHER_ROUND * len(batch):
            break
    # Where no source has anything really new, a repetition in other words is better than nothing.
    fill = repeated[: max(0, config.target_pairs - len(good))]
    reasons[_REPEATED] -= len(fill)
    growth.dropped += reasons
    return [*good, *fill], growth


def _select(
    pairs: Sequence[Pair], *, config: BuildConfig, evaluated: Sequence[Pair]
) -> tuple[list[Pair], list[Pair], Counter[str]]:
    """Return pairs to keep up to the target, near-duplicates, and why others are dropped."""
    groups = group_requests([pair.core for pair in pairs], [pair.parent_id for pair in pairs])
    buckets = [f"{group}\n{pair.wrapper_family}" for group, pair in zip(groups, pairs, strict=True)]
    repeats = near_duplicates([normalize(pair.adversarial) for pair in pairs], within=buckets)
    contaminated = _contaminated_cores(pairs, evaluated)
    worn = _contaminated_families(pairs, evaluated)
    good: list[Pair] = []
    repeated: list[Pair] = []
    reasons: Counter[str] = Counter()
    for pair, group, origin in zip(pairs, groups, repeats, strict=True):
        if len(good) == config.target_pairs:
            break
        split = assign_split(group, pair.wrapper_family)
        placed = dataclasses.replace(pair, group=group, split=split or "")
        if normalize(pair.core) in contaminated:
            reasons[_CONTAMINATED] += 1
        elif pair.wrapper_family in worn:
            reasons[_WRAPPER_KNOWN] += 1
        elif split is None:
            reasons[_NO_SPLIT] += 1
        elif split == "test_both" and evaluated:
            reasons[_EVALUATED_ELSEWHERE] += 1
        elif origin >= 0:
            reasons[_REPEATED] += 1
            repeated.append(dataclasses.replace(placed, near_dup_of=pairs[origin].id))
        else:
            good.append(placed)
    return good, repeated, reasons


def _contaminated_cores(pairs: Sequence[Pair], evaluated: Sequence[Pair]) -> set[str]:
    """Return the requests, normalized, that resemble one that is evaluated."""
    known = {normalize(text) for pair in evaluated for text in (pair.core, pair.clean)}
    cores = sorted({normalize(pair.core) for pair in pairs}) if known else []
    return {cores[index] for index in resembles_any(cores, sorted(known)).nonzero()[0]}


def _contaminated_families(pairs: Sequence[Pair], evaluated: Sequence[Pair]) -> set[str]:
    """Return the wrapper families that evaluated attacks wear as well."""
    known = sorted({normalize(pair.adversarial) for pair in evaluated})
    texts: dict[str, list[str]] = {}
    for pair in pairs if known else ():
        samples = texts.setdefault(pair.wrapper_family, [])
        if pair.wrapper_family and len(samples) < _TEXTS_PER_FAMILY:
            samples.append(normalize(pair.adversarial))
    families = [family for family, samples in texts.items() for _ in samples]
    samples = [text for group in texts.values() for text in group]
    found = resembles_any(samples, known, threshold=_SAME_WRAPPER)
    return {families[index] for index in found.nonzero()[0]}


def _in_turn(streams: Sequence[Iterator[Pair]]) -> Iterator[Pair]:
    """Yield one from each stream in turn; those that end drop out."""
    active = list(streams)
    while active:
        still = []
        for stream in active:
            pair = next(stream, None)
            if pair is not None:
                yield pair
                still.append(stream)
        active = still


def _without_folders(spec: SourceSpec) -> Any:
    if not isinstance(spec, Mapping):
        return spec
    return {
        key: Path(value).name if key == "path" else _without_folders(value)
        for key, value in spec.items()
    }


def _shortfall(missing: int) -> str:
    if missing <= 0:
        return ""
    return f"{missing} pairs fewer than asked for: the sources have no more distinct ones"
