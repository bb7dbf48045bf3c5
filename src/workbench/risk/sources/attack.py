"""ATT&CK techniques by weakness: a CWE belongs to attack patterns (CAPEC), some to techniques.

Source:
    STIX 2.1 bundles of attack.mitre.org and capec.mitre.org, github.com/mitre/cti.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial

import pyarrow as pa

from workbench.risk.sources.base import (
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

__all__ = ["Attack", "parse_capec", "parse_techniques"]

_SERVICE = Service(
    name="attack",
    url="https://raw.githubusercontent.com/mitre/cti/master",
    ttl_s=7 * DAY_S,
    most_bytes=1 << 27,
    media=("text/plain", "application/json", "application/octet-stream"),
)
_NAME = _SERVICE.name
_TECHNIQUE = re.compile(r"T\d{4}(\.\d{3})?", re.ASCII)
_CWE = re.compile(r"CWE-\d{1,5}", re.ASCII)
_CAPEC = re.compile(r"CAPEC-\d{1,5}", re.ASCII)


@SOURCES.register(_NAME)
class Attack(WebSource):
    """Two bundles, joined."""

    service = _SERVICE
    table = "techniques"

    def requests(self, count: int) -> int:  # noqa: ARG002 - two files whatever is asked
        """Return how many requests it takes."""
        return 2

    async def fetch(self, ids: Sequence[str] = ()) -> Fetched:  # noqa: ARG002 - one of all
        """Return the whole mapping, whatever the ids; raises as any source."""
        bundle = f"{self.url}/enterprise-attack/enterprise-attack.json"
        techniques = await self.web.get(self.service, bundle, parse=parse_techniques)
        patterns = f"{self.url}/capec/2.1/stix-capec.json"
        parse = partial(parse_capec, techniques=techniques.value)
        capec = await self.web.get(self.service, patterns, parse=parse)
        return self.fetched(capec.value, as_of=min(techniques.on, capec.on))


def parse_techniques(data: bytes) -> dict[str, str]:
    """Return technique id → name of a bundle of ATT&CK, without those revoked.

    Raises:
        DataError: If it is none; names the field.
    """
    found: dict[str, str] = {}
    for pattern in _patterns(data):
        for name in _ids(pattern, "mitre-attack", _TECHNIQUE):
            found[name] = pattern.line("name")
    return found


def parse_capec(data: bytes, *, techniques: Mapping[str, str] | None = None) -> pa.Table:
    """Return a bundle of CAPEC as rows of CWE, CAPEC, technique and name of the technique.

    Args:
        data: The bundle.
        techniques: Id → name of those that exist; None: all, named after the attack pattern.

    Raises:
        DataError: If it is none; names the field.
    """
    rows = []
    for pattern in _patterns(data):
        for technique in _ids(pattern, "ATTACK", _TECHNIQUE):
            if techniques is not None and technique not in techniques:
                continue
            name = pattern.line("name") if techniques is None else techniques[technique]
            rows += [
                {"cwe": cwe, "capec": capec, "technique": technique, "name": name}
                for capec in _ids(pattern, "capec", _CAPEC)
                for cwe in _ids(pattern, "cwe", _CWE)
            ]
    if not rows:
        Item(None, _NAME, "objects").refuse("map no weakness to a technique")
    return table_of(rows, SCHEMAS["techniques"])


def _patterns(data: bytes) -> list[Item]:
    """Return the attack patterns of a bundle that are neither revoked nor deprecated."""
    found = []
    for one in json_of(data, source=_NAME).rows("objects", required=True):
        if one.text("type", most=40) != "attack-pattern":
            continue
        flags = ("revoked", "x_mitre_deprecated")
        is_old = any(one.field(name).value is True for name in flags)
        if not is_old and one.text("x_capec_status", most=20) != "Deprecated":
            found.append(one)
    return found


def _ids(pattern: Item, source_name: str, form: re.Pattern[str]) -> list[str]:
    """Return the ids that a pattern has in a catalog; what is none there is left out."""
    references = pattern.rows("external_references", required=True)
    found = {
        one.text("external_id", most=20): None
        for one in references
        if one.text("source_name", most=40) == source_name
    }
    return [name for name in found if form.fullmatch(name)]
