"""Risk: what to fix first, why, by when, and what that rests on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.report.blocks import Block, Fact, Facts, Finding, Grid, GridCell, Page, Section, Text
from workbench.report.evidence import Evidence
from workbench.report.pages import risk_due, risk_evidence, risk_register
from workbench.report.pages.risk_register import LEVELS, due, is_open
from workbench.report.tables import counted, dollars, number, short

__all__ = ["LEAST_SCORES", "page"]

LEAST_SCORES: Mapping[str, int] = {"critical": 20, "high": 12, "medium": 5, "low": 1}
"""Level → the least score that is of it, worst first."""
_CHANCES = ("< 0.1 %", "0.1–1 %", "1–10 %", "10–50 %", "≥ 50 %")
_IMPACTS = ("hardly noticed", "minor", "moderate", "serious", "mission fails")
_MATRIX = (
    "Open risks by likelihood and impact; the number is how many, the word below it the level of "
    "their score, likelihood × impact. Likelihood is the chance of being exploited within 30 days; "
    "what is known to be exploited is always 5. What nobody could check is taken at its worst."
)
_ASKED = "What was read, and what was known when it was checked, is below."
_MOST_PARAGRAPHS, _MOST_CHARACTERS = 12, 1500


def page(evidence: Evidence) -> Page | None:
    """Return the page of the risk assessment, or None where none was made."""
    found = evidence.last("assessment")
    if found is None:
        return None
    footer = _footer(found)
    return Page(
        name="risk",
        finding=_finding(found),
        facts=_facts(found)[:1] + _facts(found)[3:4],
        sections=[
            Section("", [Facts(tuple(_facts(found))), *_narrative(found)]),
            Section("How likely, and how bad", _matrix(found, footer)),
            Section("Worst first", risk_register.worst(found)),
            Section("What is due when", risk_due.due_dates(found, footer)),
            Section("What changed", risk_register.changes(found)),
            Section("The register", risk_register.register(found)),
            Section("Closed, and why", risk_register.closed(found)),
            Section("What a year may cost", risk_evidence.loss(found, footer)),
            Section("What the evidence is, and how old", risk_evidence.freshness(found, footer)),
            Section("What was read", risk_evidence.files(found)),
            Section("What the assessment took", risk_evidence.cost(found, footer)),
        ],
    )


def _footer(found: Mapping[str, Any]) -> str:
    commit = found.get("stamp", {}).get("commit")
    parts = [f"assessment {short(found['assessment'])}", f"snapshot {short(found['snapshot'])}"]
    parts += [f"policy {found['policy']}", f"as of {found['today']}"]
    return " · ".join([*parts, *[f"commit {short(str(commit))}"] * bool(commit)])


def _finding(found: Mapping[str, Any]) -> Finding:
    """Return what is worst, and out of how much."""
    some, levels = found["counts"], found["counts"]["by_level"]
    claim = "No open risk"
    if worst := next((level for level in LEVELS if levels.get(level)), None):
        late = number(some["overdue"]) if some["overdue"] else "none"
        claim = f"{counted(levels[worst], f'{worst} risk')}, {late} overdue"
        if worst != LEVELS[0]:
            claim = f"No critical risk, {number(levels[worst])} {worst}, {late} overdue"
        if first := next((row for row in found["top"] if is_open(row)), None):
            claim += f"; worst: {first['subject']} on {first['asset']}, due {due(first, found)}"
    elif some["risks"]:
        claim += f": all {number(some['risks'])} are closed"
    else:
        return Finding(f"{claim}: nothing that was read is known to be vulnerable", _ASKED)
    is_one = some["cves"] == 1
    proof = (
        f"{number(some['open'])} of {counted(some['risks'], 'risk')} "
        f"{'is' if some['open'] == 1 else 'are'} open; assessed were {number(some['cves'])} "
        f"vulnerabilit{'y' if is_one else 'ies'} and {counted(some['model_risks'], 'model risk')} "
        f"on {counted(some['assets'], 'asset')}. Rules rate them, not a model; what nobody could "
        "check is taken at its worst."
    )
    return Finding(claim, proof)


def _facts(found: Mapping[str, Any]) -> list[Fact]:
    some, levels = found["counts"], found["counts"]["by_level"]
    told = " · ".join(f"{number(levels.get(level, 0))} {level}" for level in LEVELS)
    made = [
        Fact("Open risks", number(some["open"]), told),
        Fact(
            "Overdue", number(some["overdue"]), f"{number(some['due_7_days'])} more due in 7 days"
        ),
        Fact("Known to be exploited", number(some["kev"]), "open risks whose CVE is in CISA's KEV"),
    ]
    whole = next((row for row in found["loss"] if row["group"] == "all"), None)
    if whole:
        note = f"in the worst of 20 years {dollars(whole['p95'])} or more, half of all years "
        note += f"{dollars(whole['p50'])} or less; drawn on assumptions"
        made.append(Fact("Expected loss per year", dollars(whole["expected"]), note))
    sources = [row["status"] for row in found["sources"]]
    note = f"of {found['snapshot_made_at'][:10]}; of {counted(len(sources), 'source')} "
    note += (
        f"{sources.count('stale') or 'none'} stale, {sources.count('missing') or 'none'} missing"
    )
    made.append(Fact("Age of the snapshot", counted(found["snapshot_age_days"], "day"), note))
    return [*made, *risk_evidence.unchecked(found)]


def _narrative(found: Mapping[str, Any]) -> list[Text]:
    parts = [one.strip() for one in found["narrative"].split("\n\n") if one.strip()]
    told = [Text(one[:_MOST_CHARACTERS]) for one in parts[:_MOST_PARAGRAPHS]]
    by = found["narrated_by"]
    return [*told, Text(f"Told by {'rules, no model' if by == 'rules' else by}.")] if told else []


def _level(likelihood: int, impact: int) -> str:
    score = likelihood * impact
    return next(level for level, least in LEAST_SCORES.items() if score >= least)


def _matrix(found: Mapping[str, Any], footer: str) -> list[Block]:
    if not found["counts"]["open"]:
        return []
    rows = []
    for likelihood in range(5, 0, -1):
        cells = []
        for impact, many in enumerate(found["matrix"][likelihood - 1], start=1):
            level = _level(likelihood, impact)
            said = f"{counted(many, f'{level} risk')}: likelihood {likelihood}, impact {impact}"
            cells.append(GridCell(number(many), said, level, note=level))
        rows.append((str(likelihood), _CHANCES[likelihood - 1], tuple(cells)))
    levels = found["counts"]["by_level"]
    grave = levels.get("critical", 0) + levels.get("high", 0)
    grid = Grid(
        name="matrix",
        title=f"{number(grave)} of {counted(found['counts']['open'], 'open risk')} "
        f"{'is' if grave == 1 else 'are'} critical or high",
        summary=_MATRIX,
        corner="likelihood ↓ impact →",
        columns=tuple((str(at), name) for at, name in enumerate(_IMPACTS, start=1)),
        rows=tuple(rows),
        footer=footer,
    )
    return [grid]
