"""NVD: what the CVE records leave open. Most new CVEs get no analysis there since April 2026.

Source:
    nvd.nist.gov/developers/vulnerabilities, API 2.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from workbench.risk.sources.base import CVE_ID, DAY_S, SOURCES, Item, Service, json_of
from workbench.risk.sources.cve_rows import (
    CveSource,
    Origin,
    Row,
    Vector,
    best_vector,
    cve_table,
    english,
)
from workbench.risk.tables import REJECTED

__all__ = ["Nvd", "nvd_rows", "parse_nvd"]

_SERVICE = Service(
    name="nvd",
    url="https://services.nvd.nist.gov/rest/json/cves/2.0",
    ttl_s=DAY_S,
    rate=(50, 31.0),  # of 30 s, and one for the way there
    rate_without_key=(5, 31.0),
    parallel=4,
    key_variable="NVD_API_KEYS",
    key_header="apiKey",
    most_bytes=1 << 26,
)
_NAME = _SERVICE.name
_METRICS = ("cvssMetricV31", "cvssMetricV30", "cvssMetricV40", "cvssMetricV2")
_CISA = "134c704f-9b21-4f2e-93b3-4a314aae1a4c"
"""Id of CISA's ADP where NVD repeats it."""
_MOST_DAYS = 120
_PAGE = 2_000
_MOST_PAGES = 500


@SOURCES.register(_NAME)
class Nvd(CveSource):
    """One request per CVE, or pages of everything that was modified in a time."""

    service = _SERVICE

    async def ask(self, cve: str) -> Row | None:
        """Return the row of a CVE, None where NVD does not know it."""
        got = await self.web.get(self.service, self.url, parse=nvd_rows, query={"cveId": cve})
        found = (row for row in got.value[0] if row["cve"] == cve)
        return next(({**row, "as_of": got.on} for row in found), None)


def parse_nvd(data: bytes) -> pa.Table:
    """Return a page of NVD as a table.

    Raises:
        DataError: If it is none; names the field.
    """
    return cve_table({**row, "as_of": None} for row in nvd_rows(data)[0])


def nvd_rows(data: bytes, *, start: int | None = None) -> tuple[list[Row], int]:
    """Return a page's rows, and how many there are on all pages; raises as :func:`parse_nvd`."""
    page = json_of(data, source=_NAME)
    total = page.count("totalResults")
    if start is not None and page.count("startIndex") != start:
        page.field("startIndex").refuse(f"is not the {start} that was asked for")
    rows = [_row(one.field("cve")) for one in page.rows("vulnerabilities", required=True)]
    return rows, total


def _row(cve: Item) -> Row:
    row: dict[str, Any] = {
        "cve": cve.match("id", CVE_ID),
        "published": cve.day("published"),
        "modified": cve.day("lastModified"),
        "title": "",
        "description": english(cve.rows("descriptions", required=True)),
        **dict.fromkeys(("automatable", "technical_impact", "exploitation", "ssvc_as_of")),
    }
    if cve.text("vulnStatus", most=40) == "Rejected":
        row["title"] = REJECTED
        return row | {"cwes": [], "vendor": "", "product": "", **best_vector(())}
    cwes = {
        said.text("value", most=20): None
        for weakness in cve.rows("weaknesses")
        for said in weakness.rows("description")
    }
    row["cwes"] = [cwe for cwe in cwes if cwe.startswith("CWE-") and cwe[4:].isdecimal()]
    row["vendor"], row["product"] = _product(cve)
    order = ("nvd", "cna", "adp")
    vectors = sorted(_vectors(cve), key=lambda vector: order.index(vector[0]))
    return row | best_vector(vectors)


def _vectors(cve: Item) -> Iterator[Vector]:
    metrics = cve.field("metrics")
    if metrics.value is None:
        return
    for name in _METRICS:
        for metric in metrics.rows(name):
            given_by = metric.text("source", most=100)
            origin: Origin = "adp" if given_by == _CISA else "cna"
            origin = "nvd" if given_by == "nvd@nist.gov" else origin
            yield origin, metric.field("cvssData").text("vectorString", most=400)


def _product(cve: Item) -> tuple[str, str]:
    """Return vendor and product of the first CPE name."""
    for configuration in cve.rows("configurations"):
        for node in configuration.rows("nodes"):
            for match in node.rows("cpeMatch"):
                parts = match.line("criteria").split(":")
                if parts[:2] == ["cpe", "2.3"] and len(parts) > 4:  # noqa: PLR2004 - of CPE 2.3
                    return parts[3], parts[4]
    return "", ""
