"""SPDX in JSON: 2.2 and 2.3, and the packages of 3."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from workbench.risk.intake.reading import Reading, mapping, text_of

__all__ = ["read_spdx", "read_spdx_graph"]

_NOTHING: Final = frozenset({"NOASSERTION", "NONE"})
_VERSIONS: Final = frozenset({"SPDX-2.2", "SPDX-2.3"})


def read_spdx(document: dict[str, Any], reading: Reading) -> None:
    """Take the packages of SPDX 2."""
    version = text_of(document.get("spdxVersion"))
    reading.format = version.replace("-", " ") or "SPDX"
    if version not in _VERSIONS:
        reading.note(f"spdxVersion {version!r} is not known; read as 2.3", place="document")
    described = _described(document, reading)
    reading.on(document.get("name"))
    names = []
    for place, one in reading.objects(document.get("packages"), place="packages"):
        known_as = text_of(one.get("SPDXID"))
        if known_as in described:
            reading.roots.update(filter(None, (known_as, text_of(one.get("name")))))
            names.append(one.get("name"))
        refs = reading.objects(one.get("externalRefs"), place=f"{place}.externalRefs")
        purls = [
            ref.get("referenceLocator") for _, ref in refs if ref.get("referenceType") == "purl"
        ]
        reading.add_component(
            purl=next(iter(purls), ""), name=one.get("name"), refs=[known_as],
            version=_said(one.get("versionInfo")),
        )  # fmt: skip
    if len(names) == 1:
        reading.on(names[0])


def read_spdx_graph(document: dict[str, Any], reading: Reading) -> None:
    """Take the packages of SPDX 3; what it says of vulnerabilities is not read, and noted."""
    reading.format = "SPDX 3"
    for place, one in reading.objects(document.get("@graph"), place="@graph"):
        kind = text_of(one.get("type") or one.get("@type")).rpartition("_")[2].rpartition("/")[2]
        if kind == "SpdxDocument":
            reading.on(one.get("name"))
        elif kind == "Package":
            reading.add_component(
                purl=_first(one, "software_packageUrl", "packageUrl") or _identifier(one, reading),
                name=one.get("name"), refs=[one.get("spdxId") or one.get("@id")],
                version=_said(_first(one, "software_packageVersion", "packageVersion")),
            )  # fmt: skip
        elif kind.endswith("VulnAssessmentRelationship"):
            reading.note("assessments of SPDX 3 are not read; give OpenVEX", place=place)


def _described(document: dict[str, Any], reading: Reading) -> set[str]:
    """Return the ids of the packages that the document is about."""
    told = document.get("documentDescribes")
    found = {text_of(one) for one in told} if isinstance(told, list) else set()
    for _, one in reading.objects(document.get("relationships"), place="relationships"):
        if one.get("relationshipType") == "DESCRIBES":
            found.add(text_of(one.get("relatedSpdxElement")))
    return found - {""}


def _identifier(one: dict[str, Any], reading: Reading) -> str:
    given: Iterator[tuple[str, dict[str, Any]]] = reading.objects(
        one.get("externalIdentifier"), place="externalIdentifier"
    )
    purls = (text_of(mapping(also).get("identifier"), 500) for _, also in given)
    return next((purl for purl in purls if purl.startswith("pkg:")), "")


def _first(one: dict[str, Any], *names: str) -> Any:
    return next((one[name] for name in names if one.get(name)), "")


def _said(value: Any) -> Any:
    return "" if isinstance(value, str) and value in _NOTHING else value
