"""Findings as SARIF 2.1.0, for code scanning and trackers. Texts of attacks stay out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workbench.campaign.plugins.catalog import PLUGINS, TAXONOMY
from workbench.core.identity import text_id
from workbench.core.redact import redact
from workbench.store.records import Finding

__all__ = ["SCHEMA", "sarif"]

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"

_LEVELS: Mapping[str, str] = {
    "critical": "error", "high": "error", "medium": "warning", "low": "note"
}  # fmt: skip
_SECURITY: Mapping[str, str] = {"critical": "9.5", "high": "8.0", "medium": "5.5", "low": "2.0"}
"""Scores that land in the bands which code scanning names alike."""
_OWASP, _ATLAS = "OWASP Top 10 for LLM Applications", "MITRE ATLAS"
_MESSAGE_CHARS = 1000
_MARKUP = str.maketrans({"{": "{{", "}": "}}", "[": "\\[", "]": "\\]"})
"""Placeholders and links of SARIF messages, as plain characters."""


def sarif(findings: Sequence[Finding], *, tool_version: str) -> dict[str, Any]:
    """Return the findings as one SARIF run, a rule per plugin; JSON values only.

    Findings that reviewers called false are suppressed, so that no scanner opens them again.

    Source:
        OASIS, Static Analysis Results Interchange Format 2.1.0, 3.11 (messages), 3.27 (results),
        3.33 (logical locations), 3.35 (suppressions), 3.49 (rules).
    """
    plugins = sorted({one.plugin for one in findings})
    rules = [_rule(name, findings) for name in plugins]
    used = sorted({one for name in plugins for one in _taxonomy(name)})
    driver = {"name": "workbench", "version": tool_version, "rules": rules}
    run: dict[str, Any] = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_result(one, at=plugins.index(one.plugin)) for one in findings],
    }
    if used:
        driver["supportedTaxonomies"] = [{"name": name} for name, _ in _standards(used)]
        run["taxonomies"] = [component for _, component in _standards(used)]
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(plugin: str, findings: Sequence[Finding]) -> dict[str, Any]:
    mine = [one for one in findings if one.plugin == plugin]
    worst = max((one.severity for one in mine), key=lambda name: float(_SECURITY[name]))
    taxonomy = _taxonomy(plugin)
    rule: dict[str, Any] = {
        "id": plugin,
        "shortDescription": {"text": _escaped(f"{plugin}: an attack got through")},
        "defaultConfiguration": {"level": _LEVELS[worst]},
        "properties": {
            "tags": ["security", "llm", *taxonomy, *sorted({one.category for one in mine})],
            "security-severity": _SECURITY[worst],
        },
    }
    if taxonomy:
        rule["relationships"] = [
            {
                "target": {"id": one, "toolComponent": {"name": _standard(one)}},
                "kinds": ["relevant"],
            }
            for one in taxonomy
        ]
    return rule


def _result(finding: Finding, *, at: int) -> dict[str, Any]:
    place = [finding.target, finding.plugin, finding.strategy, finding.case_id]
    result: dict[str, Any] = {
        "ruleId": finding.plugin,
        "ruleIndex": at,
        "kind": "fail",
        "level": _LEVELS[finding.severity],
        "message": {"text": _message(finding)},
        "locations": [
            {
                "logicalLocations": [
                    {
                        "name": finding.target,
                        "fullyQualifiedName": "/".join(place),
                        "kind": "resource",
                    }
                ]
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


def _message(finding: Finding) -> str:
    told = (
        f"{finding.target} let through an attack of {finding.plugin} in the form"
        f" {finding.strategy}."
    )
    summary = redact(finding.summary).strip()
    return _escaped(f"{told} {summary}".strip())


def _escaped(text: str) -> str:
    whole = "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
    cut = whole if len(whole) <= _MESSAGE_CHARS else f"{whole[: _MESSAGE_CHARS - 1]}…"
    return cut.translate(_MARKUP)


def _taxonomy(plugin: str) -> tuple[str, ...]:
    known = dict(PLUGINS)
    return known[plugin].taxonomy if plugin in known else ()


def _standard(taxon: str) -> str:
    return _ATLAS if taxon.startswith("AML.") else _OWASP


def _standards(used: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """Return the name and the component of each standard that has some of the ids."""
    names = sorted({_standard(one) for one in used})
    return [
        (
            name,
            {
                "name": name,
                "taxa": [
                    {"id": one, "shortDescription": {"text": TAXONOMY.get(one, one)}}
                    for one in used
                    if _standard(one) == name
                ],
            },
        )
        for name in names
    ]
