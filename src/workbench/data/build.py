"""Building a pair set: open sources, plan, grow the shards, write. Resumable and reproducible."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from workbench.core.cluster import check_executor
from workbench.core.errors import ConfigError, DataError
from workbench.core.identity import content_id, file_sha256
from workbench.core.settings import project_root
from workbench.data.clean import QUARANTINED, clean_pair
from workbench.data.config import BuildConfig
from workbench.data.growth import Progress, grow_all
from workbench.data.leaks import find_leaks
from workbench.data.local import SCRUBBED
from workbench.data.pairs import PairSet, Source
from workbench.data.plan import make_plan, source_shares
from workbench.data.shards import Grown, write_shard
from workbench.data.sources import (
    check_license,
    open_source,
    open_sources,
    refuse_benchmarks,
)
from workbench.data.split import group_requests
from workbench.store.artifacts import clear_disk_errors, write_atomic, write_json_atomic
from workbench.store.database import Store
from workbench.store.records import Pair

__all__ = ["build_pairs", "draft", "load_pairs"]

_MANIFEST_FILE = "manifest.json"
_VERSION_FILE = "version"
_EVALUATION_SHARD = "evaluation"


def build_pairs(
    store: Store,
    config: BuildConfig,
    *,
    executor: str = "processes",
    workers: int = 1,
    progress: Progress | None = None,
) -> PairSet:
    """Build a pair set, write it to the store and return it.

    The same config on the same data gives the same version, whatever who grows its shards. A
    killed build goes on where it was when it is started again; a set that is there and whole is
    returned at once, a damaged one is mended.

    Args:
        store: Where the set goes.
        config: What to build.
        executor: What grows the shards, see :func:`workbench.core.cluster.check_executor`.
        workers: How many; a scheduler that is running already has workers of its own.
        progress: Told how far the build is.

    Raises:
        ConfigError: If a source is described wrongly, or there is no such executor.
        DataError: If all sources fail, an evaluation source fails, or nothing is left to train on.
        StoreError: If the store cannot be written.
        WorkerLost: If workers keep dying; finished shards are kept.
    """
    check_executor(executor)
    opened = _open(config)
    sources, held_out, others = opened.sources, opened.held_out, opened.others
    evaluated, spoilt = _cleaned(held_out, seed=config.seed)
    if held_out and not evaluated:
        # a test that silently means something else is worse than none
        raise DataError(f"no pair of the evaluation sources is left; dropped: {dict(spoilt)}")
    kept_out = [text for one in others for text in _texts_of(one, seed=config.seed)]
    with _workspace(store, config, [*sources, *held_out, *others]) as place:
        if ready := _built(store, place):
            return ready
        plan = make_plan(
            sources,
            target=config.target_pairs,
            seed=config.seed,
            weights=config.weights,
            evaluated=evaluated,
            kept_out=kept_out,
        )
        shards = grow_all(
            plan, place, executor=executor, workers=workers, total=config.target_pairs,
            tell=progress,
        )  # fmt: skip
        if not any(shard["rows"] for shard in shards):
            dropped = plan.dropped + _sum(shard["dropped"] for shard in shards)
            raise DataError(f"no pairs left to train on; dropped: {dict(dropped) or 'none'}")
        if evaluated:
            grown = Grown(pairs=_hold_out(evaluated), quarantine=[], dropped=spoilt)
            shards.append(write_shard(grown, place, name=_EVALUATION_SHARD))
        manifest = _manifest(config, opened, shards, dropped=plan.dropped)
        known = [*(pair.adversarial for pair in evaluated), *kept_out]
        version = _keep(store, place, manifest, known=known, evaluating=held_out)
    return load_pairs(store, version)


def _keep(
    store: Store,
    place: Path,
    manifest: dict[str, Any],
    *,
    known: Sequence[str],
    evaluating: Sequence[Source],
) -> str:
    """Search a grown set for leaks, make it an artifact, and empty its workspace; return its id."""
    version = _version_of(manifest)
    pair_set = PairSet(version=version, folder=place, manifest=manifest)
    names = {source.name for source in evaluating}
    manifest["leaks"] = find_leaks(pair_set, known=known, evaluating=names)
    metadata = {"pairs": manifest["pairs"], "seed": manifest["config"]["seed"]}
    is_whole = _whole(store, version) is not None
    with store.artifacts.create("pair_set", version, metadata, mend=not is_whole) as target:
        for shard in manifest["shards"]:
            for file in (shard["file"], shard["quarantine"]):
                _link(place / file, target / file)
        write_json_atomic(target / _MANIFEST_FILE, manifest)
    for file in place.iterdir():
        file.unlink()
    write_atomic(place / _VERSION_FILE, version.encode())
    return version


def draft(config: BuildConfig) -> list[dict[str, Any]]:
    """Return what a build would draw from each source, without growing anything.

    Each row has ``source requests pairs license problem``; raises as :func:`build_pairs`.
    """
    opened = _open(config)
    shares = source_shares(opened.sources, target=config.target_pairs)
    rows = [
        {"source": source.name, "requests": len(source.stems), "pairs": share,
         "license": source.license, "problem": ""}
        for source, share in zip(opened.sources, shares, strict=True)
    ]  # fmt: skip
    rows += [
        {"source": source.name, "requests": len(source.stems), "pairs": 0,
         "license": source.license, "problem": "only compared with or tested on"}
        for source in (*opened.held_out, *opened.others)
    ]  # fmt: skip
    return rows + [
        {"source": row["name"], "requests": 0, "pairs": 0, "license": "", "problem": row["error"]}
        for row in (*opened.failed, *opened.absent)
    ]


def load_pairs(store: Store, version: str) -> PairSet:
    """Return a stored pair set; an empty version means the newest.

    Raises:
        DataError: If there is none, or its manifest is damaged.
    """
    version = version or store.artifacts.newest("pair_set")
    if not version:
        raise DataError("no pair set yet; run the notebook 01_expand_pairs first")
    version = store.artifacts.resolve("pair_set", version)
    folder = store.artifacts.path("pair_set", version)
    path = folder / _MANIFEST_FILE
    try:
        manifest = json.loads(path.read_bytes())
        found = _version_of(manifest)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error!r}); build the set again") from error
    if found != version:
        raise DataError(f"{path}: altered after it was written; build the set again")
    return PairSet(version=version, folder=folder, manifest=manifest)


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """The sources of a build, and rows of the manifest for those that are missing."""

    sources: list[Source]
    held_out: list[Source]
    others: list[Source]
    failed: list[dict[str, Any]]
    absent: list[dict[str, Any]]


def _open(config: BuildConfig) -> _Opened:
    folder = config.folder or project_root()
    refuse_benchmarks(config.sources)
    sources, failed = open_sources(config.sources, folder=folder, licenses=config.licenses)
    if not sources:
        reasons = "; ".join(f"{row['name']}: {row['error']}" for row in failed)
        raise DataError(f"no source could be loaded: {reasons}")
    # A missing evaluation set would silently change what test_both means: no excuse here.
    held_out = [open_source(spec, folder=folder) for spec in config.evaluation]
    for source in held_out:
        check_license(source, config.licenses)
    others, absent = open_sources(config.decontaminate, folder=folder, to_compare=True)
    _check_use(sources, compared=[*held_out, *others])
    _check_names([*sources, *held_out])
    return _Opened(sources=sources, held_out=held_out, others=others, failed=failed, absent=absent)


def _version_of(manifest: Mapping[str, Any]) -> str:
    """Return what names a set: its build, every field of its pairs, and what it was kept from."""
    rows = [shard["rows_sha256"] for shard in manifest["shards"]]
    named = {"config": manifest["config"], "compared": manifest["compared"], "rows": rows}
    return content_id(named)


@contextmanager
def _workspace(store: Store, config: BuildConfig, sources: Sequence[Source]) -> Iterator[Path]:
    """Give the folder of a build: the same for the same config, data and code."""
    contents = [
        [source.name, source.revision, source.license, source.content] for source in sources
    ]
    name = content_id([config.to_json(), contents, _code_hash()])[:16]
    place = store.home / "builds" / name
    with clear_disk_errors(place):
        place.mkdir(parents=True, exist_ok=True)
    with FileLock(place.with_suffix(".lock")):
        place.mkdir(exist_ok=True)
        yield place


@cache
def _code_hash() -> str:
    """Return the hash of the code that decides: shards that other code grew are not taken up."""
    rooms = Path(__file__).parents[1]
    files = [*sorted((rooms / "core").glob("*.py")), *sorted((rooms / "data").glob("*.py"))]
    return content_id([file_sha256(file) for file in files])


def _built(store: Store, place: Path) -> PairSet | None:
    """Return the set that an earlier build of the same name made, if it is whole."""
    try:
        version = (place / _VERSION_FILE).read_text()
    except OSError:
        return None
    found = _whole(store, version)
    if found:
        store.artifacts.renew("pair_set", version)
    return found


def _whole(store: Store, version: str) -> PairSet | None:
    """Return a stored set if it is there and as it was written."""
    try:
        pair_set = load_pairs(store, version)
        pair_set.verify()
    except DataError:
        return None
    return pair_set


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the disk knows no second names."""
    with clear_disk_errors(target):
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)


