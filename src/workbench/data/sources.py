"""Sources of pairs behind one face: open it, then draw as many pairs as wanted.

A source is named in an experiment either by its adapter (``seeds``) or by a mapping with
``adapter`` and that adapter's options.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final, TypeAlias

from workbench.core.errors import ConfigError
from workbench.core.identity import content_id, file_sha256, seeded
from workbench.core.registry import Registry
from workbench.core.settings import seeds_folder
from workbench.data.local import read_local
from workbench.data.pairs import Source
from workbench.data.requests import Request, load_benign, load_requests
from workbench.data.wrappers import load_wrappers, style, wrap
from workbench.store.records import Pair, Relation

__all__ = ["SOURCES", "OpenSource", "SourceSpec", "open_source"]

SourceSpec: TypeAlias = str | Mapping[str, Any]
OpenSource: TypeAlias = Callable[..., Source]
"""``(options, *, folder)`` → the source; raises as :func:`open_source`."""

SOURCES: Registry[OpenSource] = Registry("source")

_MIX: Final = {"wrapped_harmful": 10, "bare_harmful": 2, "wrapped_benign": 5, "bare_benign": 3}
"""Parts of each kind among the pairs grown from the seeds: half of the prompts are attacks, a
quarter teaches to take wrappers off, and the rest to leave plain requests alone."""

_GENERATOR = "grammar/1"
_SEED_FILES = ("requests.jsonl", "benign.jsonl", "wrappers.jsonl", "slots.json")


def open_source(spec: SourceSpec, *, folder: Path) -> Source:
    """Return the source that an experiment names.

    Raises:
        ConfigError: If the adapter is unknown or an option wrong.
        DataError: If the data cannot be read.
    """
    if isinstance(spec, str):
        return SOURCES.get(spec)({}, folder=folder)
    if not isinstance(spec, Mapping):
        raise ConfigError(f"source {spec!r} is neither a name nor a mapping; write e.g. seeds")
    options = dict(spec)
    return SOURCES.get(options.pop("adapter", "local"))(options, folder=folder)


def _grow_seeds(prototype: Pair, *, seed: int) -> Iterator[Pair]:
    """Yield pairs without end; each cycle of the mix holds its kinds in a new order."""
    harmful, benign = load_requests(), load_benign()
    families = [wrapper.family for wrapper in load_wrappers()]
    redirected = partial(_pair, prototype, relation="safe_rewrite")
    unwrapped = partial(_pair, prototype, relation="dewrap")
    kept = partial(_pair, prototype, relation="identity")
    streams = {
        "wrapped_harmful": _wrapped(harmful, families, seed=seed, pair=redirected),
        "bare_harmful": _bare(harmful, seed=seed, pair=redirected),
        "wrapped_benign": _wrapped(benign, families, seed=seed, pair=unwrapped),
        "bare_benign": _bare(benign, seed=seed, pair=kept),
    }
    kinds = [kind for kind, parts in _MIX.items() for _ in range(parts)]
    for cycle in count():
        seeded("mix", seed, cycle).shuffle(kinds)
        for kind in kinds:
            yield next(streams[kind])


def _pair(
    prototype: Pair, request: Request, text: str, family: str, turn: int, *, relation: Relation
) -> Pair:
    if relation == "safe_rewrite":
        clean = request.redirects[turn % len(request.redirects)]
    else:
        clean = request.request if relation == "dewrap" else text
    return replace(
        prototype, adversarial=text, clean=clean, relation=relation, domain=request.domain,
        category=request.category, context=request.context, core=request.request,
        wrapper_family=family, parent_id=request.id,
    )  # fmt: skip


PairMaker: TypeAlias = Callable[[Request, str, str, int], Pair]


def _wrapped(
    requests: Sequence[Request], families: Sequence[str], *, seed: int, pair: PairMaker
) -> Iterator[Pair]:
    """Yield every request in every family, then all again in other words."""
    for turn, row, column in _grid(len(requests), len(families), seed=seed):
        request, family = requests[row], families[column]
        text = wrap(request.request, family=family, seed=seed * 1_000_003 + turn)
        yield pair(request, text, family, turn + column)


def _bare(requests: Sequence[Request], *, seed: int, pair: PairMaker) -> Iterator[Pair]:
    """Yield every request as it is, then all again in other styles."""
    for turn, row, _ in _grid(len(requests), 1, seed=seed):
        # The first turn is style 0, the plain text, whatever the seed.
        dress = seed * 1_000_003 + turn if turn else 0
        yield pair(requests[row], style(requests[row].request, seed=dress), "", turn)


def _grid(rows: int, columns: int, *, seed: int) -> Iterator[tuple[int, int, int]]:
    """Yield (turn, row, column) for ever: each cell once a turn, rows and columns evenly mixed."""
    row_order, column_order = list(range(rows)), list(range(columns))
    for turn in count():
        seeded("rows", seed, turn).shuffle(row_order)
        seeded("columns", seed, turn).shuffle(column_order)
        for shift in range(columns):
            for position, row in enumerate(row_order):
                yield turn, row, column_order[(position + shift) % columns]


@SOURCES.register("seeds")
def _open_seeds(options: Mapping[str, Any], *, folder: Path) -> Source:  # noqa: ARG001
    """Open the shipped seeds; there are no options."""
    if options:
        raise ConfigError(f"source seeds: unknown option {min(options)!r}; it takes none")
    content = [file_sha256(seeds_folder() / name) for name in _SEED_FILES]
    load_requests(), load_benign(), load_wrappers()
    revision = f"{_GENERATOR} sha256:{content_id(content)[:12]}"
    prototype = Pair(
        adversarial="", clean="", relation="identity", source="seeds", source_rev=revision,
        license="MIT", category="benign", generator=_GENERATOR,
    )  # fmt: skip
    grow = partial(_grow_seeds, prototype)
    return Source(name="seeds", revision=revision, license="MIT", grow=grow, is_endless=True)


SOURCES.register("local")(read_local)
