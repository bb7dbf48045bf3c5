"""CVE records: what the CNA says, then CISA's ADP container (CVSS, CWE and SSVC of Vulnrichment).

Source:
    CVE JSON 5 record format, github.com/CVEProject/cve-schema; SSVC in it as of
    github.com/cisagov/vulnrichment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial

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

__all__ = ["CveRecords", "cve_row", "parse_cve_record"]

_SERVICE = Service(
    name="cve_records", url="https://cveawg.mitre.org", ttl_s=DAY_S, rate=(20, 1.0), parallel=8
)
_NAME = _SERVICE.name
_STATE = re.compile("PUBLISHED|REJECTED")
_CWE = re.compile(r"CWE-\d{1,5}", re.ASCII)
_CVSS_FIELDS = ("cvssV3_1", "cvssV3_0", "cvssV4_0", "cvssV2_0")
_CISA = "CISA-ADP"
_POINTS = {
    "Exploitation": ("exploitation", ("none", "poc", "active")),
    "Automatable": ("automatable", ("no", "yes")),
    "Technical Impact": ("technical_impact", ("partial", "total")),
}
"""Decision point of SSVC → column and its values."""


@SOURCES.register(_NAME)
class CveRecords(CveSource):
    """One record per CVE, from the CVE program."""

    service = _SERVICE

    async def ask(self, cve: str) -> Row | None:
        """Return the row of a CVE, None where the program has not published it."""
        parse = partial(cve_row, cve=cve)
        url = f"{self.url}/api/cve/{cve}"
        got = await self.web.get(self.service, url, parse=parse, may_be_absent=True)
        return got.value and {**got.value, "as_of": got.on}


def parse_cve_record(data: bytes) -> pa.Table:
    """Return a record as a table of one row.

    Raises:
        DataError: If it is none; names the field.
    """
    return cve_table([{**cve_row(data), "as_of": None}])


def cve_row(data: bytes, *, cve: str = "") -> Row:
    """Return a record as a row, of that CVE if one is given; raises as :func:`parse_cve_record`."""
    record = json_of(data, source=_NAME)
    about = record.field("cveMetadata")
    expected = re.compile(re.escape(cve)) if cve else CVE_ID
    row: Row = {
        "cve": about.match("cveId", expected),
        "published": about.day("datePublished"),
        "modified": about.day("dateUpdated"),
    }
    containers = record.field("containers")
    cna = containers.field("cna")
    if about.match("state", _STATE) == "REJECTED":
        reason = english(cna.rows("rejectedReasons"))
        empty = dict.fromkeys(("vendor", "product"), "")
        said = {"title": REJECTED, "description": reason, "cwes": [], **empty}
        return {**row, **said, **best_vector(()), **_ssvc([])}
    adps = sorted(containers.rows("adp"), key=lambda one: not _is_cisa(one))
    both: list[tuple[Origin, Item]] = [("cna", cna), *(("adp", adp) for adp in adps)]
    row["title"] = cna.line("title")
    row["description"] = english(cna.rows("descriptions", required=True))
    row["cwes"] = next(filter(None, (_cwes(item) for _, item in both)), [])
    row["vendor"], row["product"] = next(
        filter(any, (_product(item) for _, item in both)), ("", "")
    )
    vectors = [(origin, vector) for origin, item in both for _, vector in _vectors(item, origin)]
    return {**row, **best_vector(vectors), **_ssvc([adp for adp in adps if _is_cisa(adp)])}


def _is_cisa(adp: Item) -> bool:
    about = adp.field("providerMetadata")
    return about.value is not None and about.text("shortName", most=40) == _CISA


def _vectors(container: Item, origin: Origin) -> Iterator[Vector]:
    for metric in container.rows("metrics"):
        for name in _CVSS_FIELDS:
            cvss = metric.field(name)
            if cvss.value is not None:
                yield origin, cvss.text("vectorString", most=400)


def _cwes(container: Item) -> list[str]:
    found = {
        description.text("cweId", most=20): None
        for problem in container.rows("problemTypes")
        for description in problem.rows("descriptions")
    }
    return [cwe for cwe in found if _CWE.fullmatch(cwe)]


def _product(container: Item) -> tuple[str, str]:
    """Return the first vendor and product that are said."""
    unsaid = {"", "n/a", "unknown"}
    for affected in container.rows("affected"):
        pair = affected.line("vendor", most=200), affected.line("product", most=200)
        if not unsaid.issuperset(map(str.lower, pair)):
            return pair
    return "", ""


def _ssvc(adps: Sequence[Item]) -> dict[str, str | None]:
    """Return CISA's decision points; None where a point is absent or of no known value."""
    row: dict[str, str | None] = {name: None for name, _ in _POINTS.values()}
    row["ssvc_as_of"] = None
    for metric in (metric for adp in adps for metric in adp.rows("metrics")):
        other = metric.field("other")
        if other.value is None or other.text("type", most=20) != "ssvc":
            continue
        content = other.field("content")
        row["ssvc_as_of"] = content.day("timestamp") or None
        for option in content.rows("options", required=True):
            for point, (name, values) in _POINTS.items():
                value = option.text(point, most=20).lower()
                row[name] = value if value in values else row[name]
    return row
