"""Model calls, on the page of costs: what was asked, billed and saved, and what was expected."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from workbench.report.blocks import Block, Figure, Section, Text
from workbench.report.evidence import Evidence
from workbench.report.figures import Beside, beside
from workbench.report.tables import (
    Heads,
    Number,
    counted,
    dollars,
    number,
    percent,
    short,
    size,
    table,
    words,
)
from workbench.store.results import Interval

__all__ = ["savings", "sections"]

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
_NOISE, _FINEST = 1.5, 0.05
"""Factor between times of two trials up to which they are no evidence; least factor told apart."""


def sections(evidence: Evidence, cost: Mapping[str, Any]) -> list[Section]:
    """Return what there is to say about model calls, empty sections left for the page to drop."""
    return [
        Section("Model calls", _calls(cost.get("calls"))),
        Section("Estimated against spent", _estimates(evidence, cost)),
        Section("What each saving saves", savings(evidence)),
    ]


def _calls(calls: Mapping[str, Any] | None) -> list[Block]:
    if calls is None or not any(calls["total"][key] for key in ("calls", "hits", "rules")):
        return [Text("No model was asked: all of it was computed on this machine.")]
    total = calls["total"]
    said = f"The bill for {counted(total['calls'], 'call')} is {dollars(total['usd'])}. At hand, "
    said += f"for nothing: {counted(total['hits'], 'answer')}, once bought for "
    said += f"{dollars(total['saved_usd'])}. "
    if total["rules"]:
        said += f"Answered by a rule, without a model: {counted(total['rules'], 'request')}. "
    if total["lost"]:
        said += f"No answer came to {counted(total['lost'], 'call')}, billed at the worst case, an "
        said += "estimate. "
    if misses := total["misses"]:
        reasons = ", ".join(f"{words(name)} {number(count)}" for name, count in misses.items())
        said += f"Why calls were not at hand: {reasons}."
    views = {**calls, "by_phase": [*calls["by_phase"], total]}
    tables = [
        table(f"Model calls by {by}", {by.capitalize(): _group, **_CALLS}, views[f"by_{by}"])
        for by in ("phase", "model", "task")
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
        title=f"Bills within their estimates: {within} of {len(rows)}",
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


def savings(evidence: Evidence) -> list[Block]:
    """Return what the ablation found, nothing where there is none."""
    found = evidence.ablation
    if found is None:
        return []
    rows, baseline = [*found["rows"], found["combined"]], found["baseline"]
    alone: Heads = {
        "Saving": lambda row: words(row["saving"]),
        "Bill | US$": lambda row: dollars(row["usd"]),
        "Bill | measured": lambda row: _moved(-row["usd_alone_reduction"]),
        "Bill | claimed": lambda row: _claim(row["claimed_usd"]),
        "Tokens | measured": lambda row: _moved(-row["tokens_reduction"]),
        "Tokens | claimed": lambda row: _claim(row["claimed_tokens"]),
        "Time | measured": lambda row: _time(-row["latency_reduction"]),
        "Time | claimed": lambda row: _claim(row["claimed_latency"]),
        "Claim": lambda row: row["verdict"].replace(" ", "\u00a0"),
    }
    without: Heads = {
        "Saving": alone["Saving"],
        "Combined bill": lambda row: _moved(row["usd_without_increase"], falls="falls"),
        "Combined time": lambda row: _time(row["latency_without_increase"], falls="falls"),
        "Why it came out so": lambda row: row["note"],
    }
    said = f"A fixed workload of its own: {found['workload']}. With every saving off "
    said += f"it costs {dollars(baseline['usd'])} and takes {baseline['seconds']:.1f} s. Claims "
    said += "are those of the performance tuning guide. Bills are exact; times are of one run, and "
    said += f"differences below a half are called noise. Combined: {found['combined']['note']}."
    commit = str(found.get("stamp", {}).get("commit") or "unknown")
    drawn = [
        Figure(
            name=f"savings-{name}",
            title=f"{title} saved by each measure alone",
            spec=beside([_saved(row, key, claimed, show) for row in rows], color="blue"),
            summary="Bar: measured here. Tick or whisker: claimed.",
            footer=f"workbench cost ablate · commit {short(commit)}",
            keys=(("measured", "blue"), ("claimed", "vermillion")),
        )
        for name, title, key, claimed, show in (
            ("dollars", "Dollars", "usd_alone_reduction", "claimed_usd", _moved),
            ("latency", "Time", "latency_reduction", "claimed_latency", _time),
        )
    ]
    return [
        Text(said),
        *drawn,
        table("Each saving on alone: what it saves of the baseline", alone, rows),
        table("Each saving off, all others on", without, found["rows"]),
    ]


def _saved(
    row: Mapping[str, Any], measured: str, claimed: str, show: Callable[[float], Number]
) -> Beside:
    claim, share = row[claimed], row[measured]
    middle: Interval | None = None
    if claim:
        middle = {"value": sum(claim) / 2, "low": claim[0], "high": claim[1]}
    told = f"{show(-share)}{f', claimed {_claim(claim)}' if claim else ''}"
    return Beside(name=row["saving"], detail=told, bar=(0.0, share), mark=middle)


def _moved(change: float, *, falls: str = "saves") -> Number:
    """Return a relative change with its sign in words."""
    if round(change, 3) == 0:
        return Number("same")
    return Number(f"{'rises' if change > 0 else falls}\u00a0{percent(abs(change))}")


def _time(change: float, *, falls: str = "saves") -> Number:
    """Return a relative change of a time, as exactly as one run can tell; 0 was not tried."""
    if 1 / _NOISE < 1 + change < _NOISE:
        return Number("noise" if change else "–")
    told = f"≈\u00a0{10 * round(10 * abs(change))}" if change > _FINEST - 1 else ">\u00a095"
    return Number(f"{'rises' if change > 0 else falls}\u00a0{told}\u00a0%")


def _claim(claim: Sequence[float]) -> Number:
    ends = dict.fromkeys(f"{100 * share:.0f}" for share in claim)
    return Number(f"{'–'.join(ends)}\u00a0%" if ends else "–")
