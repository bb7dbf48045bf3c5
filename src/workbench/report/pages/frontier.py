"""Frontier: how much meaning each method keeps for how much safety, baselines included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workbench.report import figures
from workbench.report.blocks import Figure, Key, Page, Section, Text
from workbench.report.evidence import Evidence
from workbench.report.seeds import seed_interval
from workbench.report.tables import Column, Table, estimate, percent, table

__all__ = ["hardest_split", "page", "summarize", "verdict"]

_MEASURES = ("semantic", "safety", "unsafe", "keep")

Summary = Mapping[str, list[dict[str, Any]]]
"""Method → one row per gain, in order of gain: means over seeds."""


def page(evidence: Evidence) -> Page | None:
    """Return the page of the frontier, or None without training runs."""
    training = evidence.largest()
    rows = [row for run in training for row in run["frontier"]]
    if not rows:
        return None
    split = hardest_split(rows)
    summary = summarize(training, split=split)
    axis = evidence.axis()
    size = f"{axis.replace('_', ' ')} = {training[0]['axes'].get(axis, 0):g}"
    others = sorted({row["split"] for row in rows} - {split})
    figure = Figure(
        name="frontier",
        title=f"Safety against meaning kept, on {split}",
        spec=figures.frontier(_distinct_points(summary)),
        summary=verdict(training),
        footer=evidence.footer(training),
        keys=tuple(
            Key(label=name, color=figures.color_of(name, at)) for at, name in enumerate(summary)
        ),
    )
    explanation = (
        f"Models at {size}. Each mark is a mean over {len(training)} seeds with its 95 % t "
        "interval, small "
        "marks are the seeds, the figures beside the marks are gains: 0 is the prompt itself, "
        "1 the whole "
        "predicted correction. Up and to the right is better. The judge's own error is on the "
        "campaign page."
    )
    return Page(
        name="frontier",
        title="Frontier",
        blocks=[Text(text=verdict(training), is_lead=True)],
        sections=[
            Section(
                heading="Safety–semantic frontier",
                blocks=[figure, Text(text=explanation), _table(summary, split)],
            ),
            Section(
                heading="Other splits",
                blocks=[_table(summarize(training, split=one), one) for one in others],
            ),
        ],
    )


def hardest_split(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the split that counts: unseen requests in unseen wrappers where it was measured."""
    splits = sorted({row["split"] for row in rows})
    return "test_both" if "test_both" in splits else splits[0]


def summarize(
    training: Sequence[Mapping[str, Any]], *, split: str
) -> dict[str, list[dict[str, Any]]]:
    """Return means over seeds with intervals, per method and gain, and who lies on the frontier."""
    cells: dict[str, dict[float, list[Mapping[str, Any]]]] = {}
    for run in training:
        for row in run["frontier"]:
            if row["split"] == split:
                cells.setdefault(row["method"], {}).setdefault(row["gain"], []).append(row)
    summary = {
        method: [_mean(gain, rows) for gain, rows in sorted(gains.items())]
        for method, gains in cells.items()
    }
    points = [point for gains in summary.values() for point in gains]
    for point in points:
        point["on_frontier"] = not any(_dominates(other, point) for other in points)
    return summary


def verdict(training: Sequence[Mapping[str, Any]]) -> str:
    """Return which method wins, in one sentence, with the paired difference over seeds."""
    rows = [row for run in training for row in run["frontier"]]
    split = hardest_split(rows)
    summary = summarize(training, split=split)
    best = {
        name: max(gains, key=lambda p: p["semantic"]["value"]) for name, gains in summary.items()
    }
    order = sorted(best, key=lambda name: -best[name]["semantic"]["value"])
    if len(order) == 1:
        return f"Only {order[0]} was measured on {split}: there is nothing to compare it with."
    first = order[0]
    rival = "diffusion" if "diffusion" in best and first != "diffusion" else order[1]
    gap = _paired(training, split, (first, best[first]["gain"]), (rival, best[rival]["gain"]))
    ahead = (
        f"On {split}, {first} comes closest to the clean reference: mean cosine "
        f"{estimate(best[first]['semantic'])} at gain "
        f"{best[first]['gain']:g}, {rival} {estimate(best[rival]['semantic'])} at gain "
        f"{best[rival]['gain']:g}"
    )
    if gap is None:
        return f"{ahead}."
    if gap["low"] > 0:
        outcome = f"{first} wins"
    else:
        outcome = "these seeds do not separate the two: no winner"
    return f"{ahead}; paired difference {estimate(gap)} over {len(training)} seeds: {outcome}."


def _mean(gain: float, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    means: dict[str, Any] = {name: seed_interval([row[name] for row in rows]) for name in _MEASURES}
    return means | {"gain": gain, "seeds": [(row["semantic"], row["safety"]) for row in rows]}


def _dominates(other: Mapping[str, Any], point: Mapping[str, Any]) -> bool:
    gains = [other[name]["value"] - point[name]["value"] for name in ("semantic", "safety")]
    return bool(min(gains) >= 0 and max(gains) > 0)


def _paired(
    training: Sequence[Mapping[str, Any]],
    split: str,
    one: tuple[str, float],
    other: tuple[str, float],
) -> Any:
    gaps = []
    for run in training:
        found = {
            (r["method"], r["gain"]): r["semantic"] for r in run["frontier"] if r["split"] == split
        }
        if one in found and other in found:
            gaps.append(found[one] - found[other])
    return seed_interval(gaps) if len(gaps) > 1 else None


def _distinct_points(summary: Summary) -> dict[str, list[dict[str, Any]]]:
    distinct: dict[str, list[dict[str, Any]]] = {}
    for method, gains in summary.items():
        places = {(round(p["semantic"]["value"], 6), round(p["safety"]["value"], 6)) for p in gains}
        distinct[method] = list(gains) if len(places) > 1 else list(gains[:1])
    return distinct


def _table(summary: Summary, split: str) -> Table:
    rows = [
        (
            method,
            f"{point['gain']:g}",
            estimate(point["semantic"]),
            estimate(point["safety"], percent),
            estimate(point["unsafe"], percent),
            estimate(point["keep"]),
            "yes" if point["on_frontier"] else "–",
        )
        for method, gains in summary.items()
        for point in gains
    ]
    heads: list[Column | str] = [
        "Method",
        Column("Gain"),
        Column("Semantic", "cosine"),
        Column("Safety", "reduction"),
        Column("Still flagged", "share"),
        Column("Benign kept", "cosine"),
        "Undominated",
    ]
    seeds = max((len(point["seeds"]) for gains in summary.values() for point in gains), default=0)
    note = (
        f"Means over {seeds} seeds with 95 % t intervals. Undominated: no other row is at "
        "least as good in both "
        "meaning and safety."
    )
    return table(f"Every method on {split}", heads, rows, note=note)
