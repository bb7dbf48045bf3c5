"""Findings as SARIF 2.1.0, for code scanning and trackers. Texts of attacks stay out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from workbench.campaign.plugins.catalog import PLUGINS
from workbench.core.identity import text_id
from workbench.core.plain import one_line
from workbench.store.records import Finding

__all__ = ["SCHEMA", "sarif"]

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"

_LEVELS: Mapping[str, str] = {
    "critical": "error", "high": "error", "medium": "warning", "low": "note"
}  # fmt: skip
_SECURITY: Mapping[str, str] = {"critical": "9.5", "high": "8.0", "medium": "5.5", "low": "2.0"}
"""Scores that land in the bands which code scanning names alike."""
_NAME_CHARS = 200
_MARKUP = str.maketrans({"\\": "\\\\", "{": "{{", "}": "}}", "[": "\\[", "]": "\\]"})
"""Placeholders and links of SARIF messages, as plain characters; what escapes them as well."""


def sarif(findings: Sequence[Finding], *, tool_version: str) -> dict[str, Any]:
    """Return the findings as one SARIF run, a rule per plugin; JSON values only.

    Those that reviewers called fixed are left out, which closes them; those called false are
    suppressed, so that no scanner opens them again. Nothing that was sent or received is quoted,
    also not by way of summaries.

    Source:
        OASIS, Static Analysis Results Interchange Format 2.1.0, 3.11 (messages), 3.27 (results),
        3.28 (locations), 3.35 (suppressions), 3.49 (rules). GitHub, "SARIF support for code
        scanning": every result needs a physical location.
    """
    left = [one for one in findings if one.status != "fixed"]
    plugins = sorted({one.plugin for one in left})
    rules = [_rule(name, left) for name in plugins]
    run = {
        "tool": {"driver": {"name": "workbench", "version": tool_version, "rules": rules}},
        "columnKind": "unicodeCodePoints",
        "results": [_result(one, at=plugins.index(one.plugin)) for one in left],
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(plugin: str, findings: Sequence[Finding]) -> dict[str, Any]:
    mine = [one for one in findings if one.plugin == plugin]
    worst = max((one.severity for one in mine), key=lambda name: float(_SECURITY[name]))
    known = dict(PLUGINS)
    taxonomy = known[plugin].taxonomy if plugin in known else ()
    return {
        "id": plugin,
        "shortDescription": {"text": f"{_plain(plugin)}: an attack got through"},
        "defaultConfiguration": {"level": _LEVELS[worst]},
        "properties": {
            "tags": ["security", "llm", *taxonomy, *sorted({one.category for one in mine})],
            "security-severity": _SECURITY[worst],
        },
    }


def _result(finding: Finding, *, at: int) -> dict[str, Any]:
    place = [finding.target, finding.plugin, finding.strategy, finding.case_id]
    result: dict[str, Any] = {
        "ruleId": finding.plugin,
        "ruleIndex": at,
        "kind": "fail",
        "level": _LEVELS[finding.severity],
        "message": {
            "text": f"{_plain(finding.target)} let through an attack of {_plain(finding.plugin)} in"
            f" the form {_plain(finding.strategy)}."
        },
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": f"campaign/{quote(finding.test_set, safe='')}"},
                    "region": {"startLine": 1},
                },
                "logicalLocations": [
                    {
                        "name": finding.target,
                        "fullyQualifiedName": "/".join(place),
                        "kind": "resource",
                    }
                ],
            }
        ],
        "fingerprints": {"workbench/finding/v1": finding.id},
        # Of another execution too: the same case against the same target.
        "partialFingerprints": {
            "workbench/case/v1": text_id(finding.target, finding.case_id),
            "workbench/cluster/v1": finding.cluster or finding.id,
        },
        "rank": round(100 * min(max(finding.risk, 0.0), 1.0), 2),
        "properties": {
            "execution": finding.execution,
            "testSet": finding.test_set,
            "category": finding.category,
            "severity": finding.severity,
            "score": finding.score,
            "label": finding.suggested_label,
            "status": finding.status,
        },
    }
    if finding.status == "false_positive":
        result["suppressions"] = [{"kind": "external", "status": "accepted"}]
    return result


def _plain(text: str) -> str:
    return one_line(text)[:_NAME_CHARS].translate(_MARKUP)
