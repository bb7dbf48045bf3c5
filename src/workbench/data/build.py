"""Building a pair set: draw, clean, group, split, deduplicate, decontaminate, write."""

from __future__ import annotations

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, Final

from workbench.core.errors import ConfigError, DataError
from workbench.core.identity import content_id, sorted_ids_hash, text_id
from workbench.core.settings import project_root
from workbench.data.clean import QUARANTINED, clean_pair, redact_pair
from workbench.data.dedupe import SAME_WRAPPER, THRESHOLD, near_duplicates, normalize, resembles_any
from workbench.data.pairs import COLUMNS, PairSet, Source, read_pairs, write_pairs
from workbench.data.sources import SourceSpec, open_source
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
_GROWTH = 0.25
"""Least share of the pairs drawn so far that another round draws, so that all rounds together look
at no more than five times the pairs of the last one."""
_TEXTS_PER_FAMILY = 8
"""Texts by which a wrapper is compared with those of the evaluation sources."""
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


def build_pairs(store: Store, config: BuildConfig) -> PairSet:
    """Build a pair set, write it to the store and return it.

    The same config on the same data gives the same version; a killed build leaves nothing behind
    and is simply run again.

    Raises:
        ConfigError: If a source is described wrongly.
        DataError: If all sources fail, an evaluation source fails, or nothing is left to train on.
        StoreError: If the store cannot be written.
    """
    folder = config.folder or project_root()
    sources, failed = _open_all(config.sources, folder=folder)
    # A missing evaluation set would silently change what test_both means: no excuse here.
    held_out = [open_source(spec, folder=folder) for spec in config.evaluation]
    if endless := [source.name for source in held_out if source.is_endless]:
        raise ConfigError(f"evaluation: source {endless[0]!r} has no end; give one of files")
    names = Counter([source.name for source in (*sources, *held_out)])
    if twice := [name for name, times in names.items() if times > 1]:
        raise ConfigError(f"two sources are called {twice[0]!r}; give one another name")
    pool = _Pool()
    pool.add(pair for source in held_out for pair in source.grow(seed=config.seed))
    evaluated = _hold_out(pool.pairs)
    pool.pairs = []
    grown = _grow(sources, pool=pool, config=config, evaluated=evaluated)
    if not grown:
        raise DataError(f"no pairs left to train on; dropped: {dict(pool.dropped) or 'none'}")
    pairs = [*grown, *evaluated]
    counts = Counter(pair.source for pair in pairs)
    missing = config.target_pairs - len(grown)
    sources += held_out
    shortfall = f"{missing} pairs fewer than asked for: the sources have no more distinct ones"
    manifest = {
        "config": config.to_json(),
        "pairs": len(pairs),
        "shortfall": shortfall if missing else "",
        "near_duplicates": pool.dropped[_REPEATED] + sum(bool(pair.near_dup_of) for pair in grown),
        "dropped": dict(sorted((+pool.dropped).items())),
        "sources": [_source_row(source, pairs=counts[source.name]) for source in sources] + failed,
    }
    # Every field counts: a relabelled source is another set, though its texts are the same.
    rows = (text_id(*(getattr(pair, name) for name in COLUMNS)) for pair in pairs)
    version = content_id({"config": config.to_json(), "pairs": sorted_ids_hash(rows)})
    metadata = {"pairs": len(pairs), "seed": config.seed}
    with store.artifacts.create("pair_set", version, metadata) as target:
        write_pairs(target / _PAIRS_FILE, pairs)
        write_pairs(target / _QUARANTINE_FILE, pool.quarantine)
        write_json_atomic(target / _MANIFEST_FILE, manifest)
    return load_pairs(store, version)


