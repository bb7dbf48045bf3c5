"""KEV: which vulnerabilities CISA knows to be exploited, and by when its agencies must act.

Source:
    cisa.gov/known-exploited-vulnerabilities-catalog; its JSON and its CSV hold the same.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

import pyarrow as pa

from workbench.risk.sources.base import (
    CVE_ID,
    DAY_S,
    SOURCES,
    Fetched,
    Item,
    Service,
    WebSource,
    json_of,
    table_of,
)
from workbench.risk.tables import SCHEMAS

__all__ = ["Kev", "kev_catalog", "parse_kev"]

_SERVICE = Service(
    name="kev",
    url="https://www.cisa.gov/sites/default/files/feeds/known_exploited_vulnerabilities.json",
    ttl_s=DAY_S / 2,
    most_bytes=1 << 25,
    media=("application/json", "text/csv", "text/plain", "application/octet-stream"),
)
_NAME = _SERVICE.name


@SOURCES.register(_NAME)
class Kev(WebSource):
    """The whole catalog, so that not to be listed says something."""

    service = _SERVICE
    table = "kev"

    async def fetch(self, ids: Sequence[str] = ()) -> Fetched:  # noqa: ARG002 - one of all
        """Return the whole catalog, whatever the ids; raises as any source."""
        got = await self.web.get(self.service, self.url, parse=kev_catalog)
        table, released = got.value
        return self.fetched(table, as_of=min(released or got.on, got.on))


def parse_kev(data: bytes) -> pa.Table:
    """Return the catalog, JSON or CSV, as a table.

    Raises:
        DataError: If it is none; names the field.
    """
    return kev_catalog(data)[0]


def kev_catalog(data: bytes) -> tuple[pa.Table, str]:
    """Return the table and the ISO date of release, which the CSV does not say."""
    if data.lstrip()[:1] in {b"{", b"["}:
        catalog = json_of(data, source=_NAME)
        entries = catalog.rows("vulnerabilities", required=True)
        released, said = catalog.day("dateReleased"), catalog.field("count").value
    else:
        entries, released, said = _csv_rows(data), "", None
    rows = [
        {
            "cve": entry.match("cveID", CVE_ID),
            "added": entry.day("dateAdded") or entry.field("dateAdded").refuse("is missing"),
            "due": entry.day("dueDate") or None,
            "ransomware": entry.text("knownRansomwareCampaignUse", most=20) == "Known",
        }
        for entry in entries
    ]
    whole = Item(None, _NAME, "vulnerabilities")
    if not rows:
        whole.refuse("is empty")
    if said is not None and said != len(rows):  # half a catalog would clear the other half
        whole.refuse(f"has {len(rows):,} entries where count says otherwise")
    return table_of(rows, SCHEMAS["kev"]), released


def _csv_rows(data: bytes) -> Iterator[Item]:
    whole = Item(None, _NAME)
    try:
        text = data.decode("utf-8-sig")
        rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        for number, row in enumerate(rows, start=1):
            yield Item(row, _NAME, f"row {number}")
    except (UnicodeDecodeError, csv.Error) as error:
        whole.refuse(f"is neither JSON nor CSV ({type(error).__name__})")
