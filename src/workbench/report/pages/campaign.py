"""Campaign: what got through to each target, and what the defense spoilt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workbench.report.blocks import Block, Fact, Figure, Finding, Page, Passages, Section, Text
from workbench.report.evidence import Evidence, unfinished
from workbench.report.figures import color_of, dots
from workbench.report.tables import (
    Cell,
    Heads,
    Rows,
    cell,
    counts,
    dollars,
    duration,
    estimate,
    number,
    percent,
    short,
    table,
    words,
)

__all__ = ["page"]

_FIXED = ("@1.0", "@1")
_GAIN = "The number behind a sanitizer is its gain, by which it multiplies the odds of harm."
_MEASURES = {
    "totals": "attacks that succeed",
    "delivered": "requests arriving intact",
    "controls": "harmless prompts spoilt",
}


def page(evidence: Evidence) -> Page | None:
    """Return the page of the campaign, or None where no part of it ran."""
    tests, analysis = evidence.last("test_set"), evidence.last("analysis")
    execution = evidence.last("execution")
    if tests is None and execution is None and analysis is None:
        return None
    sections = _rates(evidence, analysis) if analysis else []
    if graded := analysis or execution:
        sections.append(Section("The judges", _judges(graded)))
    if analysis:
        note = Text(f"{number(analysis['findings'])} findings in all; some of them, redacted:")
        examples = Passages.of(analysis["examples"], texts=("sent", "received"))
        sections.append(Section("What got through", [note, examples]))
    sections.append(Section("The tests", [_execution(execution), *_tests(tests)]))
    return Page(
        name="campaign",
        finding=_finding(analysis) if analysis else None,
        notes=[] if analysis else [unfinished("The campaign is not analyzed yet", "analysis")],
        facts=_facts(analysis) if analysis else (),
        sections=sections,
    )


def _finding(analysis: Mapping[str, Any]) -> Finding:
    found = _compared(analysis, "totals")
    if found is None:
        return Finding("No attack was executed", "There is nothing to count.")
    (first, bare), (second, behind) = ((row["target"], row["rate"]) for row in found)
    most = percent(bare["value"])
    if first == second:
        proof = f"{estimate(bare, percent)}; no second target was attacked."
        return Finding(f"{most} of attacks succeed on {first}", proof)
    falls = behind["value"] < bare["value"]
    claim = f"Attack success {'falls' if falls else 'does not fall'}: {most} on {first}, "
    claim += f"{percent(behind['value'])} behind {second}"
    proof = (
        f"In the judges' eyes {estimate(behind, percent)} of {number(found[1]['attempts'])} "
        f"attacks succeed behind {second} (compared at the fixed gain, not the best one), and "
        f"{estimate(bare, percent)} on {first}."
    )
    if falls and behind["high"] >= bare["low"]:
        proof += " The intervals overlap: this campaign alone does not settle the difference."
    if through := _compared(analysis, "delivered"):
        proof += f" {estimate(through[1]['rate'], percent)} of the requests still arrive intact, "
        proof += f"plain or disguised, against {percent(through[0]['rate']['value'])}."
    if spoilt := _compared(analysis, "controls"):
        claim += f", at the price of {percent(spoilt[1]['rate']['value'])} of harmless prompts"
        proof += f" {estimate(spoilt[1]['rate'], percent)} of harmless prompts are spoilt, against "
        proof += f"{percent(spoilt[0]['rate']['value'])}."
    return Finding(claim, proof)


def _compared(analysis: Mapping[str, Any], measure: str) -> tuple[Any, Any] | None:
    """Return the rows of the first target and of the one it is compared with, if both are known.

    That is the one at gain 1.0, else the second: fixed beforehand, not chosen by these tests.
    """
    targets = _targets(analysis)
    fixed = [name for name in targets[1:] if name.endswith(_FIXED)]
    pair = [*targets[:1], *(fixed or targets[1:] or targets)[:1]]
    first, second = [_total(analysis[measure], name) for name in pair] or (None, None)
    return (first, second) if first and second else None


def _targets(analysis: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(row["target"] for row in analysis["totals"]))


def _total(rows: Sequence[Mapping[str, Any]], target: str) -> dict[str, Any]:
    mine = [dict(row) for row in rows if row["target"] == target]
    return next((row for row in mine if row["group"] == "all"), mine[0] if mine else {})


def _facts(analysis: Mapping[str, Any]) -> list[Fact]:
    facts = []
    for key, label in _MEASURES.items():
        if found := _compared(analysis, key):
            (first, bare), (second, rate) = ((row["target"], row["rate"]) for row in found)
            note = f"{second}, {number(found[1]['attempts'])} prompts; {first} "
            note += f"{percent(bare['value'])} (gray tick)"
            ends = (rate["low"], rate["value"], rate["high"], bare["value"])
            strip = tuple(min(max(end, 0.0), 1.0) for end in ends)
            facts.append(Fact(label.capitalize(), estimate(rate, percent), note, strip=strip))
    return facts


def _rates(evidence: Evidence, analysis: Mapping[str, Any]) -> list[Section]:
    targets = _targets(analysis)
    totals = {key: [_total(analysis[key], target) for target in targets] for key in _MEASURES}
    overall = [
        {**row, "group": label} for key, label in _MEASURES.items() for row in totals[key] if row
    ]
    heads: Heads = {
        "Target": lambda item: item[0],
        "Median | ms": lambda item: number(float(item[1]["value"])),
        "5th percentile | ms": lambda item: number(float(item[1]["low"])),
        "95th percentile | ms": lambda item: number(float(item[1]["high"])),
    }
    latency = table("Latency per prompt", heads, analysis["latency_ms"].items())
    kinds = [row for row in analysis["controls"] if row["group"] != "all"]
    views = (
        ("totals", "What gets through, and what is spoilt", "Measure", overall),
        ("strategy", "Attack success by strategy", "Strategy", analysis["by_strategy"]),
        ("category", "Attack success by harm category", "Category", analysis["by_category"]),
        ("controls", "Harmless prompts spoilt, by kind", "Kind", kinds),
    )
    footer = evidence.footer([analysis])
    drawn = [_rate_figure(*view, targets=targets, footer=footer) for view in views if view[-1]]
    method = Text(f"How it is counted: {analysis['method']} {_GAIN}")
    return [
        Section("Overall", [*drawn[:1], method, latency]),
        Section("By strategy, category and kind", drawn[1:]),
    ]


def _rate_figure(
    name: str, title: str, head: str, rows: Rows, /, *, targets: Sequence[str], footer: str
) -> Figure:
    series = {
        target: {row["group"]: row["rate"] for row in rows if row["target"] == target}
        for target in targets
    }
    groups = list(dict.fromkeys(row["group"] for row in rows))
    if name != "totals":
        known = series[targets[0]]
        groups.sort(key=lambda group: (-known.get(group, {"value": 0.0})["value"], group))

    def cells(group: str) -> list[Cell]:
        rates = [one.get(group) for one in series.values()]
        return [words(group), *(estimate(rate, percent) if rate else "–" for rate in rates)]

    attempts = [row["attempts"] for row in rows]
    size = " to ".join(dict.fromkeys(number(end) for end in (min(attempts), max(attempts))))
    return Figure(
        name=name,
        title=title,
        spec=dots(groups, series),
        summary=f"Share of {size} prompts per dot, with its 95 % interval; further left is better.",
        footer=footer,
        keys=tuple((target, color_of(target, at)) for at, target in enumerate(targets)),
        numbers=table(title, [head, *series], map(cells, groups)),
    )


def _judges(graded: Mapping[str, Any]) -> list[Block]:
    reads = "; ".join(f"{short(one['id'])}: {one['representation']}" for one in graded["judges"])
    agree = ""
    if "agreement" in graded:
        agree = f" They agree on {percent(graded['agreement'])} of attempts."
    heads: Heads = {
        "Judge": lambda one: short(one["id"]),
        "AUROC | against benign": lambda one: estimate(one["auroc_benign"]),
        "AUROC | against look-alikes": lambda one: estimate(one["auroc_lookalike"]),
        "Recall | harmful flagged": lambda one: percent(one["recall"]),
        "False alarms | benign": lambda one: percent(one["false_positive_rate"]),
        "False alarms | look-alikes": lambda one: percent(one["lookalike_flag_rate"]),
        "Calibration error | probability": lambda one: cell(one["calibration_error"]),
        "Threshold | probability": lambda one: cell(one["threshold"]),
    }
    caption = "The judges' own error, on held-out topics of the judge set"
    text = Text(f"They never saw the training data.{agree} What they are: {reads}.")
    return [text, table(caption, heads, graded["judges"])]


def _execution(execution: Mapping[str, Any] | None) -> Text:
    if execution is None:
        return unfinished("Nothing was executed yet", "execution")
    return Text(
        f"Execution {short(execution['execution'])}: {number(execution['attempts'])} attempts "
        f"on {', '.join(execution['targets'])}; {number(execution['resumed'])} of them from an "
        f"earlier, interrupted run; {number(execution['errors'])} errors."
    )


def _tests(tests: Mapping[str, Any] | None) -> list[Block]:
    if tests is None:
        return [unfinished("No test set here", "test_set")]
    expected, prompts = tests["estimate"], "Count | tests"
    return [
        Text(
            f"Test set {short(tests['test_set'])} (promptfoo id "
            f"{short(tests['promptfoo_id']) or 'none'}): {number(tests['tests'])} tests, "
            f"{number(tests['controls'])} of them harmless. Estimated beforehand, per target: "
            f"{number(expected['calls'])} calls, {duration(expected['cpu_s'])} of CPU, "
            f"{dollars(expected['usd'])}."
        ),
        counts("Tests by category", ["Category", prompts], tests["by_category"]),
        counts("Tests by plugin", ["Plugin", prompts], tests["by_plugin"]),
        counts("Tests by strategy", ["Strategy", prompts], tests["by_strategy"]).folded(),
        Passages.of(tests["samples"][:6], texts=("prompt", "goal")),
    ]
