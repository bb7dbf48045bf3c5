"""What an assessment rests on: evidence and its age, assumed losses, files, time and money."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.report.blocks import Block, Fact, Figure, Text
from workbench.report.figures import bars, spans, stacked
from workbench.report.tables import (
    Cell,
    Heads,
    counted,
    dollars,
    duration,
    number,
    percent,
    records,
    short,
    table,
    words,
)

__all__ = ["cost", "files", "freshness", "loss", "unchecked"]

_KINDS = {
    "cvss": "severity (CVSS)",
    "kev": "known to be exploited (KEV)",
    "epss": "chance of exploitation (EPSS)",
    "exploitation": "exploitation (SSVC)",
    "automatable": "automatable (SSVC)",
    "technical_impact": "technical impact (SSVC)",
    "weakness": "weakness (CWE)",
    "techniques": "techniques (ATT&CK)",
}
_STATES = {"checked": "blue", "stale": "orange", "missing": "gray"}
_MOST_ROWS = 20
_LONG = 12
_COUNTS = ("usd", "calls", "hits")


def _total(row: Mapping[str, Any]) -> int:
    return int(row["checked"] + row["missing"] + row["stale"])


def _kind(row: Mapping[str, Any]) -> str:
    return _KINDS.get(row["kind"], words(row["kind"]))


def _group(row: Mapping[str, Any]) -> str:
    return "everything" if row["group"] == "all" else str(row["group"])


def _status(row: Mapping[str, Any]) -> Cell:
    if row["status"] == "stale":
        return f"stale: {counted(row['age_days'], 'day')} old"
    return words(row["status"])


_AGES: Heads = {
    "Source": lambda row: row["name"],
    "Status": _status,
    "As of": lambda row: row["as_of"][:10] or "–",
    "Age | days": lambda row: number(row["age_days"]) if row["as_of"] else "–",
    "Rows": lambda row: number(row["rows"]),
    "Why it failed": lambda row: row["error"] or "–",
}
_KIND_ROWS: Heads = {
    "Evidence": _kind,
    "Checked": lambda row: number(row["checked"]),
    "Stale": lambda row: number(row["stale"]),
    "Missing": lambda row: number(row["missing"]),
    "Oldest": lambda row: row["oldest"][:10] or "–",
    "Newest": lambda row: row["newest"][:10] or "–",
}
_LOSSES: Heads = {
    "Asset": lambda row: row["group"],
    "Expected": lambda row: dollars(row["expected"]),
    "5 %": lambda row: dollars(row["p05"]),
    "Median": lambda row: dollars(row["p50"]),
    "95 %": lambda row: dollars(row["p95"]),
    "99 %": lambda row: dollars(row["p99"]),
}


def unchecked(found: Mapping[str, Any]) -> list[Fact]:
    """Return the share of the evidence that nobody could give."""
    rows = [row for row in found["freshness"] if _total(row)]
    if not rows:
        return []
    missing = sum(row["missing"] for row in rows)
    most = max(rows, key=lambda row: row["missing"] / _total(row))
    note = "everything was checked"
    if missing:
        note = f"of all evidence is missing; most often {_kind(most)}"
    return [Fact("Not checked", percent(missing / sum(map(_total, rows))), note)]


def freshness(found: Mapping[str, Any], footer: str) -> list[Block]:
    """Return what was checked, missing or stale, and how old each source is."""
    rows = [row for row in found["freshness"] if _total(row)]
    age = counted(found["snapshot_age_days"], "day")
    told = f"Everything comes from snapshot {short(found['snapshot'])}, made "
    told += f"{found['snapshot_made_at'][:10]}, {age} before this assessment; no source was asked "
    told += "while it ran."
    late = [row for row in found["sources"] if row["status"] == "stale"]
    if late:
        ages = (f"{row['name']} ({counted(row['age_days'], 'day')} old)" for row in late)
        told += f" Stale, counted as last known: {', '.join(ages)}."
    if gone := [row["name"] for row in found["sources"] if row["status"] == "missing"]:
        told += f" Missing: {', '.join(gone)}."
    blocks: list[Block] = [Text(told)]
    if rows:
        least = min(rows, key=lambda row: row["checked"] / _total(row))
        drawn = {_kind(row): {name: row[name] / _total(row) for name in _STATES} for row in rows}
        some = number(max(map(_total, rows)))
        blocks.append(
            Figure(
                name="freshness",
                title=f"Least is known of {_kind(least)}: "
                f"{percent(least['checked'] / _total(least))} checked",
                spec=stacked(drawn, colors=list(_STATES.values())),
                summary=f"Share of the {some} vulnerabilities of which each was checked, is stale "
                "(counted as last known), or is missing. Missing never means low.",
                footer=footer,
                keys=tuple(_STATES.items()),
                numbers=table("Evidence by kind", _KIND_ROWS, rows),
            )
        )
    return [*blocks, table("Sources in the snapshot", _AGES, found["sources"])]


def loss(found: Mapping[str, Any], footer: str) -> list[Block]:
    """Return what a year may cost, per asset, and what that assumes."""
    rows = found["loss"]
    if not rows:
        return []
    ordered = sorted(rows, key=lambda row: (row["group"] != "all", -row["expected"]))
    drawn = ordered[:_MOST_ROWS]
    left = f" Drawn are {len(drawn)} of {len(rows)}; the numbers have all."
    figure = Figure(
        name="loss",
        title=f"One year in twenty costs {dollars(ordered[0]['p95'])} or more",
        spec=spans(
            {
                _group(row): {"value": row["p50"], "low": row["p05"], "high": row["p95"]}
                for row in drawn
            },
            means=[row["expected"] for row in drawn],
        ),
        summary="Dot: half of the years cost less; line: 90 of 100 years; diamond: mean over all "
        f"years. The axis is logarithmic.{left * (len(rows) > len(drawn))}",
        footer=footer,
        keys=(("median, 5 to 95 % of years", "blue"), ("mean ◇", "vermillion")),
        numbers=table("Loss per year", _LOSSES, ordered),
    )
    note = Text("Simulated on the assumptions below, not measured.", is_note=True)
    assumed = [(words(name), value) for name, value in found["loss_assumptions"].items()]
    return [note, figure, table("What the losses rest on", ["Assumption", "Value"], assumed)]


def files(found: Mapping[str, Any]) -> list[Block]:
    """Return the files that were read, and what was left out of them."""
    some, problems = found["counts"], found["problems"]
    told = f"{counted(len(found['files']), 'file')}, {counted(some['components'], 'component')} on "
    told += f"{counted(some['assets'], 'asset')}."
    blocks: list[Block] = [Text(told)]
    if found["files"]:
        rows = [
            {words(name).capitalize(): one for name, one in row.items()} for row in found["files"]
        ]
        blocks.append(records("Files", rows))
    if problems:
        shown = table("What was left out, and why", ["Problem"], [[one] for one in problems])
        blocks.append(shown.folded() if len(problems) > _LONG else shown)
    return blocks


def cost(found: Mapping[str, Any], footer: str) -> list[Block]:
    """Return the time of each stage, and what models took."""
    spent = found["cost"]
    stages = {
        words(name.removesuffix("_s")): float(one)
        for name, one in spent.items()
        if name not in _COUNTS
    }
    calls, hits = (round(spent.get(name, 0)) for name in ("calls", "hits"))
    told = f"{counted(calls, 'model call')}, {number(hits)} answered from the cache: "
    told += f"{dollars(spent.get('usd', 0))}."
    if not calls and not hits:
        told = "No model was asked: $0.00."
    blocks: list[Block] = [Text(told)]
    total = sum(stages.values())
    if total:
        longest = max(stages, key=lambda name: stages[name])
        heads: Heads = {
            "Stage": lambda item: str(item[0]),
            "Time": lambda item: duration(item[1]),
            "Share": lambda item: percent(item[1] / total),
        }
        blocks.append(
            Figure(
                name="stages",
                title=f"{duration(total)} in all, most of it to {longest}",
                spec=bars(stages, show=duration),
                summary="Seconds of each stage, by the clock.",
                footer=footer,
                numbers=table("Time by stage", heads, [*stages.items()]),
            )
        )
    return blocks
