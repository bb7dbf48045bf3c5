"""OSV: which advisories concern a package, and in which versions.

Packages are asked about without their version: the snapshot then answers for every version, and
nobody learns which ones are in use.

Source:
    google.github.io/osv.dev/api, OSV schema 1.7.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final

import pyarrow as pa

from workbench.core.errors import DataError, WorkbenchError
from workbench.risk.sources.base import (
    DAY_S,
    SOURCES,
    Asks,
    Fetched,
    Item,
    Service,
    WebSource,
    batches,
    json_of,
    table_of,
)
from workbench.risk.tables import SCHEMAS

__all__ = ["Osv", "osv_page", "osv_rows", "package_of", "parse_osv"]

_SERVICE = Service(
    name="osv",
    url="https://api.osv.dev",
    ttl_s=DAY_S,
    rate=(50, 1.0),
    parallel=8,
    most_bytes=1 << 25,
)
_NAME = _SERVICE.name
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,120}", re.ASCII)
_PER_REQUEST = 1_000
_MOST_PAGES = 100
_MOST_ADVISORIES = 20_000
_MOST_ITEMS = 20_000
"""Versions or events of one package in one advisory."""
_OF_SOURCES = frozenset({"deb", "apk"})
_EVENTS = ("introduced", "fixed", "last_affected", "limit")
_SCHEMA: Final = SCHEMAS["osv"].append(pa.field("as_of", pa.string()))


@SOURCES.register(_NAME)
class Osv(WebSource):
    """1,000 packages per query, then one request per advisory."""

    service = _SERVICE
    table = "osv"
    asks: Asks = "purls"

    def requests(self, count: int) -> int:
        """Return how many requests so many packages take, at some three advisories each."""
        return -(-count // _PER_REQUEST) + 3 * count

    async def fetch(self, ids: Sequence[str] = ()) -> Fetched:
        """Return a row per advisory and package that it affects; raises as any source.

        Args:
            ids: Package URLs.
        """
        purls = list(dict.fromkeys(filter(None, map(package_of, ids))))
        found: dict[str, None] = {}
        errors: list[WorkbenchError] = []
        asked_on = ""
        for batch in batches(purls, most=_PER_REQUEST):
            try:
                names, on = await self._advisories(batch)
            except DataError as error:
                errors.append(error)
            else:
                found |= dict.fromkeys(names)
                asked_on = min(asked_on or on, on)
        if errors and not asked_on:
            raise errors[0]
        left_out = max(0, len(found) - _MOST_ADVISORIES)
        wanted = list(found)[:_MOST_ADVISORIES]

        async def ask(name: str) -> list[dict[str, Any]]:
            url = f"{self.url}/v1/vulns/{name}"
            parse = partial(osv_rows, name=name)
            got = await self.web.get(self.service, url, parse=parse)
            return [{**row, "as_of": got.on} for row in got.value]

        answers = await self.web.each(wanted, ask, service=self.service)
        errors += [one for one in answers if isinstance(one, WorkbenchError)]
        rows = [row for one in answers if isinstance(one, list) for row in one]
        notes = [f"{len(errors)} requests failed, the first: {errors[0]}"] if errors else []
        bad = [purl for purl in ids if not package_of(purl)]
        notes += [f"{len(bad)} are no package URLs, e.g. {bad[0][:60]!r}"] if bad else []
        notes += [f"{left_out:,} advisories beyond {_MOST_ADVISORIES:,} left out"] * bool(left_out)
        return self.fetched(table_of(rows, _SCHEMA), as_of=asked_on, error="; ".join(notes))

    async def _advisories(self, purls: Sequence[str]) -> tuple[list[str], str]:
        """Return the ids of all advisories for some packages, and the date of the answers."""
        waiting: list[tuple[str, str]] = [(purl, "") for purl in purls]
        found: list[str] = []
        asked_on = ""
        for _ in range(_MOST_PAGES):
            if not waiting:
                break
            queries = [
                {"package": {"purl": purl}} | ({"page_token": token} if token else {})
                for purl, token in waiting
            ]
            got = await self.web.get(
                self.service,
                f"{self.url}/v1/querybatch",
                body={"queries": queries},
                parse=partial(osv_page, count=len(queries)),
            )
            asked_on = min(asked_on or got.on, got.on)
            answers = zip(waiting, got.value, strict=True)
            waiting = []
            for (purl, _), (names, token) in answers:
                found += names
                waiting += [(purl, token)] * bool(token)
        if waiting:
            Item(None, _NAME, "next_page_token").refuse(f"leads beyond {_MOST_PAGES} pages")
        return found, asked_on


def package_of(purl: str) -> str:
    """Return a package URL without version, qualifiers and subpath; empty if it is none.

    Of a package of a distribution that of its source, which advisories are for.
    """
    from packageurl import PackageURL

    try:
        whole = PackageURL.from_string(purl)
        source = dict(whole.qualifiers).get("upstream", "") if whole.type in _OF_SOURCES else ""
        name = source.partition("@")[0] or whole.name
        parts = {"type": whole.type, "namespace": whole.namespace, "name": name}
        return str(PackageURL(**parts).to_string())
    except ValueError:
        return ""


def osv_page(data: bytes, *, count: int) -> list[tuple[list[str], str]]:
    """Return the ids and the token of the next page, for each of so many queries.

    Raises:
        DataError: If it is no answer to a batch of queries; names the field.
    """
    answer = json_of(data, source=_NAME)
    found = [
        (
            [vuln.match("id", _ID) for vuln in result.rows("vulns")],
            result.text("next_page_token", most=2_000),
        )
        for result in answer.rows("results", required=True)
    ]
    if len(found) != count:
        answer.field("results").refuse(f"has {len(found)} entries for {count} queries")
    return found


def parse_osv(data: bytes) -> pa.Table:
    """Return an advisory as a table, one row per package that it affects.

    Raises:
        DataError: If it is none; names the field.
    """
    return table_of(osv_rows(data), _SCHEMA)


def osv_rows(data: bytes, *, name: str = "") -> list[dict[str, Any]]:
    """Return the rows of an advisory, none of one withdrawn; raises as :func:`parse_osv`."""
    advisory = json_of(data, source=_NAME)
    about = {
        "id": advisory.match("id", re.compile(re.escape(name)) if name else _ID),
        "aliases": [alias for alias in advisory.texts("aliases") if _ID.fullmatch(alias)],
        "summary": advisory.line("summary") or None,
    }
    if advisory.day("withdrawn"):
        return []
    severity = _severity(advisory)
    return [
        {**about, **row, "severity": row["severity"] or severity}
        for affected in advisory.rows("affected")
        for row in _row(affected)
    ]


def _row(affected: Item) -> Iterator[dict[str, Any]]:
    package = affected.field("package")
    if package.value is None:  # commits of a repository alone
        return
    ranges = [
        {"type": one.text("type", most=20), "events": list(_events(one))}
        for one in affected.rows("ranges")
    ]
    versions = affected.texts("versions", most=200)
    if len(versions) > _MOST_ITEMS or sum(len(one["events"]) for one in ranges) > _MOST_ITEMS:
        affected.refuse(f"has more than {_MOST_ITEMS:,} versions or events")
    names = {"ecosystem": package.line("ecosystem"), "name": package.line("name")}
    for name, value in names.items():
        if not value:
            package.field(name).refuse("is missing")
    yield {
        "ecosystem": names["ecosystem"],
        "package": names["name"],
        "ranges": json.dumps(ranges, ensure_ascii=False),
        "versions": versions,
        "severity": _severity(affected),
    }


def _events(one: Item) -> Iterator[dict[str, str]]:
    for event in one.rows("events", required=True):
        said = {name: event.text(name, most=200) for name in _EVENTS}
        yield {name: value for name, value in said.items() if value}


def _severity(item: Item) -> str | None:
    """Return the CVSS vector, of version 3 before others."""
    given = item.rows("severity")
    said = [(one.text("type", most=20), one.text("score", most=400)) for one in given]
    said.sort(key=lambda pair: pair[0] != "CVSS_V3")
    return next((score for kind, score in said if kind.startswith("CVSS_")), None)
