"""What can be harmed: a table of assets, as people or ServiceNow keep it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from workbench.core.files import Table
from workbench.risk.intake.cve_lists import heading
from workbench.risk.intake.reading import Reading, text_of
from workbench.risk.records import EXPOSURES, Asset, Exposure

__all__ = [
    "INVENTORY_COLUMNS", "asset_id", "by_name", "careful", "criticality_of",
    "read_inventory",
]  # fmt: skip

_COLUMNS: Final = {
    "id": ("id", "asset", "asset id", "sys id", "host", "hostname"),
    "name": ("name", "display name"),
    "criticality": ("criticality", "business criticality", "busines criticality"),
    "exposure": ("exposure", "internet exposure"),
    "owner": ("owner", "owned by", "managed by"),
    "environment": ("environment", "used for"),
    "incident_usd": ("incident usd", "cost of incident usd"),
}
INVENTORY_COLUMNS: Final = (*_COLUMNS["criticality"], *_COLUMNS["exposure"])
"""Headings that no other table has."""
_CRITICALITIES: Final = {
    "very low": 1, "minimal": 1, "none": 1, "low": 2, "medium": 3, "moderate": 3, "high": 4,
    "critical": 5, "very high": 5, "mission critical": 5,
    "1 most critical": 5, "2 somewhat critical": 4, "3 less critical": 3, "4 not critical": 2,
}  # fmt: skip
"""Word → 1 to 5. Those with numbers are ServiceNow's, whose 1 is the worst; "not critical" still
is an asset. A number alone is on this scale, 5 the worst."""
_EXPOSURES: Final[dict[str, Exposure]] = {
    "small": "small", "isolated": "small", "local": "small", "air gapped": "small",
    "controlled": "controlled", "internal": "controlled", "intranet": "controlled",
    "partner": "controlled", "vpn": "controlled",
    "open": "open", "internet": "open", "public": "open", "external": "open",
}  # fmt: skip


def read_inventory(rows: Table, reading: Reading) -> None:
    """Take the assets of a table; what is not understood of one is missing, never low."""
    known = {heading(name): name for name in reversed(rows.names)}
    found = {
        field: next((known[name] for name in names if name in known), "")
        for field, names in _COLUMNS.items()
    }
    for row, place in zip(rows.rows, rows.places, strict=True):
        cells = {field: text_of(row.get(name)) for field, name in found.items()}
        where = place.rpartition(": ")[2]
        if not (key := cells["id"] or cells["name"]):
            reading.note("has no id; left out", place=where)
            continue
        asset = Asset(
            id=key, name=cells["name"], criticality=_criticality(cells, reading, where),
            exposure=_exposure(cells, reading, where), owner=cells["owner"],
            environment=cells["environment"], incident_usd=_incident_usd(cells, reading, where),
            source=f"{reading.file}: {where}",
        )  # fmt: skip
        if key in reading.assets:
            reading.note("tells of an asset again; the more careful values count", place=where)
            asset = careful(reading.assets[key], asset)
        reading.assets[key] = asset


def careful(one: Asset, other: Asset) -> Asset:
    """Return one asset of what two sources say of it: the higher criticality, exposure, cost."""
    exposed = [value for value in (one.exposure, other.exposure) if value]
    return replace(
        one,
        name=one.name or other.name,
        criticality=_most(one.criticality, other.criticality),
        exposure=max(exposed, key=EXPOSURES.index) if exposed else None,
        owner=one.owner or other.owner,
        environment=one.environment or other.environment,
        incident_usd=_most(one.incident_usd, other.incident_usd),
    )


def by_name(assets: Mapping[str, Asset]) -> dict[str, str]:
    """Return what an asset may be called → its id: that id, also in other case, or its name."""
    called = {key: key for key in assets}
    for key in assets:
        called.setdefault(key.casefold(), key)
    for key, one in assets.items():
        called.setdefault(one.name.casefold(), key)
    called.pop("", None)
    return called


def asset_id(name: str, called: Mapping[str, str]) -> str:
    """Return the id of the asset that is called so, else the name itself."""
    return called.get(name) or called.get(name.casefold(), name)


def criticality_of(text: str) -> int | None:
    """Return 1 to 5 for a number or a word, None for what is neither."""
    said = heading(text)
    if said in _CRITICALITIES:
        return _CRITICALITIES[said]
    return int(said) if said in {"1", "2", "3", "4", "5"} else None


def _criticality(cells: Mapping[str, str], reading: Reading, place: str) -> int | None:
    text = cells["criticality"]
    found = criticality_of(text)
    if text and found is None:
        what = f"criticality {text[:40]!r} is unknown; write 1 (nobody notices) to 5 (worst)"
        reading.note(what, place=place)
    return found


def _exposure(cells: Mapping[str, str], reading: Reading, place: str) -> Exposure | None:
    text = cells["exposure"]
    found = _EXPOSURES.get(heading(text))
    if text and not found:
        reading.note(f"exposure {text[:40]!r}; write one of {', '.join(EXPOSURES)}", place=place)
    return found


def _incident_usd(cells: Mapping[str, str], reading: Reading, place: str) -> float | None:
    text = cells["incident_usd"].replace(",", "").strip("$ ")
    if not text:
        return None
    try:
        usd = float(text)
    except ValueError:
        usd = math.nan
    if math.isfinite(usd) and usd >= 0:
        return usd
    what = f"incident_usd {text[:40]!r}; write dollars, 0 or more, with a point"
    reading.note(what, place=place)
    return None


def _most(one: Any, other: Any) -> Any:
    return max((value for value in (one, other) if value is not None), default=None)
