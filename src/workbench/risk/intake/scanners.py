"""Reports of Grype and Trivy in JSON: vulnerabilities in components, as they found them."""

from __future__ import annotations

from typing import Any, Final

from workbench.risk.intake.purls import component_text, parse_purl, with_version
from workbench.risk.intake.reading import Reading, mapping, text_of
from workbench.risk.records import State

__all__ = ["read_grype", "read_trivy"]

_STATES: Final[dict[str, State]] = {
    "affected": "affected", "under_investigation": "under_investigation", "fixed": "fixed",
    "not_affected": "not_affected",
}  # fmt: skip


def read_grype(document: dict[str, Any], reading: Reading) -> None:
    """Take matches; those that a rule of the tool hides are kept, as VEX or as in doubt."""
    reading.format = "Grype"
    target = mapping(document.get("source")).get("target")
    reading.on(target if isinstance(target, str) else mapping(target).get("userInput"))
    for place, one in reading.objects(document.get("matches"), place="matches"):
        _read_match(one, reading, place=place)
    for place, one in reading.objects(document.get("ignoredMatches"), place="ignoredMatches"):
        rules = reading.objects(one.get("appliedIgnoreRules"), place=place)
        state: State = "under_investigation"
        why: Any = "a rule of the scanner hides it"
        for _, rule in rules:
            if said := _STATES.get(text_of(rule.get("vex-status"))):
                state, why = said, rule.get("vex-justification")
        _read_match(one, reading, place=place, state=state, why=why)


def _read_match(
    one: dict[str, Any], reading: Reading, *, place: str, state: State = "affected", why: Any = ""
) -> None:
    found, artifact = mapping(one.get("vulnerability")), mapping(one.get("artifact"))
    related = [
        also.get("id")
        for _, also in reading.objects(one.get("relatedVulnerabilities"), place=place)
    ]
    fixes = mapping(found.get("fix")).get("versions")
    fixed_in = ", ".join(map(text_of, fixes)) if isinstance(fixes, list) else ""
    component = _component(artifact.get("purl"), artifact.get("name"), artifact.get("version"))
    for subject in reading.subjects(found.get("id"), related, place=place):
        _add(reading, subject, component, state=state, why=why, place=place, fixed_in=fixed_in)


def read_trivy(document: dict[str, Any], reading: Reading) -> None:
    """Take vulnerabilities, and those that VEX or a rule hides; ``fixed`` says there is a fix."""
    reading.format = "Trivy"
    reading.on(document.get("ArtifactName"))
    for path, result in reading.objects(document.get("Results"), place="Results"):
        listed = reading.objects(result.get("Vulnerabilities"), place=f"{path}.Vulnerabilities")
        for place, one in listed:
            _read_trivy(one, reading, place=place)
        hidden = result.get("ExperimentalModifiedFindings")
        for place, one in reading.objects(hidden, place=f"{path}.ExperimentalModifiedFindings"):
            if one.get("Type") == "vulnerability":
                state = _STATES.get(text_of(one.get("Status")), "under_investigation")
                why = one.get("Statement") or "a rule of the scanner hides it"
                _read_trivy(mapping(one.get("Finding")), reading, place=place, state=state, why=why)


def _read_trivy(
    one: dict[str, Any], reading: Reading, *, place: str, state: State = "affected", why: Any = ""
) -> None:
    identifier = mapping(one.get("PkgIdentifier"))
    component = _component(identifier.get("PURL"), one.get("PkgName"), one.get("InstalledVersion"))
    vendors = one.get("VendorIDs")
    for subject in reading.subjects(
        one.get("VulnerabilityID"), vendors if isinstance(vendors, list) else (), place=place
    ):
        _add(reading, subject, component, state=state, why=why, place=place,
             fixed_in=one.get("FixedVersion"))  # fmt: skip


def _add(
    reading: Reading, subject: str, component: str, *, state: State, why: Any, place: str,
    fixed_in: Any,
) -> None:  # fmt: skip
    if not component:
        reading.note("names no component; taken as the whole asset", place=place)
    if state in {"fixed", "not_affected"}:
        reading.add_statement(subject, state=state, why=[why], asset=reading.asset,
                              parts=[component] if component else ())  # fmt: skip
    else:
        reading.add_occurrence(
            subject, component=component, state=state, reason=text_of(why, 300), fixed_in=fixed_in
        )


def _component(purl: Any, name: Any, version: Any) -> str:
    purl, version = text_of(purl, 500), text_of(version)
    parsed = parse_purl(purl)
    if parsed and version and not parsed.version:
        purl = with_version(purl, version)
    return component_text(purl if parsed else "", text_of(name), version)
