"""What models wrote for the data: an artifact under the name of its content, and a source of pairs.

::

    adapter: expansion
    id: 3f9a0c2b        # beginning of the expansion's id
    wrappers: false     # its requests as they are; by default the grammar also wraps them

``data.synthesize`` writes expansions. This module never calls a model, so whoever builds pairs does
not either.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from workbench.core.errors import ConfigError, DataError
from workbench.core.fields import refuse_unknown
from workbench.core.identity import canonical_json, content_id, text_id
from workbench.core.settings import read_settings
from workbench.data.grammar import GENERATOR, Ways, stems_of
from workbench.data.pairs import Source, Stem
from workbench.data.requests import Request
from workbench.store.artifacts import write_atomic, write_json_atomic
from workbench.store.database import Store, open_store
from workbench.store.records import Pair

__all__ = [
    "FEEDBACK", "Expansion", "Row", "load_expansion", "read_expansion", "read_expansion_here",
    "write_expansion",
]  # fmt: skip

FEEDBACK: Final = "inbox:"
"""Begins the parent of what was written for feedback, which only the source ``inbox`` may use."""

_ROWS_FILE = "rows.jsonl"
_MANIFEST_FILE = "manifest.json"
_NAMED = ("is_rehearsal", "recipe", "source", "license", "requests_sha256", "judge", "encoder")
"""Of the manifest, what the id depends on besides the rows; never what it happened to cost."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One request as a model wrote it, or the safe requests that it wrote for one."""

    task: str
    target: str
    """Language or domain; empty where the task has none."""
    variant: int
    """Which of several answers to the same question."""
    parent_id: str
    """The request that it comes from: whatever shares it shares the leak group."""
    category: str
    domain: str
    context: str
    language: str
    request: str
    redirects: tuple[str, ...]
    """Safe requests to put in its place; none where the request is benign."""
    model: str
    prompt_sha256: str
    """Of the instruction."""
    usd: str
    """Its share of what the answers were billed when they were bought, exact dollars."""

    @property
    def generator(self) -> str:
        """What pairs say of who made them."""
        return f"model/{self.model} prompt:{self.prompt_sha256[:8]}"


@dataclass(frozen=True, kw_only=True)
class Expansion:
    """A stored expansion."""

    id: str
    manifest: dict[str, Any]
    rows: tuple[Row, ...]


def write_expansion(store: Store, rows: Sequence[Row], manifest: Mapping[str, Any]) -> Expansion:
    """Write an expansion to the store, unless one of the same content is there; return it.

    Raises:
        StoreError: If the disk is full or read-only.
    """
    expansion = _id_of(rows, manifest)
    metadata = {name: manifest[name] for name in ("source", "license", "rows", "usd")}
    lines = "".join(canonical_json(asdict(row)) + "\n" for row in rows)
    with store.artifacts.create("expansion", expansion, metadata) as folder:
        write_atomic(folder / _ROWS_FILE, lines.encode())
        write_json_atomic(folder / _MANIFEST_FILE, dict(manifest))
    return load_expansion(store, expansion)


def load_expansion(store: Store, beginning: str = "") -> Expansion:
    """Return the expansion whose id begins so; an empty beginning means the newest.

    Raises:
        DataError: If there is none, several begin so, or its files were altered.
    """
    beginning = beginning or store.artifacts.newest("expansion")
    if not beginning:
        raise DataError("no expansion yet; run workbench data synthesize first")
    expansion = store.artifacts.resolve("expansion", beginning)
    folder = store.artifacts.path("expansion", expansion)
    try:
        manifest = json.loads((folder / _MANIFEST_FILE).read_bytes())
        lines = (folder / _ROWS_FILE).read_text(encoding="utf-8").split("\n")
        told = [json.loads(line) for line in lines if line]
        rows = [Row(**{**row, "redirects": tuple(row["redirects"])}) for row in told]
        is_whole = _id_of(rows, manifest) == expansion
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder}: damaged ({error!r}); remove it and synthesize again") from error
    if not is_whole:
        raise DataError(f"{folder}: altered after it was written; remove it and synthesize again")
    return Expansion(id=expansion, manifest=manifest, rows=tuple(rows))


