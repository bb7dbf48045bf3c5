"""The requests that the product ships: harmful ones with safe redirects, and benign ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from workbench.core.errors import DataError
from workbench.core.files import read_table, text_in, texts_in
from workbench.core.settings import seeds_folder

__all__ = ["HARM_CATEGORIES", "Request", "load_benign", "load_requests"]

HARM_CATEGORIES: Final = (
    "violence", "illegal_activities", "manipulation", "self_harm", "terrorism", "hate_speech",
)  # fmt: skip
_CONTEXTS = ("educational", "research", "general")


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


def load_requests(path: Path | None = None) -> list[Request]:
    """Return the harmful requests shipped, or those of a JSON Lines file, with their redirects.

    Raises:
        DataError: If a line is broken; the message names the line, the field and the fix.
    """
    return list(_load(path or seeds_folder() / "requests.jsonl", categories=HARM_CATEGORIES))


def load_benign() -> list[Request]:
    """Return the benign requests, look-alikes included; raises as :func:`load_requests`."""
    return list(_load(seeds_folder() / "benign.jsonl", categories=("benign",)))


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
