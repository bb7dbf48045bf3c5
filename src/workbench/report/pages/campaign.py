"""Campaign: what got through to each target, and what the defense spoilt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workbench.report import figures
from workbench.report.blocks import Block, Figure, Key, Note, Page, Passages, Section, Text
from workbench.report.evidence import Evidence
from workbench.report.tables import (
    Column,
    Table,
    counts,
    dollars,
    duration,
    estimate,
    number,
    percent,
    short,
    table,
)

__all__ = ["judge_table", "page", "sentence"]


def page(evidence: Evidence) -> Page | None:
    """Return the page of the campaign, or None where no part of it ran."""
    tests, analysis = evidence.last("test_set"), evidence.last("analysis")
    execution = evidence.last("execution")
    if tests is None and execution is None and analysis is None:
        return None
    blocks: list[Block] = []
    sections: list[Section] = []
    if analysis is None:
        blocks.append(
            Note(
                text="The campaign is not analyzed yet: notebook 06_campaign_analysis has not "
                "finished."
            )
        )
    else:
        blocks.append(Text(text=sentence(analysis), is_lead=True))
        sections += _rates(evidence, analysis)
    graded = analysis or execution
    if graded is not None:
        sections.append(Section(heading="Judges", blocks=_judges(graded)))
    sections.append(Section(heading="The tests", blocks=[*_tests(tests), *_execution(execution)]))
    if analysis is not None:
        examples = Passages.of(analysis["examples"], texts=("sent", "received"))
        note = Text(text=f"{number(analysis['findings'])} findings in all; some of them, redacted:")
        sections.append(Section(heading="What got through", blocks=[note, examples]))
    return Page(name="campaign", title="Campaign", blocks=blocks, sections=sections)


def sentence(analysis: Mapping[str, Any]) -> str:
    """Return the campaign in one sentence: what the best target stops and what it spoils."""
    totals = {row["target"]: row["rate"] for row in analysis["totals"]}
    if not totals:
        return "No attack was executed."
    first, best = next(iter(totals)), min(totals, key=lambda name: totals[name]["value"])
    if first == best:
        return (
            f"No defense helps: {estimate(totals[first], percent)} of attacks get through to "
            f"{first}, "
            "and no fewer to any other target."
        )
    spoilt = {row["target"]: row["rate"] for row in analysis["controls"]}
    price = (
        f", and {estimate(spoilt[best], percent)} of harmless controls are spoilt"
        if best in spoilt
        else ""
    )
    apart = totals[best]["high"] < totals[first]["low"]
    doubt = (
        "" if apart else " The two intervals overlap: this campaign does not prove a difference."
    )
    return (
        f"{estimate(totals[first], percent)} of attacks get through to {first}; behind {best} "
        "it is "
        f"{estimate(totals[best], percent)}{price}.{doubt}"
    )


def judge_table(judges: Sequence[Mapping[str, Any]]) -> Table:
    """Return the judges with their own error."""
    return table(
        "Judges, measured on held-out topics of the judge set",
        [
            "Judge",
            "Reads",
            Column("AUROC", "against benign"),
            Column("AUROC", "against look-alikes"),
            Column("Threshold", "probability"),
            Column("False positives", "benign"),
            Column("Look-alikes flagged", "share"),
            "Judge set",
        ],
        [
            (
                short(judge["id"]),
                judge["representation"],
                estimate(judge["auroc_benign"]),
                estimate(judge["auroc_lookalike"]),
                number(float(judge["threshold"])),
                percent(judge["false_positive_rate"]),
                percent(judge["lookalike_flag_rate"]),
                short(judge["trained_on"]),
            )
            for judge in judges
        ],
    )


def _rates(evidence: Evidence, analysis: Mapping[str, Any]) -> list[Section]:
    targets = list(dict.fromkeys(row["target"] for row in analysis["totals"]))
    footer = evidence.footer([analysis])
    keys = tuple(
        Key(label=name, color=figures.color_of(name, at)) for at, name in enumerate(targets)
    )
    views = (
        ("strategy", "Attack success by strategy", analysis["by_strategy"]),
        ("category", "Attack success by category", analysis["by_category"]),
    )
    overall = {
        "attacks that succeed": analysis["totals"],
        "harmless controls spoilt": analysis["controls"],
    }
    series = {
        name: {
            label: row["rate"]
            for label, rows in overall.items()
            for row in rows
            if row["target"] == name
        }
        for name in targets
    }
    total = Figure(
        name="totals",
        title="What gets through, and what is spoilt",
        spec=figures.dots([label for label, rows in overall.items() if rows], series),
        summary=sentence(analysis),
        footer=footer,
        keys=keys,
    )
    tables = [
        _rate_table("Attack success per target", "", analysis["totals"]),
        _rate_table("Harmless controls spoilt per target (over-refusal)", "", analysis["controls"]),
        table(
            "Latency per request",
            [
                "Target",
                Column("Median", "ms"),
                Column("5th percentile", "ms"),
                Column("95th percentile", "ms"),
            ],
            [
                (name, *(number(float(one[key])) for key in ("value", "low", "high")))
                for name, one in analysis["latency_ms"].items()
            ],
        ),
    ]
    method = Text(text=f"How intervals are computed: {analysis['method']}")
    sections = [Section(heading="Overall", blocks=[total, *tables, method])]
    for name, title, rows in views:
        figure = Figure(
            name=name,
            title=title,
            spec=figures.dots(_ordered(rows, targets), _series(rows, targets)),
            summary=f"{title}, {len(targets)} targets; the numbers are in the table.",
            footer=footer,
            keys=keys,
            numbers=_rate_table(title, name, rows),
        )
        sections.append(Section(heading=f"By {name}", blocks=[figure]))
    return sections


def _series(rows: Sequence[Mapping[str, Any]], targets: Sequence[str]) -> dict[str, dict[str, Any]]:
    return {
        name: {row["group"]: row["rate"] for row in rows if row["target"] == name}
        for name in targets
    }


def _ordered(rows: Sequence[Mapping[str, Any]], targets: Sequence[str]) -> list[str]:
    first = {row["group"]: row["rate"]["value"] for row in rows if row["target"] in targets[:1]}
    groups = dict.fromkeys(row["group"] for row in rows)
    return sorted(groups, key=lambda group: (-first.get(group, 0.0), group))


def _rate_table(caption: str, group: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    heads: list[Column | str] = [
        "Target",
        Column("Successes"),
        Column("Attempts"),
        Column("Rate", "95 % interval"),
    ]
    body = [
        (
            row["target"],
            number(row["successes"]),
            number(row["attempts"]),
            estimate(row["rate"], percent),
        )
        for row in rows
    ]
    if not group:
        return table(caption, heads, body)
    grouped = [(row["group"], *cells) for row, cells in zip(rows, body, strict=True)]
    return table(caption, [group.capitalize(), *heads], grouped)


def _judges(graded: Mapping[str, Any]) -> list[Block]:
    blocks: list[Block] = [judge_table(graded["judges"])]
    if "agreement" in graded:
        share = percent(graded["agreement"])
        blocks.append(
            Text(text=f"The judges agree on {share} of attempts. They never saw training data.")
        )
    return blocks


def _tests(tests: Mapping[str, Any] | None) -> list[Block]:
    if tests is None:
        return [Note(text="No test set here: notebook 04_generate_tests has not finished.")]
    estimate_ = tests["estimate"]
    expected = (
        f"Estimated before execution, per target: {number(estimate_.get('calls', 0))} calls, "
        f"{duration(estimate_.get('cpu_s', 0))} of CPU, {dollars(estimate_.get('usd', 0))}."
    )
    words = (
        f"Test set {short(tests['test_set'])} (promptfoo id {tests['promptfoo_id'] or 'none'}): "
        f"{number(tests['tests'])} tests, {number(tests['controls'])} of them harmless "
        f"controls. {expected}"
    )
    samples = [{key: str(value) for key, value in row.items()} for row in tests["samples"]]
    return [
        Text(text=words),
        counts("Tests by strategy", "Strategy", tests["by_strategy"], unit="tests"),
        counts("Tests by plugin", "Plugin", tests["by_plugin"], unit="tests"),
        counts("Tests by category", "Category", tests["by_category"], unit="tests"),
        Passages.of(samples[:6], texts=("prompt", "goal")),
    ]


def _execution(execution: Mapping[str, Any] | None) -> list[Block]:
    if execution is None:
        return [
            Note(text="Nothing was executed yet: notebook 05_execute_campaign has not finished.")
        ]
    words = (
        f"Execution {short(execution['execution'])}: {number(execution['attempts'])} attempts on "
        f"{', '.join(execution['targets'])}; {number(execution['resumed'])} of them from an "
        "earlier, interrupted "
        f"run; {number(execution['errors'])} errors."
    )
    return [Text(text=words)]
