"""A route: what it takes, what it answers and who does it. The table of them is in ``table``."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlencode

from workbench.server.problems import Refusal

if TYPE_CHECKING:
    from workbench.server.service import JobService
    from workbench.store.database import Store

__all__ = ["JSON", "Answer", "Call", "Route", "next_link", "read_cursor", "write_cursor"]

JSON = "application/json"
_MOST_CURSOR = 600


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request of one user, read and checked."""

    store: Store
    """Opened for the user who asks."""
    service: JobService
    path: str
    ids: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""
    """Idempotency key; empty where none was sent."""
    base: str = "/"
    """What every address of the server begins with."""
    whole: Store | None = None
    """The store of all users, where who asks runs the server."""

    @property
    def user(self) -> str:
        """Who asks, and whose records are meant."""
        return self.store.settings.user


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What goes back."""

    body: Any = None
    """JSON values, or bytes of another media type; None for nothing."""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Route:
    """One method of one path."""

    method: Literal["GET", "POST", "DELETE"]
    path: str
    """Below the server's base address, e.g. ``workbench/api/jobs/{job}``."""
    name: str
    """Operation id."""
    about: str
    """What it does, in a sentence."""
    run: Callable[[Call], Answer] | Callable[[Call], Awaitable[Answer]]
    """A plain function works in a thread; only one that waits is a coroutine function."""
    ids: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Schemas of the names in the path."""
    query: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    answers: Mapping[int, Mapping[str, Any] | None]
    """Status → schema of what is answered; None where there is no body."""
    refusals: Sequence[int] = ()
    """Statuses beyond those that every route has."""
    media_type: str = JSON
    is_paged: bool = False
    """Whether a ``Link`` header leads to the next page."""


def write_cursor(*place: Any) -> str:
    """Return the place behind which the next page begins, as an opaque text."""
    text = json.dumps(place, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(cursor: str, *kinds: type) -> list[Any]:
    """Return the place that a cursor says; empty for the first page.

    Args:
        cursor: As :func:`write_cursor` gave it, or empty.
        kinds: Types of its parts.

    Raises:
        Refusal: 422 if it is none.
    """
    if not cursor:
        return []
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        place = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, RecursionError, binascii.Error):
        place = None
    if (
        not isinstance(place, list)
        or [type(one) for one in place] != list(kinds)
        or len(cursor) > _MOST_CURSOR
        or any(isinstance(one, int) and not 0 <= one < 1 << 53 for one in place)
        or any(isinstance(one, str) and not one.isprintable() for one in place)
    ):
        raise Refusal(422, f"query: cursor {cursor[:40]!r} is none; take it from the Link header")
    return place


def next_link(call: Call, cursor: str) -> dict[str, str]:
    """Return the header that leads to the next page; none where there is no cursor."""
    if not cursor:
        return {}
    query = urlencode({**call.query, "cursor": cursor})
    return {"Link": f'<{call.path}?{query}>; rel="next"'}
