"""Campaign: what got through to each target, and what the defense spoilt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from workbench.report.blocks import Block, Figure, Page, Passages, Section, Text
from workbench.report.evidence import Evidence, unfinished
from workbench.report.figures import color_of, dots
from workbench.report.pages.campaign_finding import MEASURES, facts, finding, targets_of, total
from workbench.report.pages.campaign_judges import judges
from workbench.report.pages.campaign_statistics import sections as statistics
from workbench.report.pages.campaign_statistics import triage
from workbench.report.tables import (
    Cell,
    Number,
    Rows,
    Table,
    counted,
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

_GAIN = "The number behind a sanitizer is its gain, by which it multiplies the odds of harm."
_SEVERITIES = ("critical", "high", "medium", "low")
_MOST_DOTS = 48
_LEAST_ROWS, _MOST_ROWS = 6, 16
_LONG = 12


def page(evidence: Evidence) -> Page | None:
    """Return the page of the campaign, or None where no part of it ran."""
    tests, analysis = evidence.last("test_set"), evidence.last("analysis")
    execution = evidence.last("execution")
    if tests is None and execution is None and analysis is None:
        return None
    sections: list[Section] = []
    if analysis:
        sections = [*_rates(evidence, analysis), *statistics(evidence, analysis)]
    if graded := analysis or execution:
        sections.append(Section("The judges", judges(graded)))
    if analysis:
        examples = Passages.of(analysis["examples"], texts=("summary", "sent", "received"))
        sections.append(Section("What got through", [*triage(analysis), examples]))
    sections.append(Section("The tests", [_execution(execution), *_tests(tests)]))
    return Page(
        name="campaign",
        finding=finding(analysis) if analysis else None,
        notes=[] if analysis else [unfinished("The campaign is not analyzed yet", "analysis")],
        facts=facts(analysis) if analysis else (),
        sections=sections,
    )


def _rates(evidence: Evidence, analysis: Mapping[str, Any]) -> list[Section]:
    targets = targets_of(analysis)
    overall = [
        {**row, "group": label}
        for key, label in MEASURES.items()
        for target in targets
        if (row := total(analysis, key, target))
    ]
    kinds = [row for row in analysis["controls"] if row["group"] != "all"]
    views = (
        ("totals", "What gets through, and what is spoilt", "Measure", overall),
        ("severity", "Attack success by severity", "Severity", analysis.get("by_severity", ())),
        ("plugin", "Attack success by plugin", "Plugin", analysis.get("by_plugin", ())),
        ("category", "Attack success by harm category", "Category", analysis["by_category"]),
        ("strategy", "Attack success by strategy", "Strategy", analysis["by_strategy"]),
        ("controls", "Harmless prompts spoilt, by kind", "Kind", kinds),
    )
    footer = evidence.footer([analysis])
    drawn = {
        view[0]: _rate_figure(*view, targets=targets, footer=footer) for view in views if view[-1]
    }
    first = [drawn.pop("totals")] if "totals" in drawn else []
    gain = _GAIN if any("sanitizer" in name or "guarded" in name for name in targets) else ""
    method = Text(f"How it is counted: {analysis['method']} {gain}".strip())
    return [
        Section("Overall", [*first, method]),
        Section("What the attacks were, and how they were put", [*drawn.values()]),
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
        groups.sort(key=_order(series))
    shown = _telling(groups, series)
    tried = {
        group: _span([row["attempts"] for row in rows if row["group"] == group]) for group in groups
    }

    def cells(group: str) -> list[Cell]:
        rates = [one.get(group) for one in series.values()]
        shares = (estimate(rate, percent) if rate else "–" for rate in rates)
        return [words(group), tried[group], *shares]

    some = _span([row["attempts"] for row in rows if row["group"] in shown])
    left = f" Drawn are the {len(shown)} of {len(groups)} that most surely succeed, and plain; all "
    left = f"{left}are in the numbers." if len(shown) < len(groups) else ""
    return Figure(
        name=name,
        title=title,
        spec=dots(shown, series),
        summary=f"Share of {some} attempts per dot, with its 95 % interval; further left is "
        f"better.{left}",
        footer=footer,
        keys=tuple((target, color_of(target, at)) for at, target in enumerate(targets)),
        numbers=table(title, [head, "Attempts | per target", *series], map(cells, groups)),
    )


def _order(series: Mapping[str, Mapping[str, Any]]) -> Callable[[str], tuple[Any, ...]]:
    """Return how rows are sorted: severities by name, others by the first target's rate."""
    first = next((one for one in series.values() if one), {})

    def key(group: str) -> tuple[Any, ...]:
        if group in _SEVERITIES:
            return (0, _SEVERITIES.index(group), group)
        return (1, -first[group]["value"] if group in first else 0.0, group)

    return key


def _telling(groups: Sequence[str], series: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the groups to draw, in their order: those that most surely succeed, and ``plain``.

    Surely: by the lower end of the interval, or what was tried least would lead.
    """
    most = min(_MOST_ROWS, max(_LEAST_ROWS, _MOST_DOTS // max(len(series), 1)))

    def surely(group: str) -> float:
        return max(float(one[group]["low"]) for one in series.values() if group in one)

    best = sorted(groups, key=lambda group: (group != "plain", -surely(group)))[:most]
    return [group for group in groups if group in best]


def _span(values: Sequence[int]) -> Number:
    return Number(" to ".join(dict.fromkeys(number(end) for end in (min(values), max(values)))))


def _execution(execution: Mapping[str, Any] | None) -> Text:
    if execution is None:
        return unfinished("Nothing was executed yet", "execution")
    trials = execution.get("trials", 1)
    tries = f", each case {number(trials)} times" if trials > 1 else ""
    return Text(
        f"Execution {short(execution['execution'])}: {number(execution['attempts'])} attempts "
        f"on {', '.join(execution['targets'])}{tries}; {number(execution['resumed'])} of them from "
        f"an earlier, interrupted run; {counted(execution['errors'], 'error')}."
    )


def _tests(tests: Mapping[str, Any] | None) -> list[Block]:
    if tests is None:
        return [unfinished("No test set here", "test_set")]
    expected, prompts = tests["estimate"], "Count | tests"
    told = (
        f"Test set {short(tests['test_set'])} (promptfoo id "
        f"{short(tests['promptfoo_id']) or 'none'}): {number(tests['tests'])} tests, "
        f"{number(tests['controls'])} of them harmless. Estimated beforehand, per target: "
        f"{number(expected['calls'])} calls, {duration(expected['cpu_s'])} of CPU, "
        f"{dollars(expected['usd'])}."
    )
    if why := tests.get("limited_by"):
        told += f" There are not more because of: {words(why)}."
    if unwritten := tests.get("unwritten"):
        told += f" Models did not write {counted(unwritten, 'case')} that they should have."
    blocks: list[Block] = [Text(told)]
    if left_out := tests.get("left_out"):
        blocks.append(table("Plugins without a test", ["Plugin", "Why"], left_out.items()))
    if dropped := tests.get("dropped"):
        caption = "Drafts of models that were dropped"
        blocks.append(counts(caption, ["Reason", "Count | drafts"], dropped))
    blocks += [
        _fold(counts(f"Tests by {by}", [by.capitalize(), prompts], tests[f"by_{by}"]))
        for by in ("category", "plugin", "strategy")
    ]
    return [*blocks, Passages.of(tests["samples"][:6], texts=("prompt", "goal"))]


def _fold(shown: Table) -> Table:
    return shown.folded() if len(shown.rows) > _LONG else shown