def read_expansion_here(beginning: Any, *, where: str) -> Expansion:
    """Return an expansion of the store that the settings name, by the beginning of its id.

    A build has to say which one: the newest is another one tomorrow.

    Raises:
        ConfigError: If no id is given.
        DataError: As :func:`load_expansion`.
    """
    store = open_store(read_settings())
    try:
        if not isinstance(beginning, str) or not beginning:
            newest = store.artifacts.newest("expansion") or "none"
            raise ConfigError(f"{where}: {beginning!r} is no id; write it, the newest is {newest}")
        found = load_expansion(store, beginning)
    finally:
        store.engine.dispose()
    if found.manifest["is_rehearsal"]:
        raise ConfigError(f"{where}: {beginning!r} was rehearsed, its texts are the server's play")
    return found


def read_expansion(options: Mapping[str, Any], *, folder: Path) -> Source:  # noqa: ARG001
    """Return the source of an expansion's pairs.

    Raises:
        ConfigError: If an option is wrong.
        DataError: As :func:`load_expansion`.
    """
    refuse_unknown(options, known=("id", "wrappers"), where="source expansion")
    wrappers = options.get("wrappers", True)
    if not isinstance(wrappers, bool):
        raise ConfigError(f"source expansion: wrappers is {wrappers!r}; write true or false")
    found = read_expansion_here(options.get("id"), where="source expansion: id")
    own = [row for row in found.rows if not row.parent_id.startswith(FEEDBACK)]
    name, license_ = f"expansion-{found.id[:8]}", str(found.manifest["license"])
    prototype = Pair(
        adversarial="", clean="", relation="identity", source=name, source_rev=found.id[:12],
        license=license_, category="benign",
    )  # fmt: skip
    ordered = sorted(own, key=_request_key)
    stems = [
        _stem(prototype, list(rows), wrappers=wrappers)
        for _, rows in groupby(ordered, key=_request_key)
    ]
    left_out = Counter({"written for feedback": len(found.rows) - len(own)})
    return Source(
        name=name, revision=found.id[:12], content=found.id, license=license_, stems=stems,
        left_out=+left_out,
    )  # fmt: skip


def _request_key(row: Row) -> tuple[str, str, str]:
    return row.parent_id, row.language, row.request


def _stem(prototype: Pair, rows: Sequence[Row], *, wrappers: bool) -> Stem:
    """Return the stem of one request, with all safe requests written for it."""
    row = rows[0]
    request = Request(
        id=row.parent_id, category=row.category, request=row.request, domain=row.domain,
        redirects=tuple(dict.fromkeys(text for one in rows for text in one.redirects)),
        context=row.context, lookalike=False, language=row.language,
    )  # fmt: skip
    made = row.generator if not wrappers else f"{row.generator} {GENERATOR}"
    (stem,) = stems_of(replace(prototype, generator=made), Ways(), requests=[request])
    if wrappers:
        # Other draws than its parent's: they would wear the same wrappers in the same order.
        return replace(stem, grow=partial(_redrawn, stem.grow, text_id(*_request_key(row))))
    plain = replace(
        prototype, generator=made, language=row.language, domain=row.domain, category=row.category,
        context=row.context, core=row.request, parent_id=row.parent_id, adversarial=row.request,
    )  # fmt: skip
    return replace(stem, grow=partial(_plainly, plain, request), size=len(request.redirects) or 1)


def _redrawn(grow: Callable[..., Iterator[Pair]], key: str, *, seed: int) -> Iterator[Pair]:
    return grow(seed=int(text_id(key, str(seed))[:12], 16))


def _plainly(plain: Pair, request: Request, *, seed: int) -> Iterator[Pair]:  # noqa: ARG001
    """Yield the request itself with each of its safe ones, or alone where it is benign."""
    for clean in request.redirects:
        yield replace(plain, clean=clean, relation="safe_rewrite")
    if not request.redirects:
        yield replace(plain, clean=request.request)


def _id_of(rows: Sequence[Row], manifest: Mapping[str, Any]) -> str:
    told = [{**asdict(row), "usd": ""} for row in rows]
    return content_id([{name: manifest[name] for name in _NAMED}, told])
