"""Sources of pairs behind one face: open it, then let as many pairs grow from its stems as wanted.

A source is named in an experiment either by its adapter (``seeds``, ``advbench``) or by a mapping
with ``adapter`` and that adapter's options; ``pairs`` among them is how many to draw.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from workbench.core.errors import ConfigError, DataError
from workbench.core.fields import refuse_unknown
from workbench.core.identity import content_id, file_sha256
from workbench.core.registry import Registry
from workbench.core.settings import seeds_folder
from workbench.data.expansions import read_expansion
from workbench.data.grammar import GENERATOR, Ways, stems_of
from workbench.data.inbox import read_inbox
from workbench.data.local import read_local
from workbench.data.pairs import Source
from workbench.data.public import PUBLIC, open_requests, read_public
from workbench.data.requests import LANGUAGES
from workbench.data.wrappers import load_dialogues, load_encodings, load_wrappers
from workbench.store.records import Pair

__all__ = [
    "SOURCES",
    "OpenSource",
    "SourceSpec",
    "check_license",
    "open_source",
    "open_sources",
    "refuse_benchmarks",
    "source_name",
]

SourceSpec: TypeAlias = str | Mapping[str, Any]
OpenSource: TypeAlias = Callable[..., Source]
"""``(options, *, folder)`` → the source; raises as :func:`open_source`."""

_logger = logging.getLogger(__name__)

SOURCES: Registry[OpenSource] = Registry("source")


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
    limit = options.pop("pairs", None)
    if limit is not None and (type(limit) is not int or limit < 1):
        raise ConfigError(f"source {source_name(spec)}: pairs is {limit!r}; give at least 1")
    adapter = options.pop("adapter", "local")
    source = SOURCES.get(str(adapter))(options, folder=folder)
    return replace(source, limit=limit)


def refuse_benchmarks(specs: Sequence[SourceSpec]) -> None:
    """Refuse to train on a public set that is for evaluation, whether it is here or not.

    Raises:
        ConfigError: If one is.
    """
    for spec in specs:
        name = str(spec.get("adapter")) if isinstance(spec, Mapping) else spec
        if name in PUBLIC and PUBLIC[name].get("use") == "evaluation":
            raise ConfigError(
                f"sources: {name!r} is a benchmark; name it under evaluation or decontaminate"
            )


def source_name(spec: SourceSpec) -> str:
    """Return what to call a source that may not even open."""
    if isinstance(spec, str):
        return spec
    path = str(spec.get("path") or "")
    return str(spec.get("name") or Path(path).name or spec.get("adapter"))


def open_sources(
    specs: Sequence[SourceSpec],
    *,
    folder: Path,
    licenses: Sequence[str] = (),
    to_compare: bool = False,
) -> tuple[list[Source], list[dict[str, Any]]]:
    """Return the sources that can be opened, and a row of the manifest for each other one.

    Args:
        specs: As experiments name them.
        folder: Where relative paths start.
        licenses: Licenses to allow; empty: all.
        to_compare: Whether only the texts are wanted, so that requests without a clean side do.

    Raises:
        ConfigError: As :func:`open_source`; what is written wrongly is not left out in silence.
    """
    sources, failed = [], []
    for spec in specs:
        try:
            source = (_open_texts if to_compare else open_source)(spec, folder=folder)
            check_license(source, licenses)
        except DataError as error:
            name = source_name(spec)
            reason = _without_folders(str(error), spec, folder).removeprefix(f"source {name}: ")
            _logger.error("source %s is left out: %s", name, reason)  # noqa: TRY400 - one clear line
            row = {"name": name, "revision": "", "license": "", "pairs": 0, "error": reason}
            failed.append(row)
        else:
            sources.append(source)
    return sources, failed


def _without_folders(text: str, spec: SourceSpec, folder: Path) -> str:
    """Return an error that a report may quote: where files lie is nobody's business."""
    path = folder / str(spec.get("path", "")) if isinstance(spec, Mapping) else folder
    return text.replace(str(path), path.name).replace(f"{folder}/", "")


def _open_texts(spec: SourceSpec, *, folder: Path) -> Source:
    options = dict(spec) if isinstance(spec, Mapping) else {"adapter": spec}
    name = options.pop("adapter", "local")
    if name not in PUBLIC:
        return open_source(spec, folder=folder)
    if "wraps" in PUBLIC[name]:
        raise ConfigError(f"decontaminate: {name} wraps the shipped requests, it is no test set")
    return open_requests(name, options, folder=folder)


def check_license(source: Source, allowed: Sequence[str]) -> None:
    """Refuse a source whose license is not among those allowed; none means all.

    Raises:
        DataError: If it is not.
    """
    if allowed and source.license.casefold() not in map(str.casefold, allowed):
        names = ", ".join(allowed)
        raise DataError(f"license {source.license!r} is not allowed; allowed: {names}")


@SOURCES.register("seeds")
def _open_seeds(options: Mapping[str, Any], *, folder: Path) -> Source:  # noqa: ARG001
    """Open the shipped seeds.

    ``languages`` is a list of tags, or ``all``; ``dialogues`` and ``encodings`` add those ways of
    putting a request; ``family_weights`` maps wrapper families to how often they are used.
    """
    known = ("languages", "dialogues", "encodings", "family_weights")
    refuse_unknown(options, known=known, where="source seeds")
    languages = options.get("languages", ["en"])
    languages = list(LANGUAGES) if languages == "all" else languages
    is_list = isinstance(languages, list) and bool(languages)
    if not is_list or any(one not in LANGUAGES for one in languages):
        raise ConfigError(
            f"source seeds: languages is {languages!r}; write all, or some of {list(LANGUAGES)}"
        )
    for name in ("dialogues", "encodings"):
        if not isinstance(options.get(name, False), bool):
            raise ConfigError(f"source seeds: {name} is {options[name]!r}; write true or false")
    weights = options.get("family_weights", {})
    if not isinstance(weights, Mapping) or not all(
        type(times) is int and times > 0 for times in weights.values()
    ):
        raise ConfigError("source seeds: family_weights maps families to whole numbers from 1")
    families = [one.family for one in (*load_wrappers(), *load_dialogues(), *load_encodings())]
    refuse_unknown(weights, known=families, where="source seeds: family_weights")
    files = sorted(seeds_folder().glob("*.json*")) + sorted(seeds_folder().glob("[lr]*/*.jsonl"))
    content = [file_sha256(file) for file in files]
    digest = content_id(content)
    revision = f"{GENERATOR} sha256:{digest[:12]}"
    prototype = Pair(
        adversarial="", clean="", relation="identity", source="seeds", source_rev=revision,
        license="MIT", category="benign", generator=GENERATOR,
    )  # fmt: skip
    ways = Ways(
        languages=tuple(languages),
        dialogues=options.get("dialogues", False),
        encodings=options.get("encodings", False),
        family_weights=weights,
    )
    stems = stems_of(prototype, ways)
    return Source(name="seeds", revision=revision, content=digest, license="MIT", stems=stems)


SOURCES.register("local")(read_local)
SOURCES.register("expansion")(read_expansion)
SOURCES.register("inbox")(read_inbox)
for _name in PUBLIC:
    SOURCES.register(_name)(partial(read_public, _name))
