"""Small valid documents of every format that intake reads, all about one shop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["DOCUMENTS", "LODASH", "cyclonedx", "openvex", "vulnerability", "written"]

LODASH = "pkg:npm/lodash@4.17.20"
REQUESTS = "pkg:pypi/requests@2.25.0"


def written(folder: Path, name: str, content: Any) -> Path:
    """Write a text, or a value as JSON, and return the file."""
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def cyclonedx(*purls: str, name: str = "shop", **more: Any) -> dict[str, Any]:
    """Return an SBOM of package URLs; bom-refs are r0, r1, ..."""
    components = [
        {"type": "library", "bom-ref": f"r{n}", "name": purl.partition("@")[0].rpartition("/")[2],
         "version": purl.rpartition("@")[2] if "@" in purl else "", "purl": purl}
        for n, purl in enumerate(purls)
    ]  # fmt: skip
    return {
        "bomFormat": "CycloneDX", "specVersion": "1.5", "components": components,
        "serialNumber": "urn:uuid:3e671687-395b-41f5-a30f-a58921a69b79",
        "metadata": {"component": {"bom-ref": "root", "name": name, "purl": f"pkg:oci/{name}@1"}},
        **more,
    }  # fmt: skip


def vulnerability(subject: str, *refs: str, state: str = "", **more: Any) -> dict[str, Any]:
    """Return an entry of CycloneDX's vulnerabilities."""
    analysis = {"analysis": {"state": state, "detail": "looked at"}} if state else {}
    return {"id": subject, "affects": [{"ref": ref} for ref in refs], **analysis, **more}


def openvex(*statements: tuple[str, str, str], **more: Any) -> dict[str, Any]:
    """Return an OpenVEX document of (vulnerability, product, status)."""
    return {
        "@context": "https://openvex.dev/ns/v0.2.0", "timestamp": "2025-01-01T00:00:00Z",
        "statements": [
            {"vulnerability": {"name": one}, "products": [{"@id": product}], "status": status,
             "justification": "vulnerable_code_not_present"}
            for one, product, status in statements
        ],
        **more,
    }  # fmt: skip


DOCUMENTS: dict[str, Any] = {
    "cyclonedx": cyclonedx(
        LODASH, REQUESTS,
        vulnerabilities=[
            vulnerability("CVE-2021-23337", "r0", state="not_affected"),
            vulnerability("GHSA-x84v-xcm2-53pg", "r1", references=[{"id": "CVE-2023-32681"}]),
        ],
    ),
    "spdx": {
        "spdxVersion": "SPDX-2.3", "name": "shop-sbom", "SPDXID": "SPDXRef-DOCUMENT",
        "documentDescribes": ["SPDXRef-shop"],
        "packages": [
            {"SPDXID": "SPDXRef-shop", "name": "shop", "versionInfo": "NOASSERTION"},
            {"SPDXID": "SPDXRef-1", "name": "lodash", "versionInfo": "4.17.20", "externalRefs": [
                {"referenceType": "purl", "referenceLocator": "pkg:npm/lodash@4.17.20"}]},
        ],
        "relationships": [],
    },
    "spdx3": {
        "@context": "https://spdx.org/rdf/3.0.1/spdx-context.jsonld",
        "@graph": [
            {"type": "SpdxDocument", "spdxId": "d", "name": "shop"},
            {"type": "software_Package", "spdxId": "p", "name": "lodash",
             "software_packageVersion": "4.17.20", "software_packageUrl": LODASH},
            {"type": "security_VexNotAffectedVulnAssessmentRelationship"},
        ],
    },
    "openvex": openvex(("CVE-2021-23337", LODASH, "not_affected")),
    "csaf": {
        "document": {"category": "csaf_vex"},
        "product_tree": {
            "branches": [{"category": "vendor", "name": "v", "branches": [
                {"product": {"product_id": "P", "name": "shop"}}]}],
            "full_product_names": [{"product_id": "C", "name": "lodash",
                                    "product_identification_helper": {"purl": LODASH}}],
            "relationships": [{"product_reference": "C", "relates_to_product_reference": "P",
                               "full_product_name": {"product_id": "P:C", "name": "both"}}],
        },
        "vulnerabilities": [{
            "cve": "CVE-2021-23337", "product_status": {"known_not_affected": ["P:C"]},
            "flags": [{"label": "vulnerable_code_not_present", "product_ids": ["P:C"]}],
        }],
    },
    "grype": {
        "source": {"type": "image", "target": {"userInput": "shop"}},
        "matches": [{
            "vulnerability": {"id": "GHSA-35jh-r3h4-6jhm", "fix": {"versions": ["4.17.21"]}},
            "relatedVulnerabilities": [{"id": "CVE-2021-23337"}],
            "artifact": {"name": "lodash", "version": "4.17.20", "purl": LODASH},
        }],
        "ignoredMatches": [{
            "vulnerability": {"id": "CVE-2020-8203"}, "artifact": {"purl": LODASH},
            "appliedIgnoreRules": [{"namespace": "vex", "vex-status": "fixed"}],
        }],
    },
    "trivy": {
        "SchemaVersion": 2, "ArtifactName": "shop",
        "Results": [{"Target": "package-lock.json", "Vulnerabilities": [{
            "VulnerabilityID": "CVE-2021-23337", "PkgName": "lodash", "Status": "fixed",
            "InstalledVersion": "4.17.20", "FixedVersion": "4.17.21",
            "PkgIdentifier": {"PURL": LODASH}}]}],
    },
    "list": ["CVE-2021-44228", "cve-2021-45046"],
    "lines": "# ours\nCVE-2021-44228\nCVE-2021-45046, CVE-2021-45105\n",
    "table": "cve,asset,component,state,fixed_in\nCVE-2021-23337,shop,lodash 4.17.20,,4.17.21\n",
    "inventory": "id,name,criticality,exposure,incident_usd\nsrv-1,shop,high,open,250000\n",
}  # fmt: skip
"""Format → document; whatever names an asset calls it shop."""
