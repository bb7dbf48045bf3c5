"""Campaign: what got through to each target, and what the defense spoilt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from workbench.report import figures
from workbench.report.blocks import Block, Fact, Figure, Finding, Page, Passages, Section, Text
from workbench.report.evidence import Evidence
from workbench.report.tables import (
    Cell,
    Table,
    columns,
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

__all__ = ["compared", "finding", "page"]

_FIXED = ("@1.0", "@1")
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
    sections: list[Section] = []
    if analysis is not None:
        sections += _rates(evidence, analysis)
    graded = analysis or execution
    if graded is not None:
        sections.append(Section("The judges", _judges(graded)))
    if analysis is not None:
        note = Text(f"{number(analysis['findings'])} findings in all; some of them, redacted:")
        examples = Passages.of(analysis["examples"], texts=("sent", "received"))
        sections.append(Section("What got through", [note, examples]))
    sections.append(Section("The tests", [*_execution(execution), *_tests(tests)]))
    missing = Text(
        "The campaign is not analyzed yet: notebook 06_campaign_analysis has not finished.",
        is_note=True,
    )
    return Page(
        name="campaign",
        title="Campaign",
        finding=finding(analysis) if analysis else None,
        notes=[] if analysis else [missing],
        facts=_facts(analysis) if analysis else (),
        sections=sections,
    )


def compared(analysis: Mapping[str, Any]) -> tuple[str, str]:
    """Return the first target and the one it is compared with: gain 1.0, else the second.

    Fixed beforehand: the rates of this test set do not choose it.
    """
    first, *others = _targets(analysis)
    fixed = [name for name in others if name.endswith(_FIXED)]
    return first, (fixed or others or [first])[0]


def finding(analysis: Mapping[str, Any]) -> Finding:
    """Return what the compared target stops and what it spoils."""
    if not analysis["totals"]:
        return Finding("No attack was executed", "There is nothing to count.")
    first, second = compared(analysis)
    bare, behind = (_total(analysis["totals"], name)["rate"] for name in (first, second))
    if first == second:
        return Finding(
            f"{percent(bare['value'])} of attacks succeed on {first}",
            f"{estimate(bare, percent)}; no second target was attacked.",
        )
    falls = behind["value"] < bare["value"]
    claim = f"Attack success {'falls' if falls else 'does not fall'}: "
    claim += f"{percent(bare['value'])} on {first}, {percent(behind['value'])} behind {second}"
    proof = (
        f"In the judges' eyes {estimate(behind, percent)} of "
        f"{number(_total(analysis['totals'], second)['attempts'])} attacks succeed behind "
        f"{second} (compared at the fixed gain, not the best one), and {estimate(bare, percent)} "
        f"on {first}."
    )
    if falls and behind["high"] >= bare["low"]:
        proof += " The intervals overlap: this campaign alone does not settle the difference."
    through, spoilt = (_total(analysis[name], second) for name in ("delivered", "controls"))
    if through:
        proof += f" {estimate(through['rate'], percent)} of the requests still arrive intact,"
        reached = _total(analysis["delivered"], first)["rate"]["value"]
        proof += f" plain or disguised, against {percent(reached)}."
    if spoilt:
        claim += f", at the price of {percent(spoilt['rate']['value'])} of harmless prompts"
        proof += f" {estimate(spoilt['rate'], percent)} of harmless prompts are spoilt, against "
        proof += f"{percent(_total(analysis['controls'], first)['rate']['value'])}."
    return Finding(claim, proof)


def _judge_table(judges: Sequence[Mapping[str, Any]]) -> Table:
    heads: dict[str, Callable[[Any], Cell]] = {
        "Judge": lambda one: short(one["id"]),
        "AUROC | against benign": lambda one: estimate(one["auroc_benign"]),
        "AUROC | against look-alikes": lambda one: estimate(one["auroc_lookalike"]),
        "Recall | harmful flagged": lambda one: percent(one["recall"]),
        "False alarms | benign": lambda one: percent(one["false_positive_rate"]),
        "False alarms | look-alikes": lambda one: percent(one["lookalike_flag_rate"]),
        "Calibration error | probability": lambda one: number(float(one["calibration_error"])),
        "Threshold | probability": lambda one: number(float(one["threshold"])),
    }
    return columns("The judges' own error, on held-out topics of the judge set", judges, heads)


def _targets(analysis: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(row["target"] for row in analysis["totals"]))


def _total(rows: Sequence[Mapping[str, Any]], target: str) -> dict[str, Any]:
    mine = [dict(row) for row in rows if row["target"] == target]
    return next((row for row in mine if row["group"] == "all"), mine[0] if mine else {})


def _facts(analysis: Mapping[str, Any]) -> list[Fact]:
    facts = []
    for key, label in _MEASURES.items() if analysis["totals"] else ():
        first, second = compared(analysis)
        row, reference = _total(analysis[key], second), _total(analysis[key], first)
        if row and reference:
            rate = row["rate"]
            low, value, high = (min(max(rate[end], 0.0), 1.0) for end in ("low", "value", "high"))
            facts.append(
                Fact(
                    label=label[0].upper() + label[1:],
                    value=percent(value),
                    interval=estimate(rate, percent).interval,
                    note=f"{second}, {number(row['attempts'])} prompts; {first} "
                    f"{percent(reference['rate']['value'])} (gray tick)",
                    strip=(low, value, high),
                    reference=min(max(reference["rate"]["value"], 0.0), 1.0),
                )
            )
    return facts


def _rates(evidence: Evidence, analysis: Mapping[str, Any]) -> list[Section]:
    targets = _targets(analysis)
    footer = evidence.footer([analysis])
    keys = tuple((name, figures.color_of(name, at)) for at, name in enumerate(targets))
    overall = [
        {**row, "group": label}
        for key, label in _MEASURES.items()
        for target in targets
        if (row := _total(analysis[key], target))
    ]
    heads: dict[str, Callable[[Any], Cell]] = {
        "Target": lambda item: item[0],
        "Median | ms": lambda item: number(float(item[1]["value"])),
        "5th percentile | ms": lambda item: number(float(item[1]["low"])),
        "95th percentile | ms": lambda item: number(float(item[1]["high"])),
    }
    latency = columns("Latency per prompt", analysis["latency_ms"].items(), heads)
    kinds = [row for row in analysis["controls"] if row["group"] != "all"]
    views = (
        ("totals", "What gets through, and what is spoilt", "Measure", overall),
        ("strategy", "Attack success by strategy", "Strategy", analysis["by_strategy"]),
        ("category", "Attack success by harm category", "Category", analysis["by_category"]),
        ("controls", "Harmless prompts spoilt, by kind", "Kind", kinds),
    )
    drawn: list[Block] = []
    for name, title, head, rows in views:
        if not rows:
            continue
        series = {
            target: {row["group"]: row["rate"] for row in rows if row["target"] == target}
            for target in targets
        }
        groups = list(dict.fromkeys(row["group"] for row in rows))
        if name != "totals":
            known = series[targets[0]]
            groups.sort(key=lambda group: (-known.get(group, {"value": 0.0})["value"], group))
        each = sorted({row["attempts"] for row in rows})
        size = number(each[0]) + (f" to {number(each[-1])}" if len(each) > 1 else "")
        drawn.append(
            Figure(
                name=name,
                title=title,
                spec=figures.dots(groups, series),
                summary=f"Share of {size} prompts per dot, with its 95 % interval; "
                "further left is better.",
                footer=footer,
                keys=keys,
                numbers=_pivot(title, head, groups, series),
            )
        )
    method = Text(f"How it is counted: {analysis['method']}")
    return [
        Section("Overall", [*drawn[:1], method, latency]),
        Section("By strategy, category and kind", drawn[1:]),
    ]


def _pivot(
    caption: str, head: str, groups: Sequence[str], series: Mapping[str, Mapping[str, Any]]
) -> Table:
    def cells(group: str) -> list[Cell]:
        rates = [one.get(group) for one in series.values()]
        return [words(group), *(estimate(rate, percent) if rate else "–" for rate in rates)]

    return table(caption, [head, *series], map(cells, groups), is_folded=True)


def _judges(graded: Mapping[str, Any]) -> list[Block]:
    reads = "; ".join(f"{short(one['id'])}: {one['representation']}" for one in graded["judges"])
    agreed = percent(graded["agreement"]) if "agreement" in graded else ""
    agree = f" They agree on {agreed} of attempts." if agreed else ""
    text = f"They never saw the training data.{agree} What they are: {reads}."
    return [Text(text), _judge_table(graded["judges"])]


def _execution(execution: Mapping[str, Any] | None) -> list[Block]:
    if execution is None:
        missing = "Nothing was executed yet: notebook 05_execute_campaign has not finished."
        return [Text(missing, is_note=True)]
    return [
        Text(
            f"Execution {short(execution['execution'])}: {number(execution['attempts'])} attempts "
            f"on {', '.join(execution['targets'])}; {number(execution['resumed'])} of them from an "
            f"earlier, interrupted run; {number(execution['errors'])} errors."
        )
    ]


def _tests(tests: Mapping[str, Any] | None) -> list[Block]:
    if tests is None:
        missing = "No test set here: notebook 04_generate_tests has not finished."
        return [Text(missing, is_note=True)]
    expected = tests["estimate"]
    prompts = "Count | tests"
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
        counts("Tests by strategy", ["Strategy", prompts], tests["by_strategy"], is_folded=True),
        Passages.of(tests["samples"][:6], texts=("prompt", "goal")),
    ]