def load_pairs(store: Store, version: str) -> PairSet:
    """Return a stored pair set; an empty version means the newest.

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
        damaged = f"{folder / _MANIFEST_FILE}: damaged ({error})"
        raise DataError(f"{damaged}; build the set again") from error
    return PairSet(version=version, frame=read_pairs(folder / _PAIRS_FILE), manifest=manifest)


@dataclass(kw_only=True)
class _Pool:
    """Pairs drawn so far, cleaned and distinct, and what became of the others."""

    pairs: list[Pair] = field(default_factory=list)
    quarantine: list[Pair] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    seen: set[str] = field(default_factory=set)

    def add(self, drawn: Iterable[Pair]) -> None:
        for pair in drawn:
            cleaned, reason = clean_pair(pair)
            if not reason and cleaned.id in self.seen:
                reason = "exact duplicate"
            if reason:
                self.dropped[reason] += 1
            else:
                self.seen.add(cleaned.id)
                self.pairs.append(cleaned)
            if reason == QUARANTINED:
                self.quarantine.append(redact_pair(cleaned))


def _open_all(
    specs: Sequence[SourceSpec], *, folder: Path
) -> tuple[list[Source], list[dict[str, Any]]]:
    """Return the sources that can be opened, and a row of the manifest for each other one."""
    sources, failed = [], []
    for spec in specs:
        try:
            sources.append(open_source(spec, folder=folder))
        except DataError as error:
            name = spec if isinstance(spec, str) else str(spec.get("name") or spec.get("path"))
            _logger.error("source %s is left out: %s", name, error)  # noqa: TRY400 - one clear line
            row = {"name": name, "revision": "", "license": "", "pairs": 0, "error": str(error)}
            failed.append(row)
    if not sources:
        reasons = "; ".join(str(row["error"]) for row in failed)
        raise DataError(f"no source could be loaded: {reasons}")
    return sources, failed


def _source_row(source: Source, *, pairs: int) -> dict[str, Any]:
    named = {"name": source.name, "revision": source.revision, "license": source.license}
    return {**named, "pairs": pairs, "error": ""}


def _hold_out(pairs: Sequence[Pair]) -> list[Pair]:
    groups = group_requests([pair.core for pair in pairs], [pair.parent_id for pair in pairs])
    return [
        replace(pair, group=group, split="test_both")
        for pair, group in zip(pairs, groups, strict=True)
    ]


def _grow(
    sources: Sequence[Source], *, pool: _Pool, config: BuildConfig, evaluated: Sequence[Pair]
) -> list[Pair]:
    """Draw from all sources in turn until the target is reached or nothing new comes."""
    rounds = zip_longest(*(source.grow(seed=config.seed) for source in sources))
    drawn = (pair for round_ in rounds for pair in round_ if pair is not None)
    good: list[Pair] = []
    repeated: list[Pair] = []
    reasons: Counter[str] = Counter()
    while (missing := config.target_pairs - len(good)) > 0:
        before, size = len(good), max(missing * _SPARE + 16, len(pool.pairs) * _GROWTH)
        batch = list(islice(drawn, int(size)))
        pool.add(batch)
        good, repeated, reasons = _select(pool.pairs, config=config, evaluated=evaluated)
        if len(good) - before <= _WORTH_ANOTHER_ROUND * len(batch):
            break
    # Where no source has anything really new, a repetition in other words is better than nothing.
    fill = repeated[: config.target_pairs - len(good)]
    reasons[_REPEATED] -= len(fill)
    pool.dropped += reasons
    return [*good, *fill]


def _select(
    pairs: Sequence[Pair], *, config: BuildConfig, evaluated: Sequence[Pair]
) -> tuple[list[Pair], list[Pair], Counter[str]]:
    """Return pairs to keep up to the target, near-duplicates, and why others are dropped."""
    groups = group_requests([pair.core for pair in pairs], [pair.parent_id for pair in pairs])
    buckets = [f"{group}\n{pair.wrapper_family}" for group, pair in zip(groups, pairs, strict=True)]
    repeats = near_duplicates([normalize(pair.adversarial) for pair in pairs], within=buckets)
    known_groups, known_families = _contaminated(pairs, groups, evaluated=evaluated)
    good: list[Pair] = []
    repeated: list[Pair] = []
    reasons: Counter[str] = Counter()
    for pair, group, origin in zip(pairs, groups, repeats, strict=True):
        if len(good) == config.target_pairs:
            break
        split = assign_split(group, pair.wrapper_family)
        if group in known_groups:
            reasons[_CONTAMINATED] += 1
        elif pair.wrapper_family in known_families:
            reasons[_WRAPPER_KNOWN] += 1
        elif split is None:
            reasons[_NO_SPLIT] += 1
        elif split == "test_both" and evaluated:
            reasons[_EVALUATED_ELSEWHERE] += 1
        elif origin >= 0:
            reasons[_REPEATED] += 1
            origin_id = pairs[origin].id
            repeated.append(replace(pair, group=group, split=split, near_dup_of=origin_id))
        else:
            good.append(replace(pair, group=group, split=split))
    return good, repeated, reasons


def _contaminated(
    pairs: Sequence[Pair], groups: Sequence[str], *, evaluated: Sequence[Pair]
) -> tuple[set[str], set[str]]:
    """Return the leak groups and the wrapper families that occur in evaluated pairs."""
    if not evaluated:
        return set(), set()
    requests: set[tuple[str, str]] = set()
    wrapped: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for pair, group in zip(pairs, groups, strict=True):
        family = pair.wrapper_family
        requests |= {(group, pair.core), (group, pair.clean)}
        if not family:
            requests.add((group, pair.adversarial))
        elif len(wrapped[family]) < _TEXTS_PER_FAMILY:
            wrapped[family].append((family, pair.adversarial))
    attacks = {normalize(pair.adversarial) for pair in evaluated}
    known = attacks | {normalize(text) for pair in evaluated for text in (pair.core, pair.clean)}
    samples = [sample for some in wrapped.values() for sample in some]
    return (
        _resembling(sorted(requests), known, threshold=THRESHOLD),
        _resembling(samples, attacks, threshold=SAME_WRAPPER),
    )


def _resembling(
    labelled: Sequence[tuple[str, str]], known: set[str], *, threshold: float
) -> set[str]:
    """Return the labels that have a text like a known one."""
    keys = [normalize(text) for _, text in labelled]
    found = resembles_any(keys, sorted(known), threshold=threshold)
    return {label for (label, _), is_known in zip(labelled, found, strict=True) if is_known}


def _without_folders(spec: SourceSpec) -> Any:
    if not isinstance(spec, Mapping):
        return spec
    return {
        key: Path(value).name if key == "path" else _without_folders(value)
        for key, value in spec.items()
    }
