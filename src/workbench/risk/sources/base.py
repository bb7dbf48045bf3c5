"""What every source of evidence has in common, and how its answers are read without trust."""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol, TypeAlias

import pyarrow as pa

from workbench.core.errors import DataError
from workbench.core.plain import one_line, storable
from workbench.core.registry import Registry

if TYPE_CHECKING:
    from workbench.risk.sources.web import Web

__all__ = [
    "CVE_ID", "DAY_S", "SOURCES", "Asks", "Fetched", "Item", "OpenSource", "Service", "Source",
    "WebSource", "batches", "json_of", "table_of", "unpacked",
]  # fmt: skip

DAY_S = 86_400.0
CVE_ID = re.compile(r"CVE-\d{4}-\d{4,19}", re.ASCII)
_DATE = re.compile(r"(\d{4}-\d{2}-\d{2})([T ][\d:.,Z+-]{0,32})?", re.ASCII)
_SHOWN = 60

Asks = Literal["cves", "purls", "all"]
"""What a source is asked about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What a source gave for one table of a snapshot."""

    source: str
    url: str
    """Where it was asked, without query."""
    as_of: str
    """ISO date of what the source said; empty where it said nothing."""
    table: pa.Table | None
    """None: it gave nothing; what was known before stays."""
    error: str = ""
    """Why there is no table, or what is missing in it; one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Where a source is asked, how often it may be, and how much may come back."""

    name: str
    url: str
    """Base address; empty where everybody has their own."""
    ttl_s: float
    """How long an answer is good for, in seconds."""
    rate: tuple[int, float] = (10, 1.0)
    """Requests in any period of so many seconds, per key."""
    rate_without_key: tuple[int, float] | None = None
    parallel: int = 8
    """Requests in flight."""
    key_variable: str = ""
    """Environment variable of its keys, several with a comma between them."""
    key_header: str = ""
    key_prefix: str = ""
    needs_key: bool = False
    most_bytes: int = 1 << 23
    """Of one answer, unpacked."""
    media: tuple[str, ...] = ("application/json",)
    """Content types that an answer may have."""


class Source(Protocol):
    """Something that knows a kind of evidence."""

    @property
    def service(self) -> Service:
        """Where and how often it is asked."""

    @property
    def table(self) -> str:
        """Name of the table of a snapshot that it fills."""

    @property
    def asks(self) -> Asks:
        """What :meth:`fetch` takes."""

    @property
    def name(self) -> str:
        """Its name in the registry."""

    @property
    def ttl_s(self) -> float:
        """How long an answer is good for, in seconds."""

    @property
    def url(self) -> str:
        """Base address that is asked."""

    def requests(self, count: int) -> int:
        """Return how many requests so many ids take at most."""

    async def fetch(self, ids: Sequence[str] = ()) -> Fetched:
        """Return what it knows of some ids; of everything where it keeps a catalog.

        Raises:
            ConfigError: If it may not be asked, or something it needs is not set.
            DataError: If it gave no usable answer.
        """


OpenSource: TypeAlias = Callable[..., Source]
"""``(web, *, base_url="")`` → the source."""
SOURCES: Registry[OpenSource] = Registry("risk_source")


class WebSource:
    """A source behind HTTP; subclasses say which and how its answers are read.

    Args:
        web: The one client.
        base_url: Another address of the service, e.g. a mirror; empty for its own.
    """

    service: Service
    table: str
    asks: Asks = "all"

    def __init__(self, web: Web, *, base_url: str = "") -> None:
        self.web = web
        self.url = (base_url or self.service.url).rstrip("/")

    @property
    def name(self) -> str:
        """Its name in the registry."""
        return self.service.name

    @property
    def ttl_s(self) -> float:
        """How long an answer is good for, in seconds."""
        return self.service.ttl_s

    def requests(self, count: int) -> int:
        """Return how many requests so many ids take at most; one for a catalog."""
        return count if self.asks != "all" else 1

    def fetched(self, table: pa.Table | None, *, as_of: str, error: str = "") -> Fetched:
        """Return a result of this source."""
        return Fetched(source=self.name, url=self.url, as_of=as_of, table=table, error=error)