def _check_use(sources: Sequence[Source], *, compared: Sequence[Source]) -> None:
    """Refuse to train on what is a benchmark, and to compare with what has no end."""
    if spoilt := [source.name for source in sources if source.is_evaluated_only]:
        raise ConfigError(
            f"sources: {spoilt[0]!r} is a benchmark; name it under evaluation or decontaminate"
        )
    for source in compared:
        if source.is_trained_only:
            raise ConfigError(f"evaluation: source {source.name!r} may only be trained on")
        if any(stem.size is None for stem in source.stems):
            raise ConfigError(f"evaluation: source {source.name!r} has no end; give one of files")


def _check_names(sources: Sequence[Source]) -> None:
    names = Counter(source.name for source in sources)
    if twice := [name for name, times in names.items() if times > 1]:
        raise ConfigError(f"two sources are called {twice[0]!r}; give one another name")


def _source_row(source: Source, *, pairs: int) -> dict[str, Any]:
    named = {"name": source.name, "revision": source.revision, "license": source.license}
    return {**named, "pairs": pairs, "error": ""}


def _cleaned(sources: Iterable[Source], *, seed: int) -> tuple[list[Pair], Counter[str]]:
    """Return the distinct good pairs of finite sources, and why others are dropped."""
    good: dict[str, Pair] = {}
    dropped: Counter[str] = Counter()
    stems = (stem for source in sources for stem in source.stems)
    for pair in (pair for stem in stems for pair in stem.grow(seed=seed)):
        cleaned, reason = clean_pair(pair)
        if pair.generator == SCRUBBED:
            reason = QUARANTINED
        reason = reason or ("exact duplicate" if cleaned.id in good else "")
        if reason:
            dropped[reason] += 1
        else:
            good[cleaned.id] = cleaned
    return list(good.values()), dropped


