"""Frontier: how much meaning each method keeps for how much safety, baselines included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workbench.report import figures
from workbench.report.blocks import Block, Fact, Figure, Finding, Page, Section, Text
from workbench.report.evidence import Evidence
from workbench.report.seeds import seed_interval
from workbench.report.tables import Heads, Number, Table, estimate, number, percent, table, words

__all__ = ["page"]

_FIXED_GAIN = 1.0
"""The gain at which methods are compared: fixed beforehand, so that no test split chooses it."""

_MEASURES = ("semantic", "safety", "unsafe", "keep")
_WORDS = {"test_both": "unseen requests in unseen wrappers"}

_SAFETY = (
    "Safety is the share of the judges' mean unsafe probability that the method removes; below "
    "zero, the output looks less safe than the prompt. “Benign kept” is how close a sanitized "
    "harmless prompt stays to itself. The judges' own errors are on the campaign page."
)

Summary = Mapping[str, list[dict[str, Any]]]
"""Method → one row per gain, in order of gain: means over seeds."""


def page(evidence: Evidence) -> Page | None:
    """Return the page of the frontier, or None without training runs."""
    training = evidence.largest()
    splits = sorted({row["split"] for run in training for row in run["frontier"]})
    if not splits:
        return None
    split = "test_both" if "test_both" in splits else splits[0]
    gaps, summary = _gaps(training, split=split), _summarize(training, split=split)
    seeds = f"{len(training)} seed{'s' * (len(training) > 1)}"
    rest = [one for one in splits if one != split]
    others = [_table(_summarize(training, split=one), one).folded() for one in rest]
    facts = []
    if gaps and len(training) > 1:
        rival = _rival(gaps)
        note = f"cosine to the clean text at the fixed gain 1, over {seeds}; above zero, "
        note += "diffusion is better"
        facts.append(Fact(f"Diffusion minus {rival}", estimate(gaps[rival]), note))
    figure = _figure(evidence, summary, split=split, seeds=seeds)
    blocks: list[Block] = [figure, Text(_SAFETY), _table(summary, split)]
    return Page(
        name="frontier",
        finding=_finding(gaps, summary, split=split, seeds=seeds),
        facts=facts,
        sections=[Section("Safety against meaning", blocks), Section("Other splits", others)],
    )


def _figure(evidence: Evidence, summary: Summary, *, split: str, seeds: str) -> Figure:
    training, axis = evidence.largest(), evidence.axis()
    shown, far = _near(summary)
    outside = "".join(
        f" The {name} baseline lies far outside the plot, at meaning "
        f"{number(at['semantic']['value'])} and safety {percent(at['safety']['value'])}."
        for name, at in far.items()
    )
    return Figure(
        name="frontier",
        title=f"Safety against meaning kept, on {_WORDS.get(split, split)}",
        spec=figures.frontier(shown, marked_gain=_FIXED_GAIN),
        summary="Up and to the right is better. The figures beside the marks are gains: 0 is the "
        "prompt itself, 1 the whole predicted correction (large marks). Means over "
        f"{seeds} with 95 % intervals, models trained on {training[0]['axes'].get(axis, 0):g} "
        f"{words(axis)}.{outside}",
        footer=evidence.footer(training),
        keys=tuple((name, figures.color_of(name, at)) for at, name in enumerate(shown)),
    )


def _finding(gaps: Mapping[str, Any], summary: Summary, *, split: str, seeds: str) -> Finding:
    if not gaps:
        needed = f"Diffusion and a baseline at this gain are needed on {split}."
        return Finding(f"Nothing to compare at gain {_FIXED_GAIN:g}", needed)
    worse = [name for name, gap in gaps.items() if gap["high"] < 0]
    level = [name for name, gap in gaps.items() if gap["low"] <= 0 <= gap["high"]]
    claim = "The diffusion sanitizer keeps more meaning than every baseline"
    if seeds == "1 seed":
        claim = "One seed cannot tell diffusion and its baselines apart"
    elif worse:
        claim = f"{' and '.join(worse).capitalize()} keep{'s' * (len(worse) == 1)} more meaning "
        claim += "than the diffusion sanitizer"
    elif level:
        claim = f"No winner: these seeds do not separate diffusion from {' and '.join(level)}"
    rival = _rival(gaps)
    ours, theirs = _fixed(summary["diffusion"]), _fixed(summary[rival])
    return Finding(
        claim,
        f"Cosine to the clean text, on {_WORDS.get(split, split)} and at the fixed gain "
        f"{_FIXED_GAIN:g}, not at the best one: diffusion {estimate(ours['semantic'])}, {rival} "
        f"{estimate(theirs['semantic'])}; the difference is {estimate(gaps[rival])}, paired over "
        f"{seeds}. Diffusion removes {percent(ours['safety']['value'])} of the unsafe "
        f"probability, {rival} {percent(theirs['safety']['value'])}.",
    )


def _rival(gaps: Mapping[str, Any]) -> str:
    return min(gaps, key=lambda name: float(gaps[name]["value"]))


def _gaps(training: Sequence[Mapping[str, Any]], *, split: str) -> dict[str, Any]:
    differences: dict[str, list[float]] = {}
    for run in training:
        rows = _rows(run, split)
        ours = rows.get(("diffusion", _FIXED_GAIN))
        for (method, gain), row in rows.items():
            fixed = 0 if method == "identity" else _FIXED_GAIN
            if ours and method != "diffusion" and gain == fixed:
                differences.setdefault(method, []).append(ours["semantic"] - row["semantic"])
    return {name: seed_interval(differences[name]) for name in sorted(differences)}


def _rows(run: Mapping[str, Any], split: str) -> dict[tuple[str, float], Any]:
    rows: dict[tuple[str, float], Any] = {}
    for row in run["frontier"]:
        if row["split"] == split:  # the identity is the same at every gain
            gain = 0.0 if row["method"] == "identity" else row["gain"]
            rows.setdefault((row["method"], gain), row)
    return rows


def _fixed(gains: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return next((point for point in gains if point["gain"] == _FIXED_GAIN), gains[0])


def _summarize(training: Sequence[Mapping[str, Any]], *, split: str) -> Summary:
    cells: dict[str, dict[float, list[Mapping[str, Any]]]] = {}
    for run in training:
        for (method, gain), row in _rows(run, split).items():
            cells.setdefault(method, {}).setdefault(gain, []).append(row)
    return {
        method: [_mean(gain, rows) for gain, rows in sorted(gains.items())]
        for method, gains in cells.items()
    }


def _mean(gain: float, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    means: dict[str, Any] = {name: seed_interval([row[name] for row in rows]) for name in _MEASURES}
    means["unsafe"] = {end: min(max(at, 0.0), 1.0) for end, at in means["unsafe"].items()}
    return means | {"gain": gain, "seeds": [(row["semantic"], row["safety"]) for row in rows]}


def _near(summary: Summary) -> tuple[Summary, dict[str, Any]]:
    """Split off the constant baseline where it would squeeze all the others into a corner."""
    others = {name: gains for name, gains in summary.items() if name != "constant"}
    if len(others) == len(summary) or not others:
        return summary, {}
    at = _fixed(summary["constant"])
    for measure in ("semantic", "safety"):
        values = [point[measure]["value"] for gains in others.values() for point in gains]
        span = max(values) - min(values)
        if not min(values) - span <= at[measure]["value"] <= max(values) + span:
            return others, {"constant": at}
    return summary, {}


def _table(summary: Summary, split: str) -> Table:
    rows = [
        {**point, "method": method}
        for method, gains in summary.items()
        for point in gains
        if point["gain"] or len(gains) == 1
    ]
    heads: Heads = {
        "Method": lambda row: row["method"],
        "Gain": lambda row: Number(f"{row['gain']:g}"),
        "Meaning | cosine": lambda row: estimate(row["semantic"]),
        "Safety | unsafe probability removed": lambda row: estimate(row["safety"], percent),
        "Still flagged | share": lambda row: estimate(row["unsafe"], percent),
        "Benign kept | cosine": lambda row: estimate(row["keep"]),
    }
    note = "Means over seeds with 95 % t intervals. At gain 0 every method is the identity."
    return table(f"Every method on {split}", heads, rows, note=note)