@dataclass(frozen=True, slots=True)
class Item:
    """A value of an answer with its place, so that whatever is wrong with it can be named."""

    value: Any
    source: str
    path: str = ""

    def refuse(self, what: str) -> NoReturn:
        """Raise the :class:`DataError` of this place."""
        raise DataError(
            f"source {self.source}: {self.path or 'the answer'} {what}; if this lasts, its format"
            " changed: upgrade prompt-safety-workbench, the last snapshot stays usable"
        )

    def field(self, name: str) -> Item:
        """Return a field of an object, of value None where it is absent."""
        if not isinstance(self.value, Mapping):
            self.refuse(f"is {_kind(self.value)}, not an object")
        return Item(self.value.get(name), self.source, f"{self.path}.{name}".lstrip("."))

    def rows(self, name: str, *, required: bool = False) -> Iterator[Item]:
        """Yield the items of a list; nothing where it is absent and not required."""
        found = self.field(name)
        if found.value is None and not required:
            return
        if not isinstance(found.value, list):
            found.refuse(f"is {_kind(found.value)}, not a list")
        for index, value in enumerate(found.value):
            yield Item(value, self.source, f"{found.path}[{index}]")

    def text(self, name: str, *, most: int = 4_000) -> str:
        """Return a text, cut to so many characters; empty where it is absent."""
        found = self.field(name)
        if found.value is None:
            return ""
        if not isinstance(found.value, str):
            found.refuse(f"is {_kind(found.value)}, not a text")
        return storable(found.value[:most])

    def line(self, name: str, *, most: int = 300) -> str:
        """Return a text as one line, cut; empty where it is absent."""
        return one_line(self.text(name, most=most))

    def texts(self, name: str, *, most: int = 300) -> list[str]:
        """Return a list of texts; empty where it is absent."""
        found = []
        for item in self.rows(name):
            if not isinstance(item.value, str):
                item.refuse(f"is {_kind(item.value)}, not a text")
            found.append(storable(item.value[:most]))
        return found

    def match(self, name: str, pattern: re.Pattern[str]) -> str:
        """Return a required text that is of one form, e.g. an id."""
        found = self.field(name)
        if not isinstance(found.value, str) or not pattern.fullmatch(found.value):
            found.refuse(f"is {_shown(found.value)}, not of the form {pattern.pattern}")
        return found.value

    def day(self, name: str) -> str:
        """Return the date of an ISO date or time, ``YYYY-MM-DD``; empty where it is absent."""
        text = self.text(name, most=50)
        if not text:
            return ""
        found = _DATE.fullmatch(text)
        try:
            return date.fromisoformat(found[1] if found else "").isoformat()
        except ValueError:
            self.field(name).refuse(f"is {_shown(text)}, not an ISO date")

    def count(self, name: str) -> int:
        """Return a required whole number, >= 0."""
        found = self.field(name)
        if type(found.value) is not int or not 0 <= found.value <= 1 << 31:
            found.refuse(f"is {_shown(found.value)}, not a count")
        return found.value

    def fraction(self, name: str) -> float:
        """Return a required number in [0, 1], which may be written as a text."""
        found = self.field(name)
        number = math.nan
        if isinstance(found.value, str | int | float) and len(str(found.value)) <= _SHOWN:
            try:
                number = float(found.value)
            except ValueError:
                number = math.nan
        if not 0 <= number <= 1:
            found.refuse(f"is {_shown(found.value)}, not a number from 0 to 1")
        return number


def json_of(data: bytes, *, source: str) -> Item:
    """Return the JSON of an answer.

    Raises:
        DataError: If it is none.
    """
    try:
        return Item(json.loads(data, parse_constant=_refuse_constant), source)
    except (ValueError, RecursionError) as error:
        what = one_line(str(error))[:100] if isinstance(error, ValueError) else "nested too deep"
        Item(None, source).refuse(f"of {len(data):,} bytes is not JSON ({what})")


def table_of(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Return rows as a table."""
    return pa.Table.from_pylist([dict(row) for row in rows], schema=schema)


def unpacked(data: bytes, *, source: str, most_bytes: int) -> bytes:
    """Return the content of gzip data, or the data where it is not packed.

    Raises:
        DataError: If it is damaged, or unpacks to more.
    """
    if not data.startswith(b"\x1f\x8b"):
        return data
    unpacker = zlib.decompressobj(wbits=31)
    try:
        plain = unpacker.decompress(data, most_bytes + 1)
    except zlib.error:
        Item(None, source).refuse("is damaged gzip")
    if len(plain) > most_bytes:
        Item(None, source).refuse(f"unpacks to more than {most_bytes:,} bytes")
    if not unpacker.eof:
        Item(None, source).refuse("is cut gzip")
    return plain


def batches(items: Sequence[str], *, most: int, most_chars: int = 1 << 31) -> list[list[str]]:
    """Return items in lists of at most so many, and so many characters with commas between."""
    found: list[list[str]] = []
    chars = 0
    for item in items:
        if not found or len(found[-1]) >= most or chars + len(item) + 1 > most_chars:
            found.append([])
            chars = 0
        found[-1].append(item)
        chars += len(item) + 1
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _kind(value: Any) -> str:
    return "missing" if value is None else type(value).__name__


def _shown(value: Any) -> str:
    return repr(one_line(value[:_SHOWN])) if isinstance(value, str) else _kind(value)
