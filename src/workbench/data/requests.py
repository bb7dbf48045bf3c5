"""The requests that the product ships: harmful ones with safe redirects, and benign ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from workbench.core.errors import DataError
from workbench.core.settings import seeds_folder
from workbench.data.files import read_jsonl

__all__ = ["HARM_CATEGORIES", "Request", "load_benign", "load_requests"]

HARM_CATEGORIES: Final = (
    "violence",
    "illegal_activities",
    "manipulation",
    "self_harm",
    "terrorism",
    "hate_speech",
)
_CONTEXTS = ("educational", "research", "general")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What somebody asks for, before anybody wraps it."""

    id: str
    category: str
    """One of :data:`HARM_CATEGORIES`, or ``benign``."""
    request: str
    redirects: tuple[str, ...] = ()
    """Safe requests to put in its place; none where the request is benign."""
    domain: str
    context: str
    """``educational | research | general``."""
    lookalike: bool = False
    """Whether a benign request sounds harmful."""


def load_requests(path: Path | None = None) -> list[Request]:
    """Return the harmful requests, each with its redirects.

    Args:
        path: JSON lines to read instead of those shipped.

    Raises:
        DataError: If a line is broken; the message names the line, the field and the fix.
    """
    return list(_load(path or seeds_folder() / "requests.jsonl", harmful=True))


def load_benign(path: Path | None = None) -> list[Request]:
    """Return the benign requests, look-alikes included.

    Args:
        path: JSON lines to read instead of those shipped.

    Raises:
        DataError: As :func:`load_requests`.
    """
    return list(_load(path or seeds_folder() / "benign.jsonl", harmful=False))


@cache
def _load(path: Path, *, harmful: bool) -> tuple[Request, ...]:
    requests: dict[str, Request] = {}
    for number, row in read_jsonl(path):
        request = _parse(row, place=f"{path}: line {number}", harmful=harmful)
        if request.id in requests:
            raise DataError(
                f"{path}: line {number}: id {request.id!r} occurs twice; give it another"
            )
        requests[request.id] = request
    return tuple(requests.values())


def _parse(row: dict[str, Any], *, place: str, harmful: bool) -> Request:
    for name in ("id", "category", "request", "domain", "context"):
        if not isinstance(row.get(name), str) or not row[name].strip():
            raise DataError(f"{place}: field {name!r} is {row.get(name)!r}; write a text")
    allowed = HARM_CATEGORIES if harmful else ("benign",)
    for name, choices in (("category", allowed), ("context", _CONTEXTS)):
        if row[name] not in choices:
            raise DataError(f"{place}: {name} is {row[name]!r}; write one of {', '.join(choices)}")
    redirects = row.get("redirects", [])
    if not isinstance(redirects, list) or not all(
        isinstance(one, str) and one for one in redirects
    ):
        raise DataError(f"{place}: field 'redirects' is not a list of texts; write one")
    if harmful and not redirects:
        raise DataError(f"{place}: a harmful request needs 'redirects'; write at least one")
    lookalike = row.get("lookalike", False)
    if not isinstance(lookalike, bool):
        raise DataError(f"{place}: field 'lookalike' is {lookalike!r}; write true or false")
    return Request(
        id=row["id"],
        category=row["category"],
        request=row["request"].strip(),
        redirects=tuple(redirects),
        domain=row["domain"],
        context=row["context"],
        lookalike=lookalike,
    )
