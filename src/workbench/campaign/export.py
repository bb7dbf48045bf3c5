"""Findings for other programs: spreadsheets, issue trackers, scanners.

What was sent and received is hostile. In a spreadsheet no cell begins as a formula; in Markdown the
fence is longer than any run of backticks inside; Jira gets a document tree, in which text is text.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, Final, Literal, TypeAlias, get_args

from workbench.core.errors import ConfigError
from workbench.core.fields import suggest
from workbench.core.plain import CONTROLS, cell, one_line, storable
from workbench.store.records import Finding

__all__ = ["FORMATS", "Format", "export", "github_issue", "jira_issue", "to_csv"]

Format: TypeAlias = Literal["csv", "json", "github", "jira", "sarif"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)

_TITLE_CHARS = 200
_TEXT_CHARS = 8_000
"""Of each text in an issue: GitHub takes 65,536 characters, Jira 32,767."""
_LABEL_CHARS = 50
_PRIORITIES = {"critical": "Highest", "high": "High", "medium": "Medium", "low": "Low"}
_LINE_END = re.compile(r"\r\n?|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")


def export(
    findings: Sequence[Finding], form: str, *, alike: Mapping[str, int] | None = None,
    project: str = "",
) -> str:  # fmt: skip
    """Return findings as the text of a file.

    Args:
        findings: In the order in which they are to stand.
        form: One of :data:`FORMATS`; ``github`` and ``jira`` are JSON lists of what their services
            take to create an issue.
        alike: Cluster → findings in it, told in issues.
        project: Key of the Jira project.

    Raises:
        ConfigError: If there is no such format, or no project for ``jira``.
    """
    alike = alike or {}
    if form == "csv":
        return to_csv(findings)
    if form == "jira" and not project:
        raise ConfigError("format jira needs the key of a project, e.g. --project SEC")
    made: Any
    if form == "json":
        made = [asdict(one) for one in findings]
    elif form == "github":
        made = [github_issue(one, alike=alike.get(one.cluster, 1)) for one in findings]
    elif form == "jira":
        made = [
            jira_issue(one, project=project, alike=alike.get(one.cluster, 1)) for one in findings
        ]
    elif form == "sarif":
        made = _sarif(findings)
    else:
        raise ConfigError(f"format {form!r}; {suggest(form, FORMATS)}")
    return json.dumps(made, indent=1) + "\n"  # ASCII: lone surrogates have no UTF-8


def to_csv(findings: Sequence[Finding]) -> str:
    """Return findings as CSV with a header; no cell begins as a formula or commands a terminal."""
    names = [one.name for one in fields(Finding)]
    out = io.StringIO()
    rows = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    rows.writerow(names)
    rows.writerows([cell(storable(str(getattr(one, name)))) for name in names] for one in findings)
    return out.getvalue()


def github_issue(finding: Finding, *, alike: int = 1) -> dict[str, Any]:
    """Return what GitHub's REST API takes to create an issue: title, body and labels."""
    facts = "\n".join(f"- {name}: {_code(value)}" for name, value in _facts(finding, alike))
    texts = "\n\n".join(f"**{name}**\n\n{_fenced(text)}" for name, text in _texts(finding))
    return {"title": _title(finding), "body": f"{facts}\n\n{texts}\n", "labels": _labels(finding)}


def jira_issue(finding: Finding, *, project: str, alike: int = 1) -> dict[str, Any]:
    """Return what Jira's REST API, version 3, takes to create an issue.

    Source:
        Atlassian Document Format, version 1.
    """
    facts = [_paragraph(f"{name}: {value}") for name, value in _facts(finding, alike)]
    texts = [
        node
        for name, text in _texts(finding)
        for node in (_paragraph(name), {"type": "codeBlock", "content": _text_node(text)})
    ]
    return {
        "fields": {
            "project": {"key": project},
            "issuetype": {"name": "Bug"},
            "summary": _title(finding),
            "description": {"type": "doc", "version": 1, "content": [*facts, *texts]},
            "priority": {"name": _PRIORITIES.get(finding.severity, "Medium")},
            "labels": [re.sub(r"\s", "-", label) for label in _labels(finding)],
        }
    }


def _sarif(findings: Sequence[Finding]) -> dict[str, Any]:
    from workbench import __version__
    from workbench.campaign.sarif import sarif

    found: dict[str, Any] = sarif(findings, tool_version=__version__)
    return found


def _title(finding: Finding) -> str:
    what = f"{finding.plugin} via {finding.strategy} on {finding.target}"
    return one_line(f"[{finding.severity}] {what}")[:_TITLE_CHARS]


def _facts(finding: Finding, alike: int) -> list[tuple[str, str]]:
    told = {
        "finding": finding.id, "execution": finding.execution, "test set": finding.test_set,
        "test case": finding.case_id, "target": finding.target, "plugin": finding.plugin,
        "strategy": finding.strategy, "category": finding.category, "severity": finding.severity,
        "risk": f"{finding.risk:.2f}", "score": f"{finding.score:.2f}", "state": finding.status,
        "alike": str(alike),
    }  # fmt: skip
    return [(name, one_line(value)) for name, value in told.items()]


def _texts(finding: Finding) -> list[tuple[str, str]]:
    told = (("Summary", finding.summary), ("Sent", finding.sent), ("Received", finding.received))
    return [(name, _shown(text)) for name, text in told if text.strip()]


def _shown(text: str) -> str:
    """Return a text whose lines end as Markdown's do, without control characters, cut."""
    text = _LINE_END.sub("\n", text[: _TEXT_CHARS + 1]).translate(CONTROLS)
    return text if len(text) <= _TEXT_CHARS else f"{text[:_TEXT_CHARS]}\n[…]"


def _fenced(text: str) -> str:
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def _code(text: str) -> str:
    ticks = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{ticks} {text} {ticks}"


def _labels(finding: Finding) -> list[str]:
    told = (f"severity:{finding.severity}", f"category:{finding.category}")
    return ["red-team", *(one_line(label)[:_LABEL_CHARS] for label in told)]


def _paragraph(text: str) -> dict[str, Any]:
    return {"type": "paragraph", "content": _text_node(text)}


def _text_node(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}] if text else []  # Jira refuses empty text nodes