def _texts_of(source: Source, *, seed: int) -> set[str]:
    """Return every text of a set that others shall not resemble: its sides and its prompts."""
    prompts = (pair.adversarial for stem in source.stems for pair in stem.grow(seed=seed))
    return {*prompts, *(text for stem in source.stems for text in stem.texts)} - {""}


def _hold_out(pairs: Sequence[Pair]) -> list[Pair]:
    groups = group_requests([pair.core for pair in pairs], [pair.parent_id for pair in pairs])
    held = [
        replace(pair, group=group, split="test_both")
        for pair, group in zip(pairs, groups, strict=True)
    ]
    return sorted(held, key=lambda pair: pair.id)


def _manifest(
    config: BuildConfig,
    opened: _Opened,
    shards: Sequence[dict[str, Any]],
    *,
    dropped: Counter[str],
) -> dict[str, Any]:
    by: dict[str, dict[str, int]] = {
        name: dict(_sum(shard["by"][name] for shard in shards).most_common())
        for name in shards[0]["by"]
    }
    total = sum(shard["rows"] for shard in shards)
    grown = sum(shard["rows"] for shard in shards if _EVALUATION_SHARD not in shard["file"])
    missing = config.target_pairs - grown
    shortfall = f"{missing} pairs fewer than asked for: the sources have no more distinct ones"
    drawn_from = (*opened.sources, *opened.held_out)
    dropped = dropped + _sum(source.left_out for source in drawn_from)
    dropped += _sum(shard["dropped"] for shard in shards)
    sums = {
        name: sum(shard[name] for shard in shards)
        for name in ("requests", "groups", "near_duplicates", "quarantined")
    }
    repeats = sum(count for reason, count in dropped.items() if reason.startswith("near-dup"))
    sums["near_duplicates"] += repeats
    kept = ("file", "rows", "sha256", "rows_sha256", "quarantine", "quarantined")
    return {
        "config": config.to_json(),
        "pairs": total,
        "shortfall": shortfall if missing > 0 else "",
        **sums,
        "dropped": dict(sorted(dropped.items())),
        "by": by,
        "sources": [_source_row(one, pairs=by["source"].get(one.name, 0)) for one in drawn_from]
        + opened.failed,
        "decontaminated": [_source_row(one, pairs=0) for one in opened.others] + opened.absent,
        "compared": [one.content for one in opened.others],
        "shards": [{name: shard[name] for name in kept} for shard in shards],
    }


def _sum(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for some in counts:
        total.update(some)
    return total
