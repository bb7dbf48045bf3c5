"""EPSS: how likely a vulnerability is exploited within 30 days, forecast anew every day.

Source:
    api.first.org/epss, and the daily file of all of them; data (c) FIRST, free with citation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from workbench.core.errors import WorkbenchError
from workbench.risk.sources.base import (
    CVE_ID,
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
    unpacked,
)
from workbench.risk.sources.web import Got
from workbench.risk.tables import SCHEMAS

__all__ = ["Epss", "parse_epss", "parse_epss_csv"]

_MOST_BYTES = 1 << 26
_SERVICE = Service(
    name="epss",
    url="https://api.first.org/data/v1/epss",
    ttl_s=DAY_S / 2,
    rate=(16, 1.0),
    parallel=4,
    most_bytes=_MOST_BYTES,
    media=(
        "application/json", "application/gzip", "application/x-gzip", "application/octet-stream",
        "binary/octet-stream", "text/csv",
    ),
)  # fmt: skip
_NAME = _SERVICE.name
_ALL = "https://epss.empiricalsecurity.com/epss_scores-current.csv.gz"
_PER_REQUEST, _CHARS = 100, 2_000
_MOST_ASKED = 5_000
"""Ids from which the daily file, of 2 MB, is less work for both sides."""
_SCHEMA: Final = SCHEMAS["epss"].append(pa.field("as_of", pa.string()))
_SCORE_DATE = re.compile(rb"score_date:(\d{4}-\d{2}-\d{2})")
_COLUMNS = {field.name: field.type for field in SCHEMAS["epss"]}


@SOURCES.register(_NAME)
class Epss(WebSource):
    """100 CVEs per request; the daily file where all are wanted, or very many.

    Args:
        web: The one client.
        base_url: Another address; one that ends in ``.csv`` or ``.gz`` is a daily file.
    """

    service = _SERVICE
    table = "epss"
    asks: Asks = "cves"

    def requests(self, count: int) -> int:
        """Return how many requests so many ids take at most."""
        return -(-count // _PER_REQUEST) if self._is_asked(count) else 1

    def _is_asked(self, count: int) -> bool:
        return 0 < count <= _MOST_ASKED and not self.url.endswith((".csv", ".gz"))

    async def fetch(self, ids: Sequence[str] = ()) -> Fetched:
        """Return the forecasts for some CVEs, for all without; raises as any source."""
        wanted = [cve for cve in dict.fromkeys(ids) if CVE_ID.fullmatch(cve)]
        if not self._is_asked(len(wanted)):
            url = _ALL if self.url == self.service.url else self.url
            got = await self.web.get(self.service, url, parse=parse_epss_csv)
            return self._said([got])

        async def ask(batch: list[str]) -> Got:
            query = {"cve": ",".join(batch), "limit": str(_PER_REQUEST)}
            return await self.web.get(self.service, self.url, parse=parse_epss, query=query)

        parts = batches(wanted, most=_PER_REQUEST, most_chars=_CHARS)
        answers = await self.web.each(parts, ask, service=self.service)
        errors = [one for one in answers if isinstance(one, WorkbenchError)]
        given = [one for one in answers if isinstance(one, Got)]
        if errors and not given:
            raise errors[0]
        error = f"{len(errors)} of {len(parts)} failed, the first: {errors[0]}" if errors else ""
        return self._said(given, error=error)

    def _said(self, answers: Sequence[Got], *, error: str = "") -> Fetched:
        table = pa.concat_tables([got.value for got in answers])
        newest = pc.max(table["as_of"]).as_py()
        asked_on = max(got.on for got in answers)
        on = min(newest or asked_on, asked_on)  # a date that is to come would never be stale
        table = table.set_column(
            table.schema.get_field_index("as_of"), "as_of", pc.min_element_wise(table["as_of"], on)
        )
        return self.fetched(table, as_of=on, error=error)


def parse_epss(data: bytes) -> pa.Table:
    """Return an answer of the API as a table, each row with the date of its forecast.

    Raises:
        DataError: If it is none; names the field.
    """
    answer = json_of(data, source=_NAME)
    rows = [
        {
            "cve": one.match("cve", CVE_ID),
            "epss": one.fraction("epss"),
            "percentile": one.fraction("percentile"),
            "as_of": one.day("date") or None,
        }
        for one in answer.rows("data", required=True)
    ]
    if answer.count("total") > max(len(rows), _PER_REQUEST):
        answer.field("total").refuse("says that there is more than was asked for")
    return table_of(rows, _SCHEMA)


def parse_epss_csv(data: bytes) -> pa.Table:
    """Return a daily file, gzipped or not, as a table; raises as :func:`parse_epss`."""
    from pyarrow import csv

    whole = Item(None, _NAME)
    plain = unpacked(data, source=_NAME, most_bytes=_MOST_BYTES)
    as_of = None
    if plain.startswith(b"#"):
        comment, _, plain = plain.partition(b"\n")
        found = _SCORE_DATE.search(comment)
        as_of = Item({"score_date": found[1].decode() if found else ""}, _NAME).day("score_date")
    delimiter = ";" if b";" in plain.partition(b"\n")[0] else ","
    try:
        table = csv.read_csv(
            pa.BufferReader(plain),
            parse_options=csv.ParseOptions(delimiter=delimiter),
            convert_options=csv.ConvertOptions(
                column_types=_COLUMNS, include_columns=list(_COLUMNS), strings_can_be_null=True
            ),
        )
    except (pa.ArrowException, KeyError) as error:
        whole.refuse(f"is no CSV of {', '.join(_COLUMNS)} ({str(error).splitlines()[0][:100]})")
    for name in ("epss", "percentile"):
        column = table[name]
        good = pc.and_(pc.greater_equal(column, 0.0), pc.less_equal(column, 1.0))
        if not pc.all(pc.fill_null(good, fill_value=False)).as_py():
            Item(None, _NAME, name).refuse("is not everywhere a number from 0 to 1")
    ids = pc.match_substring_regex(table["cve"], r"^CVE-\d{4}-\d{4,19}$")
    if not table.num_rows or not pc.all(pc.fill_null(ids, fill_value=False)).as_py():
        Item(None, _NAME, "cve").refuse("is not everywhere a CVE id")
    return table.append_column(
        "as_of", pa.repeat(pa.scalar(as_of or None, pa.string()), len(table))
    )
