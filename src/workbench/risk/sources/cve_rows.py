"""Rows of the table of CVEs: which CVSS vector counts, and how records complete each other."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import pyarrow as pa

from workbench.core.errors import DataError, WorkbenchError
from workbench.risk.cvss import cvss_score
from workbench.risk.sources.base import CVE_ID, Asks, Fetched, Item, WebSource, table_of
from workbench.risk.tables import REJECTED, SCHEMAS

__all__ = [
    "CveSource", "Origin", "Row", "Vector", "best_vector", "cve_table", "english",
    "is_complete", "merge",
]  # fmt: skip

Origin = Literal["cna", "adp", "nvd"]
Vector: TypeAlias = tuple[Origin, str]
"""Who gave a CVSS vector, and the vector."""
Row: TypeAlias = dict[str, Any]

_CVSS_2 = re.compile(r"\(?AV:[LAN]/AC:")
_VERSIONS: Final = ("3.1", "3.0", "4.0", "2.0")
"""First choice first. 3.1 goes before 4.0: nearly every record has one of 3.x, the score compares
records with each other, and 4.0 puts the same flaw elsewhere on its scale."""
_SCHEMA: Final = SCHEMAS["cve"].append(pa.field("as_of", pa.string()))
_CVSS: Final = ("cvss_vector", "cvss_version", "cvss_source")
_SSVC: Final = ("exploitation", "automatable", "technical_impact", "ssvc_as_of")


class CveSource(WebSource):
    """A source that is asked about one CVE at a time."""

    table = "cve"
    asks: Asks = "cves"

    @abstractmethod
    async def ask(self, cve: str) -> Row | None:
        """Return the row of a CVE with its ``as_of``, None where it is not known.

        Raises:
            DataError: If there is no usable answer.
        """

    async def rows(self, ids: Sequence[str]) -> tuple[dict[str, Row], str]:
        """Return CVE → row, and what could not be had, in one line; raises if nothing could."""
        wanted = [cve for cve in dict.fromkeys(ids) if CVE_ID.fullmatch(cve)]
        answers = await self.web.each(wanted, self.ask, service=self.service)
        errors = [one for one in answers if isinstance(one, WorkbenchError)]
        rows = {row["cve"]: row for row in answers if isinstance(row, dict)}
        if errors and not rows:
            raise errors[0]
        error = f"{len(errors)} of {len(wanted)} failed, the first: {errors[0]}" if errors else ""
        return rows, error

    async def fetch(self, ids: Sequence[str] = ()) -> Fetched:
        """Return a row for each CVE that is known; raises if none could be asked about."""
        rows, error = await self.rows(ids)
        as_of = max((row["as_of"] for row in rows.values()), default="")
        return self.fetched(cve_table(rows.values()), as_of=as_of, error=error)


def best_vector(candidates: Iterable[Vector]) -> dict[str, str | None]:
    """Return the columns of the vector that counts: best version, then first; invalid ones never.

    Args:
        candidates: CNA before CISA-ADP before NVD.
    """
    found: dict[str, Vector] = {}
    for origin, vector in candidates:
        if version := _version(vector):
            found.setdefault(version, (origin, vector))
    for version in _VERSIONS:
        if version in found:
            origin, vector = found[version]
            return dict(zip(_CVSS, (vector, version, origin), strict=True))
    return dict.fromkeys(_CVSS)


def english(items: Iterable[Item], *, most: int = 4_000) -> str:
    """Return the text of ``{lang, value}`` objects: the first English one, else the first."""
    texts = [(item.text("lang", most=20).lower(), item.text("value", most=most)) for item in items]
    return next((text for lang, text in texts if lang[:2] == "en"), texts[0][1] if texts else "")


def is_complete(row: Row | None) -> bool:
    """Return whether a row has all that NVD could add."""
    if row is None:
        return False
    has_all = bool(row["cvss_vector"] and row["cwes"] and row["description"])
    return has_all or row["title"] == REJECTED


def merge(first: Row, second: Row | None) -> Row:
    """Return a row completed by another; what belongs together comes from one of them."""
    if second is None:
        return first
    merged = dict(first)
    groups: Sequence[Sequence[str]] = (_CVSS, _SSVC, ("vendor", "product"))
    grouped = {name for group in groups for name in group}
    for group in (*groups, *((name,) for name in first if name not in grouped)):
        if not any(first[name] for name in group):
            merged.update({name: second[name] for name in group})
    if first["cvss_vector"] and second["cvss_vector"]:
        merged.update(_better_version(first, second))
    return merged


def cve_table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Return rows as the table of CVEs, each with the date of what was said, ``as_of``."""
    plain = ({key: None if value == "" else value for key, value in row.items()} for row in rows)
    return table_of(plain, _SCHEMA)


def _better_version(first: Row, second: Row) -> dict[str, Any]:
    """Return the CVSS columns of the row that has the better version; of the first if equal."""
    ranks = [_VERSIONS.index(row["cvss_version"]) for row in (first, second)]
    better = second if ranks[1] < ranks[0] else first
    return {name: better[name] for name in _CVSS}


def _version(vector: str) -> str:
    """Return the version of a valid vector, else an empty string."""
    version = vector[5:8] if vector.startswith("CVSS:") else "2.0" * bool(_CVSS_2.match(vector))
    try:
        cvss_score(vector)
    except DataError:
        return ""
    return version if version in _VERSIONS else ""
