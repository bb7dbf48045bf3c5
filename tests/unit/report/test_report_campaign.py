"""The campaign's page: every statistic, and a headline that is honest whatever was attacked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import report_results as made
from workbench.report.blocks import Figure, Page, Passages, Table
from workbench.report.evidence import Evidence, read_evidence
from workbench.report.pages import campaign
from workbench.report.pages.campaign_finding import finding, targets_of
from workbench.report.tables import percent, percentage_points, probability
from workbench.store import campaign_results as shapes
from workbench.store.database import Store

TWO = {"app-lax": 0.256, "app-strict": 0.041}


def evidence_of(store: Store, analysis: dict[str, Any], **steps: Any) -> Evidence:
    shown = {"tests": [made.test_set()], "attack": [made.execution()], "analysis": [analysis]}
    made.fill(store, shown | steps)
    return read_evidence(store, "quickstart")


def page_of(store: Store, analysis: dict[str, Any]) -> Page:
    page = campaign.page(evidence_of(store, analysis))
    assert page is not None
    return page


def blocks_of(page: Page) -> list[Any]:
    return [block for section in page.sections for block in section.blocks]


def words_of(page: Page) -> str:
    """Return everything that the page says, hidden tables included."""
    told = [*page.finding] if page.finding else []
    told += [note.text for note in page.notes]
    for section in page.sections:
        told.append(section.heading)
        for block in section.blocks:
            numbers = block.numbers if isinstance(block, Figure) else block
            if isinstance(block, Figure):
                told += [block.title, block.summary]
            if isinstance(numbers, Table):
                told += [numbers.caption, numbers.note, *(one.name for one in numbers.columns)]
                told += [str(cell) for row in numbers.rows for cell in row]
            elif isinstance(block, Passages):
                told += [f"{labels} {parts}" for labels, parts in block.passages]
            elif not isinstance(block, Figure):
                told.append(block.text)
    return "\n".join(told).replace("\u00a0", " ")


def claim_of(analysis: dict[str, Any]) -> str:
    return finding(analysis).claim.replace("\u00a0", " ")


def proof_of(analysis: dict[str, Any]) -> str:
    return finding(analysis).proof.replace("\u00a0", " ")


def table_of(page: Page, caption: str) -> Table:
    found = [one for one in blocks_of(page) if isinstance(one, Table) and caption in one.caption]
    assert len(found) == 1, [one.caption for one in found]
    return found[0]


def test_the_made_up_analysis_has_every_key_of_the_result() -> None:
    assert made.analysis().keys() == shapes.AnalysisResult.__annotations__.keys()
    assert made.answered(TWO).keys() == made.analysis().keys()


@pytest.mark.parametrize(
    "key",
    ["by_strategy", "by_category", "by_plugin", "by_severity", "controls", "delivered", "totals"],
)
def test_every_rate_is_told_with_its_interval(store: Store, key: str) -> None:
    text = words_of(page_of(store, made.analysis()))
    for row in made.analysis()[key]:
        low, high = percent(row["rate"]["low"]), percent(row["rate"]["high"])
        assert f"{percent(row['rate']['value'])} [{low}, {high}]".replace("\u00a0", " ") in text


@pytest.mark.parametrize("key", ["comparisons", "mutations"])
def test_every_comparison_is_told(store: Store, key: str) -> None:
    text = words_of(page_of(store, made.analysis()))
    for row in made.analysis()[key]:
        shown = {name: percentage_points(row["difference"][name]) for name in ("low", "high")}
        assert f"[{shown['low']}, {shown['high']}]" in text
        assert probability(row["p_adjusted"]) in text
        assert (row["group"] if row["by"] != "all" else row["second"]) in text


def test_everything_else_is_told(store: Store) -> None:
    text = words_of(page_of(store, made.analysis()))
    for expected in (
        "0.744 [0.713, 0.775]",  # kappa
        "0.731",  # alpha
        "89.3 % of the 1,260 attempts",
        "395",  # findings that wait
        "85.4 % [76.4 %, 94.4 %]",  # precision of suggested states
        "97.2 % [95.2 %, 99.2 %]",  # and recall
        "Put into a story",  # summary of an example
        "Each case was tried once",
        "86.1 %",  # recall of a probe
        "each case 3 times",
    ):
        assert expected in text, expected


def test_what_each_phase_cost_and_what_was_left_out_is_told(store: Store) -> None:
    more = {
        "limited_by": "max_tests",
        "left_out": {"pii": "no profile"},
        "unwritten": 3,
        "dropped": {"refused": 2},
        "usd": 0.8312,
    }
    tests = [made.test_set() | more]
    page = campaign.page(evidence_of(store, made.answered(TWO), tests=tests))
    assert page is not None
    rows = {row[0]: [str(cell) for cell in row[1:4]] for row in table_of(page, "two phases").rows}
    assert rows == {
        "Generation": ["420 tests", "$0.83", "$0.00022"],
        "Execution": ["1,260 attempts", "$5.00", "$0.00022"],
    }
    text = words_of(page)
    for expected in ("because of: max tests", "no profile", "did not write 3 cases", "refused"):
        assert expected in text


def test_models_tell_errors_costs_and_how_steady_they_are(store: Store) -> None:
    analysis = made.answered(TWO)
    page = page_of(store, analysis)
    targets = {row[0]: row for row in table_of(page, "Each target's answers").rows}
    assert [str(cell) for cell in targets["app-strict"][1:4]] == ["480", "20", "4.0\u00a0%"]
    assert [str(cell) for cell in targets["app-strict"][-2:]] == ["$2.50", "$5.21"]
    text = words_of(page)
    for expected in ("status 502: <b>x</b>", "5b5b5b5b5b5b", "1 of 3", "33.3 %", "answered/1"):
        assert expected in text
    accuracy = {row[0]: row for row in table_of(page, "The error of the judges of answers").rows}
    assert str(accuracy["assertions/1"][4]) == "–"  # never says yes
    shown = list(table_of(page, "The error of the judges of answers").rows)
    assert [str(cell) for cell in shown[-1][1:3]] == ["attack", "68 held out"]
    assert "The labelled answers are ours." in words_of(page)
    assert "40.0\u00a0% of the 12 held out" in page.finding.proof
    assert str(accuracy["panel@7045af42fa72"][4]).startswith("84.3")
    assert not [row for row in words_of(page).splitlines() if "arriving intact" in row]


def test_an_upper_bound_is_called_one(store: Store) -> None:
    analysis = made.answered(TWO)
    assert claim_of(analysis) == (
        "Attack success differs: at most 25.6 % on app-lax, at most 4.1 % on app-strict"
    )
    assert "104 of the answers that count merely were not declined" in proof_of(analysis)
    assert "at most" in page_of(store, analysis).facts[0].label
    for said in analysis["opinions"]:  # every success was an assertion that held
        said["attacks"] *= said["judge"] == "assertions/1"
    assert "at most" not in claim_of(analysis)
    assert "upper bound" not in proof_of(analysis)


def test_who_judged_without_saying_what_is_an_upper_bound_too() -> None:
    analysis = made.answered(TWO)
    del analysis["opinions"]
    assert "at most 25.6 %" in claim_of(analysis)


def test_a_difference_that_may_be_chance_is_no_finding() -> None:
    analysis = made.answered(TWO)
    for row in analysis["comparisons"]:
        row["p_adjusted"] = 0.06
    assert claim_of(analysis).startswith("Attack success does not clearly differ")
    assert "this campaign alone does not settle it" in proof_of(analysis)
    guards = made.analysis()
    for row in guards["comparisons"]:
        row["p_adjusted"] = 0.06
    assert claim_of(guards).startswith("Attack success does not clearly fall")


def test_a_guard_that_makes_it_worse_is_told_to() -> None:
    analysis = made.analysis()
    for row in analysis["comparisons"]:
        row["difference"] = made.interval(0.2, 0.05)
    assert claim_of(analysis).startswith("Attack success rises")


def test_without_a_test_overlapping_intervals_settle_nothing() -> None:
    analysis = made.old_analysis()
    bare, guard, _ = analysis["totals"]
    guard["rate"] = made.interval(bare["rate"]["value"] - 0.01, 0.05)
    assert "The intervals overlap" in proof_of(analysis)


def test_one_model_has_nobody_to_be_compared_with(store: Store) -> None:
    analysis = made.answered({"app": 0.25})
    assert claim_of(analysis) == "At most 25.0 % of attacks succeed on app"
    assert "No second model was attacked" in proof_of(analysis)
    (first, *_) = page_of(store, analysis).facts
    assert "gray tick" not in first.note


def test_one_guard_and_no_control(store: Store) -> None:
    analysis = made.analysis()
    for key in ("totals", "delivered", "controls", "by_strategy", "by_category"):
        analysis[key] = [row for row in analysis[key] if row["target"] == "sanitizer@1.0"]
    analysis |= {"controls": [], "comparisons": [], "errors": {}}
    assert claim_of(analysis) == "34.0 % of attacks succeed on sanitizer@1.0"
    assert "Harmless" not in proof_of(analysis)
    assert page_of(store, analysis).sections


def test_of_many_models_both_ends_are_told() -> None:
    analysis = made.answered({f"app-{at}": share for at, share in enumerate((0.4, 0.1, 0.9, 0.2))})
    assert claim_of(analysis) == (
        "Attack success goes from at most 10.0 % on app-1 to at most 90.0 % on app-2, over 4 models"
    )
    assert "6 of 6 pairs of models differ" in proof_of(analysis)


def mixture() -> dict[str, Any]:
    guards, models = made.analysis(), made.answered(TWO)
    lists = ("totals", "delivered", "controls", "by_strategy", "judge_accuracy", "opinions")
    mixed = guards | {key: guards[key] + models[key] for key in lists}
    mixed["kinds"] = guards["kinds"] | models["kinds"]
    mixed["errors"] = guards["errors"] | models["errors"]
    mixed["comparisons"] = [
        *guards["comparisons"],
        made.comparison("bare", "app-lax", "all", "all", -0.5),
        *models["comparisons"],
    ]
    return mixed


def test_guards_and_models_are_never_compared(store: Store) -> None:
    analysis = mixture()
    assert claim_of(analysis) == (
        "Attack success falls: 79.0 % on bare, 34.0 % behind sanitizer@1.0; on 2 models it is at "
        "most 4.1 % to 25.6 %"
    )
    assert "must not be compared" in proof_of(analysis)
    page = page_of(store, analysis)
    rows = table_of(page, "Two targets over everything").rows
    told = [(row[1].replace("\u00a0", " "), row[2]) for row in rows if "attacks" in row[0]]
    assert told == [
        (f"{pair}", "fewer\u00a0on\u00a0the\u00a0second")
        for pair in ("bare → sanitizer@1.0", "bare → sanitizer@4.0", "app-lax → app-strict")
    ]


def test_no_attack_at_all(store: Store) -> None:
    rates = ("totals", "by_strategy", "by_category", "by_plugin", "by_severity", "delivered")
    analysis = made.analysis() | {key: [] for key in (*rates, "comparisons", "mutations")}
    assert claim_of(analysis) == "No attack was executed"
    assert "Harmless prompts are spoilt on bare in 0.0 %" in proof_of(analysis)
    nothing = analysis | {"controls": [], "latency_ms": {}, "examples": [], "states": {}}
    assert page_of(store, nothing | {"errors": {}, "usd": {}, "kinds": {}}).sections


def test_targets_that_never_answered_are_named() -> None:
    analysis = made.answered(TWO)
    analysis["totals"] = analysis["totals"][:1]
    analysis["controls"] = [row for row in analysis["controls"] if row["target"] == "app-lax"]
    assert targets_of(analysis) == ["app-lax", "app-strict"]
    assert "No attempt on app-strict counts: 20 attempts failed" in proof_of(analysis)
    analysis |= {"totals": [], "controls": []}
    assert claim_of(analysis) == "No attack was answered and judged"
    assert "20 attempts failed" in proof_of(analysis)


def test_a_judge_whose_error_nobody_measured_is_named(store: Store) -> None:
    analysis = made.answered(TWO)
    analysis["opinions"].append(
        {"judge": "rubric@strong", "attempts": 90, "attacks": 9, "controls": 0}
    )
    assert "nobody measured here: rubric@strong" in words_of(page_of(store, analysis))
    analysis["judge_accuracy"] = []
    assert "How often the judges of answers err was not measured" in proof_of(analysis)


def test_votes_of_one_name_are_told_apart(store: Store) -> None:
    both = "embedding@73bb984a5cb2+text@73bb984a5cb2"
    analysis = made.analysis()
    analysis["opinions"].append({"judge": both, "attempts": 1, "attacks": 1, "controls": 0})
    assert both.replace("+", " + ") in words_of(page_of(store, analysis))


def test_an_older_result_is_rendered(store: Store) -> None:
    page = page_of(store, made.old_analysis())
    text = words_of(page)
    assert "They agree on 89.3 % of attempts" in text
    assert "442 findings in all" in text
    for absent in ("Targets compared", "What a disguise adds", "How steady"):
        assert not next((one for one in page.sections if one.heading == absent), ("", ()))[1]
    assert len(page.figures) == 4


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sets(st.sampled_from(sorted(made.analysis().keys() - made.old_analysis().keys()))))
def test_any_newer_key_may_be_absent(missing: set[str]) -> None:
    analysis = {key: value for key, value in made.answered(TWO).items() if key not in missing}
    evidence = Evidence(
        experiment="x", file="x", state="succeeded", runs=(), waiting={}, bills={}, ablation=None
    )
    told = campaign.finding(analysis)
    assert told.claim
    assert campaign.statistics(evidence, analysis)
    assert campaign.judges(analysis)
    assert campaign.triage(analysis)
    assert campaign.facts(analysis)


def test_many_strategies_are_drawn_in_part_and_listed_whole(store: Store) -> None:
    analysis = made.analysis()
    names = [*(f"wrap-a_very_long_name_of_a_strategy_{at:02d}" for at in range(75)), "plain"]
    analysis["by_strategy"] = [
        made.rate(target, name, min(1.0, share * (at % 7) / 6), 4 if at == 6 else 40)
        for at, name in enumerate(names)
        for target, share in made.TARGETS.items()
    ]
    analysis["mutations"] = [
        made.comparison("plain", name, "target", target, 0.4 - at / 50, p=at / 75)
        for at, name in enumerate(names[:-1])
        for target in made.TARGETS
    ]
    figures = {one.name: one for one in page_of(store, analysis).figures}
    drawn = figures["strategy"]
    labels = drawn.spec["layout"]["yaxis"]["ticktext"]
    assert len(labels) == 16
    assert "plain" in labels
    assert "the 16 of 76" in drawn.summary
    assert drawn.numbers is not None
    assert len(drawn.numbers.rows) == 76
    disguises = figures["disguises"]
    assert "the 14 of 75" in disguises.summary
    assert disguises.numbers is not None
    assert len(disguises.numbers.rows) == 225
    assert disguises.spec["layout"]["height"] < 900


def test_what_was_tried_least_does_not_lead(store: Store) -> None:
    analysis = made.analysis()
    rows = [made.rate("bare", f"often {at:02d}", 0.6, 400) for at in range(20)]
    analysis["by_strategy"] = [made.rate("bare", "once", 1.0, 1), *rows]
    drawn = {one.name: one for one in page_of(store, analysis).figures}["strategy"]
    assert "once" not in drawn.spec["layout"]["yaxis"]["ticktext"]


def test_disguises_that_help_and_hurt_are_named(store: Store) -> None:
    analysis = made.analysis()
    analysis["mutations"] = [
        made.comparison("plain", "fiction", "target", "bare", 0.3),
        made.comparison("plain", "rot13", "target", "bare", -0.4),
        made.comparison("plain", "hex", "target", "bare", 0.1, p=0.9),
        made.comparison("plain", "morse", "target", "bare", 0.1, p=0.004),
    ]
    text = words_of(page_of(store, analysis))
    assert "1 helps the attacker (fiction) and 1 hurts the attacker (rot13)" in text
    assert "with one false claim in twenty allowed, 3 do" in text


def test_differences_are_drawn_around_zero(store: Store) -> None:
    drawn = {one.name: one for one in page_of(store, made.analysis()).figures}["disguises"]
    low, high = drawn.spec["layout"]["xaxis"]["range"]
    assert low == -high
    reach = [abs(x) for trace in drawn.spec["data"] for x in trace["x"]]
    assert max(reach) < high
    json.dumps(drawn.spec, allow_nan=False)


@given(st.floats(-1, 1))
def test_points_and_probabilities_keep_their_value(value: float) -> None:
    shown = percentage_points(value).replace("−", "-")
    assert float(shown) == pytest.approx(100 * value, abs=0.0501)
    assert shown[0] in "+-" or shown == "0.0"
    p = probability(abs(value))
    assert p == "< 0.001" if abs(value) < 0.001 else float(p) == pytest.approx(abs(value), abs=6e-4)
