"""The requests that the product ships: harmful with safe redirects, benign, and translations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from workbench.core.errors import DataError
from workbench.core.files import read_table, text_in, texts_in
from workbench.core.settings import seeds_folder

__all__ = [
    "HARM_CATEGORIES", "LANGUAGES", "Request", "Retelling", "Translation", "load_benign",
    "load_requests", "load_retellings", "load_translation",
]  # fmt: skip

HARM_CATEGORIES: Final = (
    "violence", "illegal_activities", "manipulation", "self_harm", "terrorism", "hate_speech",
)  # fmt: skip
LANGUAGES: Final = ("en", "ar", "de", "es", "fr", "hi", "it", "pt", "ru", "tr", "zh")
"""BCP 47 tags of what the seeds are written in; other languages come by ``data.synthesize``."""

_CONTEXTS = ("educational", "research", "general")
_RETOLD = ("parent", "family", "text")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What somebody asks for, before anybody wraps it."""

    id: str
    category: str
    """One of :data:`HARM_CATEGORIES`, or ``benign``."""
    request: str
    redirects: tuple[str, ...]
    """Safe requests to put in its place; none where the request is benign."""
    domain: str
    context: str
    """``educational | research | general``."""
    lookalike: bool
    """Whether a benign request sounds harmful."""
    language: str = "en"


@dataclass(frozen=True, kw_only=True)
class Translation:
    """What the seeds hold in another language."""

    requests: tuple[Request, ...]
    """Each under the id of the English request that it translates."""
    templates: Mapping[str, tuple[str, ...]]
    """Wrapper family → its templates in that language."""


@dataclass(frozen=True, kw_only=True)
class Retelling:
    """A request told in other words: inside a scenario, or as a question about another time."""

    family: str
    text: str


def load_requests(path: Path | None = None) -> list[Request]:
    """Return the harmful requests shipped, or those of a JSON Lines file, with their redirects.

    Raises:
        DataError: If a line is broken; the message names the line, the field and the fix.
    """
    folder = seeds_folder() / "requests"
    paths = [path] if path else [folder / f"{category}.jsonl" for category in HARM_CATEGORIES]
    return [one for each in paths for one in _load(each, categories=HARM_CATEGORIES)]


def load_benign() -> list[Request]:
    """Return the benign requests, look-alikes included; raises as :func:`load_requests`."""
    paths = [seeds_folder() / "requests" / f"{name}.jsonl" for name in ("benign", "lookalike")]
    return [one for path in paths for one in _load(path, categories=("benign",))]


@cache
def load_retellings() -> Mapping[str, tuple[Retelling, ...]]:
    """Return the English requests told in other words, by the id of the request.

    Raises:
        DataError: If a line is broken or retells a request that is not there.
    """
    known = {one.id for one in (*load_requests(), *load_benign())}
    table = read_table(seeds_folder() / "retellings.jsonl")
    found: dict[str, list[Retelling]] = {}
    for place, row in zip(table.places, table.rows, strict=True):
        parent, family, text = (text_in(row, name, place=place) for name in _RETOLD)
        if parent not in known:
            raise DataError(f"{place}: no request has the id {parent!r}; correct it")
        found.setdefault(parent, []).append(Retelling(family=family, text=text))
    return {parent: tuple(several) for parent, several in found.items()}


@cache
def load_translation(language: str) -> Translation:
    """Return what the seeds hold in a language other than English.

    Raises:
        DataError: If a line is broken or translates a request that is not there.
    """
    english = {one.id: one for one in (*load_requests(), *load_benign())}
    table = read_table(seeds_folder() / "languages" / f"{language}.jsonl")
    requests, templates = [], {}
    for place, row in zip(table.places, table.rows, strict=True):
        if "family" in row:
            templates[text_in(row, "family", place=place)] = texts_in(row, "templates", place=place)
            continue
        parent = english.get(text_in(row, "parent", place=place))
        if parent is None:
            raise DataError(f"{place}: no request has the id {row['parent']!r}; correct it")
        text = text_in(row, "request", place=place)
        redirects = texts_in(row, "redirects", place=place) if parent.redirects else ()
        requests.append(replace(parent, request=text, redirects=redirects, language=language))
    return Translation(requests=tuple(requests), templates=templates)


@cache
def _load(path: Path, *, categories: tuple[str, ...]) -> tuple[Request, ...]:
    table = read_table(path)
    requests: dict[str, Request] = {}
    for place, row in zip(table.places, table.rows, strict=True):
        request = _parse(row, place=place, categories=categories)
        if request.id in requests:
            raise DataError(f"{place}: id {request.id!r} occurs twice; give it another")
        requests[request.id] = request
    return tuple(requests.values())


def _parse(row: Mapping[str, Any], *, place: str, categories: tuple[str, ...]) -> Request:
    fields = {
        name: text_in(row, name, place=place)
        for name in ("id", "category", "request", "domain", "context")
    }
    for name, choices in (("category", categories), ("context", _CONTEXTS)):
        if fields[name] not in choices:
            known = ", ".join(choices)
            raise DataError(f"{place}: {name} is {fields[name]!r}; write one of {known}")
    lookalike = row.get("lookalike", False)
    if not isinstance(lookalike, bool):
        raise DataError(f"{place}: field 'lookalike' is {lookalike!r}; write true or false")
    is_harmful = fields["category"] != "benign"
    redirects = texts_in(row, "redirects", place=place) if is_harmful else ()
    return Request(**fields, redirects=redirects, lookalike=lookalike)
