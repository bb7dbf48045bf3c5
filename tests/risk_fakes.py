"""Risks of an assessment as tests need them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from workbench.core.identity import text_id
from workbench.risk.register import RISKS, Assessment, as_risks

__all__ = ["HOSTILE", "make_assessment", "make_risk", "make_risks"]

HOSTILE = "=1+1\x00 \x1b[31m<script>\u202e'\"\r\n@x, ﹦ \ufffe 中"
"""A title that is a formula, a terminal's command, a tag, and no XML."""


def make_risk(number: int = 1, **changes: Any) -> dict[str, Any]:
    """Return a row with every column of ``RISKS``; different numbers are different risks."""
    row = {
        "id": text_id(str(number)), "kind": "cve", "subject": f"CVE-2024-{number:05}",
        "title": f"Title {number}", "asset": "shop", "component": f"pkg:npm/%40x/part{number}@1.2",
        "state": "affected", "level": "high", "score": 15, "score_known": 12, "likelihood": 3,
        "impact": 5, "likelihood_known": 3, "impact_known": 4, "p_exploit": 0.05,
        "annual_loss_usd": 1_000.5, "decision": "14_days", "decision_known": "14_days",
        "due": "2026-01-15", "owner": "", "status": "open", "first_seen": "2026-01-01",
        "reason": "", "source": "sbom.json (CycloneDX)", "told_by": "list", "fixed_in": "1.3",
        "missing": ["kev"],
        "stale": [], "weakness": ["CWE-79"], "techniques": [], "criticality": 4, "cvss": 9.8,
        "epss": 0.05, "kev": None, "ransomware": None, "exposure": "open",
        "cvss_vector": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", "kev_added": None,
        "exploitation": "poc", "automatable": "yes", "technical_impact": "total",
        "execution": None, "explanation": None, "explained_by": None, "attempts": None,
        "successes": None, "reasons": None,
    }  # fmt: skip
    assert row.keys() == set(RISKS.names)
    assert changes.keys() <= row.keys()
    return row | changes


def make_risks(*rows: dict[str, Any]) -> pa.Table:
    """Return rows as a table of risks."""
    return as_risks(pa.Table.from_pylist(list(rows), schema=RISKS))


def make_assessment(*rows: dict[str, Any], **manifest: Any) -> Assessment:
    """Return an assessment of the first of January 2026."""
    about = {
        "today": "2026-01-01", "policy": "bod-26-04", "snapshot": "5" * 64,
        "snapshot_made_at": "2025-12-30T10:00:00Z", "snapshot_age_days": 2,
        "sources": [{"name": "nvd", "status": "missing", "error": "403"}],
        "problems": ["sbom.json: component 3 has no version"],
    }  # fmt: skip
    return Assessment(id="a" * 64, table=make_risks(*rows), manifest={**about, **manifest})
