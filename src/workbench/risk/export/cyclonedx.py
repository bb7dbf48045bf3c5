"""The register as CycloneDX 1.6: a vulnerability disclosure report (VDR), or its states (VEX)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid5

from workbench.core.plain import one_line

if TYPE_CHECKING:
    from workbench.risk.register import Assessment

__all__ = ["JUSTIFICATIONS", "to_cyclonedx"]

JUSTIFICATIONS: Final[Mapping[str, str]] = {
    "code_not_present": "vulnerable_code_not_present",
    "code_not_reachable": "vulnerable_code_not_in_execute_path",
    "requires_configuration": "",
    "requires_dependency": "",
    "requires_environment": "",
    "protected_by_compiler": "inline_mitigations_already_exist",
    "protected_at_runtime": "inline_mitigations_already_exist",
    "protected_at_perimeter": "inline_mitigations_already_exist",
    "protected_by_mitigating_control": "inline_mitigations_already_exist",
}
"""Why something is not affected: CycloneDX's word → OpenVEX's, empty where that has none."""

_FROM_OPENVEX: Final = {
    "component_not_present": "code_not_present",
    "vulnerable_code_not_present": "code_not_present",
    "vulnerable_code_not_in_execute_path": "code_not_reachable",
    "vulnerable_code_cannot_be_controlled_by_adversary": "code_not_reachable",
    "inline_mitigations_already_exist": "protected_by_mitigating_control",
}
_STATES: Final = {
    "affected": "exploitable", "under_investigation": "in_triage", "fixed": "resolved",
    "not_affected": "not_affected",
}  # fmt: skip
_METHODS: Final = {"CVSS:4.0/": "CVSSv4", "CVSS:3.1/": "CVSSv31", "CVSS:3.0/": "CVSSv3"}
_CVSS_FROM: Final = ((9.0, "critical"), (7.0, "high"), (4.0, "medium"), (0.1, "low"))
_SOURCES: Final = (
    ("CVE-", "CVE", "https://www.cve.org/CVERecord?id="),
    ("GHSA-", "GitHub Advisory Database", "https://github.com/advisories/"),
    ("LLM", "OWASP Top 10 for LLM Applications", ""),
    ("AML.", "MITRE ATLAS", ""),
    ("unmapped", "none: in no public list", ""),
    ("", "OSV", "https://osv.dev/vulnerability/"),
)
_EPSS: Final = {"name": "FIRST EPSS", "url": "https://www.first.org/epss/"}
_KEV: Final = {
    "name": "CISA KEV",
    "url": "https://www.cisa.gov/known-exploited-vulnerabilities-catalog",
}
_PROPERTIES: Final = (
    "status", "decision", "due", "owner", "first_seen", "score_known", "p_exploit",
    "annual_loss_usd", "kev", "kev_added", "ransomware", "epss", "exploitation", "automatable",
    "technical_impact", "exposure", "criticality", "missing", "stale", "techniques", "execution",
    "attempts", "successes", "source",
)  # fmt: skip
_TOOL: Final = "prompt-safety-workbench"


def to_cyclonedx(assessment: Assessment, *, states_only: bool = False) -> dict[str, Any]:
    """Return the JSON of a register; one vulnerability per risk, since states are per asset.

    Components stand inside their assets; a single asset is what the whole document is about.

    Args:
        assessment: From ``risk.register``.
        states_only: VEX: of each vulnerability no more than what is said of it, and no risks of
            models, which are no vulnerabilities of a product.

    Source:
        CycloneDX 1.6; ratings of EPSS and KEV as Grype writes them, with the method ``other``.
    """
    from workbench import __version__

    rows = assessment.table.to_pylist()
    if states_only:
        rows = [row for row in rows if row["kind"] == "cve"]
    name = f"{_TOOL}:{assessment.id}:{'vex' if states_only else 'vdr'}"
    tool = {"type": "application", "name": _TOOL, "version": __version__}
    assets = _assets(rows)
    root = {"component": assets[0]} if len(assets) == 1 else {}  # what the document is about
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid5(NAMESPACE_URL, name)}",
        "version": 1,
        "metadata": {
            "timestamp": f"{assessment.manifest['today']}T00:00:00Z",
            "tools": {"components": [tool]},
            **root,
            "properties": _named({"assessment": assessment.id, **_about(assessment.manifest)}),
        },
        "components": [] if root else assets,
        "vulnerabilities": [_vulnerability(row, states_only=states_only) for row in rows],
    }


def _about(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {name: manifest.get(name, "") for name in ("policy", "snapshot", "snapshot_made_at")}


def _assets(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return each asset with its components inside."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        inside = found.setdefault(row["asset"], {})
        if row["component"]:
            inside[_reference(row)] = _component(row)
    made = []
    for asset, inside in sorted(found.items()):
        one = {"type": "application", "bom-ref": _asset(asset), "name": one_line(asset) or "asset"}
        more = {"components": [inside[ref] for ref in sorted(inside)]} if inside else {}
        made.append({**one, **more})
    return made


def _component(row: Mapping[str, Any]) -> dict[str, Any]:
    from packageurl import PackageURL

    text = one_line(row["component"])
    made = {"type": "machine-learning-model" if row["kind"] == "model" else "library"}
    made["bom-ref"] = _reference(row)
    try:
        purl = PackageURL.from_string(text)
    except ValueError:  # a name, perhaps with a version
        name, _, version = text.partition(" ") if row["kind"] == "cve" else (text, "", "")
        return {**made, "name": name, **({"version": version} if version else {})}
    made |= {"group": purl.namespace} if purl.namespace else {}
    made |= {"name": purl.name, "purl": text}
    return made | ({"version": purl.version} if purl.version else {})


def _asset(asset: str) -> str:
    return f"asset:{quote(asset, safe='')}"


def _reference(row: Mapping[str, Any]) -> str:
    inside = f"#{quote(row['component'], safe='')}" if row["component"] else ""
    return _asset(row["asset"]) + inside


def _vulnerability(row: Mapping[str, Any], *, states_only: bool) -> dict[str, Any]:
    made: dict[str, Any] = {
        "bom-ref": f"risk:{row['id']}",
        "id": one_line(row["subject"]),
        "source": _source(one_line(row["subject"])),
    }
    if not states_only:
        made["ratings"] = list(_ratings(row))
        weak = [int(one[4:]) for one in row["weakness"] if _is_cwe(one)]
        told: dict[str, Any] = {
            "cwes": weak,
            "description": one_line(row["title"]),
            "detail": one_line(row["explanation"] or ""),
        }
        made |= {name: value for name, value in told.items() if value}
    if row["fixed_in"]:
        made["recommendation"] = f"Update to {one_line(row['fixed_in'])} or later."
    made["analysis"] = _analysis(row)
    made["affects"] = [{"ref": _reference(row)}]
    if not states_only:
        made["properties"] = _named({name: row[name] for name in _PROPERTIES})
    return made


def _source(subject: str) -> dict[str, str]:
    _, name, url = next(one for one in _SOURCES if subject.startswith(one[0]))
    return {"name": name, "url": url + quote(subject, safe="")} if url else {"name": name}


def _is_cwe(text: str) -> bool:
    number = text[4:]
    return text.startswith("CWE-") and number.isascii() and number.isdigit() and int(number) > 0


def _ratings(row: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    why = f"likelihood {row['likelihood']} × impact {row['impact']}, each 1 to 5"
    yield {
        "source": {"name": _TOOL}, "score": row["score"], "severity": row["level"],
        "method": "other", "justification": why,
    }  # fmt: skip
    if row["cvss"] is not None:
        severity = next((name for least, name in _CVSS_FROM if row["cvss"] >= least), "none")
        vector = one_line(row["cvss_vector"] or "")
        method = _METHODS.get(vector[:9], "CVSSv2" if vector else "other")
        rating = {"score": row["cvss"], "severity": severity, "method": method}
        yield rating | ({"vector": vector} if vector else {})
    if row["epss"] is not None:
        yield {"source": _EPSS, "score": row["epss"], "method": "other"}
    if row["kev"]:
        added = f"listed on {row['kev_added']}" if row["kev_added"] else "listed"
        yield {"source": _KEV, "method": "other", "justification": one_line(added)}


def _analysis(row: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {"state": _STATES[row["state"]]}
    reason = one_line(row["reason"])
    word = _FROM_OPENVEX.get(reason, reason)
    if row["state"] == "not_affected" and word in JUSTIFICATIONS:
        made["justification"] = word
    if row["status"] == "accepted":
        made["response"] = ["will_not_fix"]
    elif row["fixed_in"] and row["status"] == "open":
        made["response"] = ["update"]
    if reason and reason != made.get("justification"):
        made["detail"] = reason
    return made


def _named(values: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return what is known as properties; each of a list stands by itself."""
    pairs = (
        (name, one)
        for name, value in values.items()
        for one in (value if isinstance(value, list) else [value])
        if one is not None and one != ""
    )
    return [{"name": f"workbench:{name}", "value": _text(one)} for name, one in pairs]


def _text(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if text.isprintable() else one_line(text)
