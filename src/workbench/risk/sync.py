"""Sync: ask the publishers, and freeze what they say in a new snapshot."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module
from typing import NamedTuple

import pyarrow as pa

from workbench.core.errors import ConfigError, DataError, WorkbenchError
from workbench.core.fields import refuse_unknown
from workbench.core.plain import one_line
from workbench.risk.intake.purls import bases
from workbench.risk.sources.base import CVE_ID, SOURCES, Asks, Fetched, OpenSource, Source
from workbench.risk.sources.cve_rows import CveSource, Row, cve_table, is_complete, merge
from workbench.risk.sources.web import Progress, Web, keys_of
from workbench.risk.tables import SCHEMAS
from workbench.store.database import Store

__all__ = ["DEFAULT_SOURCES", "PlanRow", "fetch_all", "plan", "sync"]

DEFAULT_SOURCES = ("cve_records", "nvd", "kev", "epss", "osv", "attack")
"""Asked where nobody says otherwise; ``servicenow`` needs an instance and a token."""

_SECONDS_PER_REQUEST = 0.5
_SHIPPED = (
    "cve_records", "nvd", "kev", "epss", "osv", "attack", "atlas", "owasp_llm", "servicenow",
)  # fmt: skip


class PlanRow(NamedTuple):
    """What asking a source takes."""

    source: str
    requests: int
    """At most; NVD is only asked about what the CVE records leave open."""
    minutes: float
    """At most, by its limits and at half a second per request."""
    note: str
    """What would make it faster, or why it cannot be asked."""


async def sync(
    store: Store,
    *,
    sources: Sequence[str] = (),
    cves: Sequence[str] = (),
    purls: Sequence[str] = (),
    base_urls: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> str:
    """Return the id of a new snapshot of what the sources say now; opens connections.

    A source that fails is missing in it, with its error; what was known before stays.

    Args:
        store: The open store.
        sources: Names of those to ask; empty: :data:`DEFAULT_SOURCES`.
        cves: CVE ids to ask about. Advisories that OSV finds for packages add theirs.
        purls: Package URLs to ask about.
        base_urls: Source → another address, e.g. a mirror.
        progress: Called as requests are done.

    Raises:
        ConfigError: If a source is unknown or may not be asked; nothing was sent then.
        DataError: If an id is none, or no source gave anything; no snapshot is written then.
    """
    async with Web(store.settings, tell=progress) as web:
        tables = await fetch_all(
            web, sources=sources, cves=cves, purls=purls, base_urls=base_urls or {}
        )
    if all(one.table is None for one in tables.values()):
        errors = "; ".join(one.error for one in tables.values()) or "nothing was asked"
        raise DataError(f"no source gave anything ({errors}); the last snapshot stays")
    from workbench.risk.snapshot import write_snapshot

    made_at = datetime.now(UTC).isoformat(timespec="seconds")
    return write_snapshot(store, tables, made_at=made_at)


async def fetch_all(
    web: Web,
    *,
    sources: Sequence[str] = (),
    cves: Sequence[str] = (),
    purls: Sequence[str] = (),
    base_urls: Mapping[str, str] | None = None,
) -> dict[str, Fetched]:
    """Return table → what came of it; arguments and errors as of :func:`sync`."""
    cves = _checked(cves)
    opened = _opened(web, sources or DEFAULT_SOURCES, base_urls or {})
    for source in opened:
        if source.requests(1):
            web.check(source.service, source.url)
            keys_of(source.service, web.environment)
    tables: dict[str, Fetched] = {}
    found: list[str] = []
    for source in (one for one in opened if one.asks == "purls"):  # before CVEs: it finds some
        if purls:
            tables[source.table] = got = await _fetched(source, purls)
            found += _cves_in(got)
            if got.table is not None and not got.error:  # so that silence says something later
                asked = pa.table({"purl": sorted({bases(one)[0] for one in purls})})
                tables["packages"] = replace(got, table=asked)
    cves = list(dict.fromkeys((*cves, *found)))
    records = [one for one in opened if isinstance(one, CveSource)]

    async def fill(source: Source) -> None:
        tables[source.table] = await _fetched(source, cves if source.asks == "cves" else ())
        web.tell(source.name, 1, 1)

    async with asyncio.TaskGroup() as group:
        if records and cves:
            group.create_task(_fill_cves(tables, records, cves))
        for source in opened:
            if source.asks != "purls" and source not in records:
                group.create_task(fill(source))
    return tables


def plan(
    *,
    sources: Sequence[str] = (),
    cves: int = 0,
    purls: int = 0,
    environment: Mapping[str, str] | None = None,
) -> list[PlanRow]:
    """Return what asking takes, source by source, without asking.

    Args:
        sources: As of :func:`sync`.
        cves: How many CVE ids.
        purls: How many package URLs.
        environment: Variables to look for keys in instead of the process's own.
    """
    counts: Mapping[Asks, int] = {"cves": cves, "purls": purls, "all": 1}
    rows = []
    for name in sources or DEFAULT_SOURCES:
        source = _open(name)(None)
        service, note = source.service, ""
        keys = 1
        rate = service.rate
        try:
            found, note = keys_of(service, environment)
            keys = len(found)
            if note:
                rate = service.rate_without_key or rate
                note = f"slower without a key: {note}"
        except ConfigError as error:
            note = str(error)
        needs_ids = source.asks != "all" and source.table in {"cve", "osv"}
        asked = counts[source.asks]
        requests = source.requests(asked) if asked or not needs_ids else 0
        windows = max(0, -(-requests // (rate[0] * keys)) - 1)  # the first may start at once
        seconds = max(windows * rate[1], requests * _SECONDS_PER_REQUEST / service.parallel)
        rows.append(PlanRow(name, requests, round(seconds / 60, 2), note))
    return rows


async def _fill_cves(
    tables: dict[str, Fetched], sources: Sequence[CveSource], cves: Sequence[str]
) -> None:
    """Add the table of CVEs: each source completes what those before it leave open."""
    rows: dict[str, Row] = {}
    errors: list[str] = []
    answered = []
    for source in sources:
        open_ones = [cve for cve in cves if not is_complete(rows.get(cve))]
        try:
            given, error = await source.rows(open_ones)
        except WorkbenchError as failure:
            errors.append(str(failure))
            continue
        answered.append(source)
        errors += [f"source {source.name}: {error}"] * bool(error)
        for cve, row in given.items():
            rows[cve] = merge(rows[cve], row) if cve in rows else row
    said = answered or sources[:1]
    tables["cve"] = Fetched(
        source=" + ".join(one.name for one in said),
        url=" ".join(one.url for one in said),
        as_of=max((row["as_of"] for row in rows.values()), default=""),
        table=cve_table(rows.values()) if answered else None,
        error="; ".join(errors),
    )


async def _fetched(source: Source, ids: Sequence[str]) -> Fetched:
    try:
        return await source.fetch(ids)
    except WorkbenchError as error:
        failed = {"source": source.name, "url": source.url, "as_of": "", "error": str(error)}
        return Fetched(**failed, table=None)


def _cves_in(advisories: Fetched) -> list[str]:
    """Return the CVE ids of advisories, sorted."""
    if advisories.table is None:
        return []
    names = advisories.table["id"].to_pylist()
    names += [alias for aliases in advisories.table["aliases"].to_pylist() for alias in aliases]
    return sorted({name for name in names if CVE_ID.fullmatch(name)})


def _checked(cves: Sequence[str]) -> list[str]:
    """Return CVE ids in capitals, each once."""
    found = list(dict.fromkeys(cve.strip().upper() for cve in cves))
    for cve in found:
        if not CVE_ID.fullmatch(cve):
            raise DataError(f"{one_line(cve)[:40]!r} is no CVE id; write e.g. CVE-2024-1234")
    return found


def _opened(web: Web, names: Sequence[str], base_urls: Mapping[str, str]) -> list[Source]:
    refuse_unknown(base_urls, known=names, where="base_urls")
    opened = []
    for name in dict.fromkeys(names):
        source = _open(name)(web, base_url=base_urls.get(name, ""))
        if source.table not in SCHEMAS:
            raise ConfigError(f"source {name!r}: a snapshot has no table {source.table!r}; drop it")
        opened.append(source)
    # The order of the default decides whose word on a CVE goes first.
    order = {name: position for position, name in enumerate(_SHIPPED)}
    return sorted(opened, key=lambda one: order.get(one.name, len(order)))


def _open(name: str) -> OpenSource:
    for module in _SHIPPED:
        import_module(f"workbench.risk.sources.{module}")
    return SOURCES.get(name)
