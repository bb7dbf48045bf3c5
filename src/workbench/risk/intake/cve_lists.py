"""CVE ids as people keep them: one a line, or a column of a table."""

from __future__ import annotations

import re
from typing import Final

from workbench.core.files import Table
from workbench.risk.intake.purls import parse_purl, with_version
from workbench.risk.intake.reading import Reading, advisory_of, text_of
from workbench.risk.records import State

__all__ = ["CVE_COLUMNS", "heading", "is_cve_line", "read_cve_lines", "read_cve_rows"]

CVE_COLUMNS: Final = ("cve", "cve id", "cves", "vulnerability", "vulnerability id", "vuln id")
_COLUMNS: Final = {
    "asset": ("asset", "asset id", "host", "hostname", "target"),
    "component": ("component", "purl", "package", "product"),
    "version": ("version", "installed version"),
    "state": ("state", "status", "vex"),
    "reason": ("reason", "justification", "note"),
    "fixed_in": ("fixed in", "fixed version", "fix version"),
}
"""What is understood → how a heading may say it."""
_STATES: Final[dict[str, State]] = {
    "affected": "affected", "open": "affected", "exploitable": "affected",
    "under investigation": "under_investigation", "in triage": "under_investigation",
    "fixed": "fixed", "resolved": "fixed",
    "not affected": "not_affected", "false positive": "not_affected",
}  # fmt: skip
_BETWEEN = re.compile(r"[,;\t|]+")


def heading(name: str) -> str:
    """Return a heading in small letters with blanks."""
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def read_cve_lines(lines: Table, reading: Reading) -> None:
    """Take ids, several a line where commas part them; what follows # is a comment."""
    for line, place in zip(lines.texts("text"), lines.places, strict=True):
        for one in _BETWEEN.split(line.partition("#")[0]):
            if one.strip():
                for subject in reading.subjects(one, place=_place(place)):
                    reading.add_occurrence(subject)


def read_cve_rows(rows: Table, reading: Reading) -> None:
    """Take a table with a column of ids; columns of asset, component, state, ... are optional."""
    known = {heading(name): name for name in reversed(rows.names)}

    def column(names: tuple[str, ...]) -> list[str]:
        found = next((known[name] for name in names if name in known), None)
        return rows.texts(found) if found else [""] * len(rows.rows)

    columns = {name: column(names) for name, names in _COLUMNS.items()}
    for number, ids in enumerate(column(CVE_COLUMNS)):
        place = _place(rows.places[number])
        cells = {name: text_of(values[number]) for name, values in columns.items()}
        component = cells["component"]
        if component and cells["version"]:
            component = _with_version(component, cells["version"])
        for one in filter(str.strip, _BETWEEN.split(ids)):
            for subject in reading.subjects(one, place=place):
                _add_row(reading, subject, component, cells, place=place)
        if not ids.strip():
            reading.note("has no CVE id; left out", place=place)


def is_cve_line(line: str) -> bool:
    """Return whether a line begins with an id, or with what was to be one."""
    first = _BETWEEN.split(line.partition("#")[0])[0]
    return bool(advisory_of(first)) or first.lower().startswith("cve")


def _add_row(
    reading: Reading, subject: str, component: str, cells: dict[str, str], *, place: str
) -> None:
    said = heading(cells["state"])
    if said and said not in _STATES:
        reading.note(f"state {said[:40]!r} is unknown; taken as affected", place=place)
    state = _STATES.get(said, "affected")
    if state == "affected":
        reading.add_occurrence(
            subject, asset=cells["asset"], component=component, fixed_in=cells["fixed_in"]
        )
    else:
        reading.add_statement(
            subject, state=state, why=[cells["reason"]], asset=cells["asset"] or reading.asset,
            parts=[component] if component else (),
        )  # fmt: skip


def _with_version(component: str, version: str) -> str:
    purl = parse_purl(component)
    if purl:
        return component if purl.version else with_version(component, version)
    return f"{component} {version}"


def _place(place: str) -> str:
    """Return the place in the file; problems begin with the file's name anyway."""
    return place.rpartition(": ")[2]
