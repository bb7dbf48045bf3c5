"""Model calls, on the page of costs: what was asked, billed and saved, and what was expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workbench.report.blocks import Block, Figure, Section, Text
from workbench.report.evidence import Evidence
from workbench.report.figures import Beside, beside
from workbench.report.tables import (
    Heads,
    Number,
    dollars,
    number,
    percent,
    short,
    size,
    table,
    words,
)
from workbench.store.results import Interval

__all__ = ["sections"]

_NONE = "No model was asked: all of it was computed on this machine."
_CALLS: Heads = {
    "Calls": lambda row: number(row["calls"]),
    "Lost": lambda row: number(row["lost"]),
    "In | tokens": lambda row: number(row["input_tokens"]),
    "Cached | tokens": lambda row: number(row["cached_tokens"]),
    "Out | tokens": lambda row: number(row["output_tokens"]),
    "Billed | US$": lambda row: dollars(row["usd"]),
    "Saved | US$": lambda row: dollars(row["saved_usd"]),
    "At hand | share": lambda row: percent(row["hit_share"]),
    "Sent": lambda row: size(row["bytes_sent"]),
    "Received": lambda row: size(row["bytes_received"]),
}
_MEASURES = (
    ("dollars", "Dollars", "usd_alone_reduction", "claimed_usd"),
    ("latency", "Time", "latency_reduction", "claimed_latency"),
)


def sections(evidence: Evidence, cost: Mapping[str, Any]) -> list[Section]:
    """Return what there is to say about model calls, empty sections left for the page to drop."""
    return [
        Section("Model calls", _calls(cost.get("calls"))),
        Section("Estimated against spent", _estimates(evidence, cost)),
        Section("What each saving saves", _ablation(evidence)),
    ]


def _calls(calls: Mapping[str, Any] | None) -> list[Block]:
    if calls is None or not any(calls["total"][key] for key in ("calls", "hits", "rules")):
        return [Text(_NONE)]
    total = calls["total"]
    said = f"{number(total['calls'])} calls were billed {dollars(total['usd'])}. "
    said += f"{number(total['hits'])} answers were at hand and cost nothing; they had cost "
    said += f"{dollars(total['saved_usd'])} when they were bought. "
    if total["rules"]:
        said += f"{number(total['rules'])} requests were answered by a rule, without a model. "
    if total["lost"]:
        said += f"The answers to {number(total['lost'])} calls never came; those are billed at "
        said += "their worst case, an estimate. "
    if misses := total["misses"]:
        reasons = ", ".join(f"{words(name)} {number(count)}" for name, count in misses.items())
        said += f"Why calls were not at hand: {reasons}."
    views = {**calls, "by_phase": [*calls["by_phase"], total]}
    tables = [
        table(f"Model calls by {head}", {head.capitalize(): _group, **_CALLS}, views[f"by_{head}"])
        for head in ("phase", "model", "task")
    ]
    return [Text(said.strip()), *tables]


def _group(row: Mapping[str, Any]) -> str:
    return words(row["group"])


def _estimates(evidence: Evidence, cost: Mapping[str, Any]) -> list[Block]:
    rows = [
        {**row, "name": f"{evidence.work(row['work'])} · {words(row['phase'])}"}
        for row in cost.get("estimates", ())
    ]
    if not rows:
        return []
    heads: Heads = {
        "Work": lambda row: row["name"],
        "Estimated | UTC": lambda row: Number(row["at"][5:16].replace("T", " ")),
        "Calls | expected": lambda row: number(row["expected_calls"]),
        "Calls | made": lambda row: number(row["calls"]),
        "Low | US$": lambda row: dollars(row["low_usd"]),
        "Expected | US$": lambda row: dollars(row["expected_usd"]),
        "Worst | US$": lambda row: dollars(row["worst_usd"]),
        "Billed | US$": lambda row: dollars(row["usd"]),
        "Billed | of expected": lambda row: percent(row["ratio"]),
        "Verdict": lambda row: row["verdict"].replace(" ", "\u00a0"),
    }
    within = sum(row["verdict"] == "within" for row in rows)
    numbers = table("Estimated beforehand, and billed since", heads, rows)
    figure = Figure(
        name="estimates",
        title=f"{within} of {len(rows)} bills lie within their estimates",
        spec=beside([_estimated(row) for row in rows], color="band"),
        summary="As a share of the worst case, which is what budgets reserve. Bar: from the low "
        "estimate to the worst; tick: expected; dot: billed, lost calls included.",
        footer=evidence.footer([cost]),
        keys=(("billed", "ink"), ("expected", "vermillion")),
    )
    return [figure, numbers]


def _estimated(row: Mapping[str, Any]) -> Beside:
    whole = row["worst_usd"] or row["usd"] or 1.0
    low, expected, billed = (row[f"{key}usd"] / whole for key in ("low_", "expected_", ""))
    return Beside(
        name=row["name"],
        detail=f"{dollars(row['usd'])} of at most {dollars(row['worst_usd'])}",
        bar=(low, 1.0),
        mark={"value": expected, "low": expected, "high": expected},
        dot=billed,
    )


def _ablation(evidence: Evidence) -> list[Block]:
    found = evidence.ablation
    if found is None:
        return []
    rows, baseline = [*found["rows"], found["combined"]], found["baseline"]
    heads: Heads = {
        "Saving": lambda row: words(row["saving"]),
        "Bill alone | US$": lambda row: dollars(row["usd"]),
        "Less | measured": lambda row: percent(row["usd_alone_reduction"]),
        "Less | claimed": lambda row: _range(row["claimed_usd"]),
        "Without it | combined bill rises": lambda row: percent(row["usd_without_increase"]),
        "Time alone | s": lambda row: number(float(row["seconds"])),
        "Sooner | measured": lambda row: percent(row["latency_reduction"]),
        "Sooner | claimed": lambda row: _range(row["claimed_latency"]),
        "Without it | combined time rises": lambda row: percent(row["latency_without_increase"]),
        "Claim": lambda row: row["verdict"].replace(" ", "\u00a0"),
    }
    notes: Heads = {"Saving": heads["Saving"], "Why": lambda row: row["note"]}
    bare = f"With every saving off it costs {dollars(baseline['usd'])} and takes "
    bare += f"{number(float(baseline['seconds']))} s."
    commit = str(found.get("stamp", {}).get("commit") or "unknown")
    drawn = [
        Figure(
            name=f"savings-{name}",
            title=f"{title} saved by each measure alone: measured, and claimed by the guide",
            spec=beside([_saved(row, measured, claimed) for row in rows], color="blue"),
            summary="Bar: measured here. Tick or whisker: what the guide claims.",
            footer=f"workbench cost ablate · commit {short(commit)}",
            keys=(("measured", "blue"), ("claimed", "vermillion")),
        )
        for name, title, measured, claimed in _MEASURES
    ]
    return [
        Text(f"One fixed workload, not this experiment: {found['workload']}. {bare}"),
        *drawn,
        table("Every saving alone, and the others without it", heads, rows),
        table("Why it came out so", notes, [row for row in rows if row["note"]]),
    ]


def _saved(row: Mapping[str, Any], measured: str, claimed: str) -> Beside:
    claim, share = row[claimed], row[measured]
    middle: Interval | None = None
    if claim:
        middle = {"value": sum(claim) / 2, "low": claim[0], "high": claim[1]}
    told = f"{percent(share)}, claimed {_range(claim)}" if claim else str(percent(share))
    return Beside(name=row["saving"], detail=told, bar=(0.0, share), mark=middle)


def _range(claim: Sequence[float]) -> Number:
    if not claim:
        return Number("–")
    least, most = (percent(one) for one in claim)
    return least if least == most else Number(f"{least}–{most}".replace("\u00a0%–", "–"))
