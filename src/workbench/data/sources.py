"""Sources of pairs behind one face: open it, then draw as many pairs as wanted.

A source is named in an experiment either by its adapter (``seeds``) or by a mapping with
``adapter`` and that adapter's options.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

from workbench.core.errors import ConfigError
from workbench.core.registry import Registry
from workbench.data.chance import seeded
from workbench.data.requests import Request, load_benign, load_requests
from workbench.data.wrappers import load_wrappers, style, wrap
from workbench.store.records import Pair

__all__ = ["SOURCES", "OpenSource", "Source", "SourceSpec", "open_source"]

SourceSpec: TypeAlias = str | Mapping[str, Any]


class Source(Protocol):
    """What every source can do."""

    @property
    def name(self) -> str:
        """Name that its pairs carry."""

    @property
    def revision(self) -> str:
        """Version of its content."""

    @property
    def license(self) -> str:
        """SPDX id, or the words of the source."""

    def grow(self, *, seed: int) -> Iterator[Pair]:
        """Yield pairs in an order that depends on the seed alone; may never end."""


OpenSource: TypeAlias = Callable[[Mapping[str, Any], Path], Source]
"""Opens a source from its options and the folder that relative paths start from.

Raises:
    ConfigError: If an option is wrong.
    DataError: If the data is.
"""

SOURCES: Registry[OpenSource] = Registry("source")

MIX: Final = {"wrapped_harmful": 10, "bare_harmful": 2, "wrapped_benign": 5, "bare_benign": 3}
"""Parts of each kind among the pairs grown from the seeds: half of the prompts are attacks, a
quarter teaches to take wrappers off, and the rest to leave plain requests alone."""

_GENERATOR = "grammar/1"


def open_source(spec: SourceSpec, *, folder: Path) -> Source:
    """Return the source that an experiment names.

    Args:
        spec: Name of an adapter, or a mapping with ``adapter`` and its options.
        folder: Folder that relative paths start from.

    Raises:
        ConfigError: If the adapter is unknown or an option wrong.
        DataError: If the data cannot be read.
    """
    if isinstance(spec, str):
        return SOURCES.get(spec)({}, folder)
    if not isinstance(spec, Mapping):
        raise ConfigError(f"source {spec!r} is neither a name nor a mapping; write e.g. seeds")
    options = dict(spec)
    return SOURCES.get(options.pop("adapter", "local"))(options, folder)


@dataclass(frozen=True, kw_only=True)
class SeedGrammar:
    """The shipped requests × wrapper families, in any number of texts."""

    name: str = "seeds"
    revision: str = _GENERATOR
    license: str = "MIT"
    mix: Mapping[str, int] = field(default_factory=lambda: dict(MIX))

    def grow(self, *, seed: int) -> Iterator[Pair]:
        """Yield pairs without end; each cycle of the mix holds its kinds in a new order."""
        harmful, benign = load_requests(), load_benign()
        families = [wrapper.family for wrapper in load_wrappers()]
        streams = {
            "wrapped_harmful": _wrapped(harmful, families, seed=seed, pair=self._redirected),
            "bare_harmful": _bare(harmful, seed=seed, pair=self._redirected),
            "wrapped_benign": _wrapped(benign, families, seed=seed, pair=self._unwrapped),
            "bare_benign": _bare(benign, seed=seed, pair=self._kept),
        }
        kinds = [kind for kind, parts in self.mix.items() for _ in range(parts)]
        for cycle in count():
            seeded("mix", seed, cycle).shuffle(kinds)
            for kind in kinds:
                yield next(streams[kind])

    def _redirected(self, request: Request, text: str, family: str, turn: int) -> Pair:
        clean = request.redirects[turn % len(request.redirects)]
        return self._pair(request, text, clean, relation="safe_rewrite", family=family)

    def _unwrapped(self, request: Request, text: str, family: str, _: int) -> Pair:
        return self._pair(request, text, request.request, relation="dewrap", family=family)

    def _kept(self, request: Request, text: str, family: str, _: int) -> Pair:
        return self._pair(request, text, text, relation="identity", family=family)

    def _pair(
        self, request: Request, adversarial: str, clean: str, *, relation: Any, family: str
    ) -> Pair:
        return Pair(
            adversarial=adversarial,
            clean=clean,
            relation=relation,
            source=self.name,
            source_rev=self.revision,
            license=self.license,
            domain=request.domain,
            category=request.category,
            context=request.context,
            core=request.request,
            wrapper_family=family,
            generator=_GENERATOR,
            parent_id=request.id,
        )


PairMaker: TypeAlias = Callable[[Request, str, str, int], Pair]


def _wrapped(
    requests: Sequence[Request], families: Sequence[str], *, seed: int, pair: PairMaker
) -> Iterator[Pair]:
    """Yield every request in every family, then all again in other words."""
    for turn, row, column in grid(len(requests), len(families), seed=seed):
        request, family = requests[row], families[column]
        text = wrap(request.request, family=family, seed=seed * 1_000_003 + turn)
        yield pair(request, text, family, turn + column)


def _bare(requests: Sequence[Request], *, seed: int, pair: PairMaker) -> Iterator[Pair]:
    """Yield every request as it is, then all again in other styles."""
    for turn, row, _ in grid(len(requests), 1, seed=seed):
        # The first turn is style 0, the plain text, whatever the seed.
        dress = seed * 1_000_003 + turn if turn else 0
        yield pair(requests[row], style(requests[row].request, seed=dress), "", turn)


def grid(rows: int, columns: int, *, seed: int) -> Iterator[tuple[int, int, int]]:
    """Yield (turn, row, column) for ever: each cell once a turn, rows and columns evenly mixed."""
    row_order, column_order = list(range(rows)), list(range(columns))
    for turn in count():
        seeded("rows", seed, turn).shuffle(row_order)
        seeded("columns", seed, turn).shuffle(column_order)
        for shift in range(columns):
            for position, row in enumerate(row_order):
                yield turn, row, column_order[(position + shift) % columns]


@SOURCES.register("seeds")
def open_seeds(options: Mapping[str, Any], _folder: Path) -> Source:
    """Open the shipped seeds; option ``mix`` changes how many parts of each kind are grown.

    Raises:
        ConfigError: If an option is unknown or the mix makes no sense.
        DataError: If the seeds are damaged.
    """
    if unknown := sorted(set(options) - {"name", "mix"}):
        raise ConfigError(f"source seeds: unknown option {unknown[0]!r}; known: name, mix")
    mix = options.get("mix", MIX)
    is_mix = isinstance(mix, Mapping) and set(mix) <= set(MIX)
    if (
        not is_mix
        or any(type(parts) is not int or parts < 0 for parts in mix.values())
        or not any(mix.values())
    ):
        raise ConfigError(f"source seeds: mix is {mix!r}; give whole parts of {', '.join(MIX)}")
    load_requests(), load_benign(), load_wrappers()
    return SeedGrammar(name=options.get("name", "seeds"), mix=mix)


@SOURCES.register("local")
def open_local(options: Mapping[str, Any], folder: Path) -> Source:
    """Open files on this machine, see :mod:`workbench.data.local`."""
    from workbench.data.local import read_local

    return read_local(options, folder=folder)
