"""CycloneDX 1.2 to 1.6 in JSON: components, and what is said of vulnerabilities in them.

Ratings are not read: a risk is scored from evidence, not from what a tool thought of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, Final

from workbench.risk.intake.reading import Reading, mapping, text_of
from workbench.risk.records import State

__all__ = ["read_cyclonedx"]

_VERSIONS: Final = frozenset({"1.2", "1.3", "1.4", "1.5", "1.6"})
_STATES: Final[dict[str, State]] = {
    "exploitable": "affected",
    "in_triage": "under_investigation",
    "resolved": "fixed",
    "resolved_with_pedigree": "fixed",
    "not_affected": "not_affected",
    "false_positive": "not_affected",
}


def read_cyclonedx(document: dict[str, Any], reading: Reading) -> None:
    """Take components, also nested ones, and vulnerabilities with their analysis."""
    version = text_of(document.get("specVersion"))
    reading.format = f"CycloneDX {version}".rstrip()
    if version not in _VERSIONS:
        what = f"specVersion {version!r} is not known; read as the newest that is"
        reading.note(what, place="document")
    root = mapping(mapping(document.get("metadata")).get("component"))
    reading.on(root.get("name"))
    reading.serial = text_of(document.get("serialNumber"))
    names = (text_of(root.get(name), 500) for name in ("bom-ref", "purl", "name"))
    reading.roots.update(filter(None, names))
    for one in _components(document, root, reading):
        group, name = text_of(one.get("group")), text_of(one.get("name"))
        reading.add_component(
            purl=one.get("purl"), version=one.get("version"), refs=[one.get("bom-ref")],
            name=f"{group}/{name}" if group and name else name,
        )  # fmt: skip
    for place, one in reading.objects(document.get("vulnerabilities"), place="vulnerabilities"):
        _read_vulnerability(one, reading, place=place)


def _components(
    document: dict[str, Any], root: dict[str, Any], reading: Reading
) -> Iterator[dict[str, Any]]:
    """Yield components level by level; nesting may be deep, so nothing calls itself."""
    levels = deque([("components", document.get("components"))])
    levels.append(("metadata.component.components", root.get("components")))
    while levels:
        path, level = levels.popleft()
        for place, one in reading.objects(level, place=path):
            yield one
            if "components" in one:
                levels.append((f"{place[-40:]}.components", one["components"]))


def _read_vulnerability(one: dict[str, Any], reading: Reading, *, place: str) -> None:
    others = [also.get("id") for _, also in reading.objects(one.get("references"), place=place)]
    affects = [
        also.get("ref", "")
        for _, also in reading.objects(one.get("affects"), place=f"{place}.affects")
    ]
    analysis = mapping(one.get("analysis"))
    said = text_of(analysis.get("state"))
    if not affects and one.get("affects"):
        what = "affects nothing that can be read"
        reading.note(f"{what}; {'left out' if said else 'taken as the whole asset'}", place=place)
        if said:  # else it would close everything
            return
    if said and said not in _STATES:
        reading.note(f"analysis state {said[:40]!r} is unknown; taken as affected", place=place)
    for subject in reading.subjects(one.get("id"), others, place=place):
        reading.add_statement(
            subject, state=_STATES.get(said, "affected"), products=affects,
            why=[analysis.get("justification"), analysis.get("detail")], is_vex=bool(said),
        )  # fmt: skip
