"""The cost page on model calls, estimates, the return on investment and the savings measured."""

from __future__ import annotations

from typing import Any

import pytest

import report_results as made
from workbench.report.blocks import Figure, Text
from workbench.report.evidence import read_evidence
from workbench.report.html import render
from workbench.report.pages import cost
from workbench.report.tables import Table, dollars, size
from workbench.store.database import Store


def sections_of(store: Store, found: dict[str, Any], **steps: Any) -> dict[str, Any]:
    made.fill(store, {"pairs": [made.pairs()], "cost": [found], **steps})
    page = cost.page(read_evidence(store, "quickstart"))
    assert page is not None
    return {heading: list(blocks) for heading, blocks in page.sections}


def column(shown: Table, name: str, unit: str = "") -> list[str]:
    at = [(one.name, one.unit) for one in shown.columns].index((name, unit))
    return [str(row[at]) for row in shown.rows]


def test_calls_are_told_by_phase_model_and_task(store: Store) -> None:
    said, by_phase, by_model, by_task = sections_of(store, made.cost())["Model calls"]
    assert "The bill for 1,672 calls is $5.75" in said.text
    assert "without a model: 38 requests" in said.text
    assert "No answer came to 2 calls" in said.text
    assert column(by_phase, "Phase") == ["generation", "execution", "total"]
    assert column(by_phase, "Billed", "US$") == ["$0.83", "$4.92", "$5.75"]
    assert column(by_phase, "Lost") == ["0", "2", "2"]
    assert column(by_model, "Model") == ["claude-opus-5", "claude-haiku-5-5"]
    assert column(by_model, "Cached", "tokens") == ["495,040", "2,688,448"]
    assert column(by_task, "Task") == ["mutation", "target", "summary"]
    assert column(by_task, "Sent") == ["3.76\u00a0MB", "11.9\u00a0MB", "113\u00a0kB"]


@pytest.mark.parametrize("is_old", [False, True])
def test_without_model_calls_one_sentence_says_so(store: Store, is_old: bool) -> None:
    found = made.cost()
    nothing = {key: {} if key == "misses" else 0 for key in found["calls"]["total"]}
    found["calls"] = {"by_phase": [], "by_model": [], "by_task": [], "total": nothing}
    found["estimates"] = []
    if is_old:
        del found["calls"], found["estimates"]
    sections = sections_of(store, found)
    assert [type(block) for block in sections["Model calls"]] == [Text]
    assert "No model was asked" in sections["Model calls"][0].text
    assert sections["Estimated against spent"] == []
    assert sections["What each saving saves"] == []


def test_bills_stand_on_their_estimates(store: Store) -> None:
    figure, numbers = sections_of(store, made.cost())["Estimated against spent"]
    bars, ticks, truth = figure.spec["data"]
    assert figure.title == "Bills within their estimates: 1 of 3"
    assert bars["base"] == pytest.approx([0.3] * 3)
    assert [a + b for a, b in zip(bars["base"], bars["x"], strict=True)] == pytest.approx([1.0] * 3)
    assert ticks["x"] == pytest.approx([0.55] * 3)
    assert truth["x"] == pytest.approx([0.8312 / 1.62, 4.9183 / 4.4, 0.21 / 4.4])
    assert figure.spec["layout"]["xaxis"]["range"][1] > 4.9183 / 4.4
    assert column(numbers, "Work")[0] == "pairs · generation"  # a run's work has its name
    assert column(numbers, "Verdict") == ["within", "above", "cut\u00a0short"]


def test_estimate_of_nothing_is_drawn(store: Store) -> None:
    found = made.cost()
    for key in ("low_usd", "expected_usd", "worst_usd", "usd", "ratio"):
        found["estimates"][0][key] = 0.0
    figure = sections_of(store, found)["Estimated against spent"][0]
    assert figure.spec["data"][2]["x"][0] == 0.0


def test_tornado_shows_each_assumption_at_both_ends(store: Store) -> None:
    found = made.cost()
    figure = sections_of(store, found)["Would it pay?"][-1]
    low, high = figure.spec["data"]
    for trace, end in ((low, "low"), (high, "high")):
        ends = [a + b for a, b in zip(trace["base"], trace["x"], strict=True)]
        told = [row[f"saving_at_{end}_usd"] for row in found["roi"]["sensitivity"]]
        assert ends == pytest.approx(told)
        assert set(trace["base"]) == {made.SAVING}
        assert all(
            saving == made.SAVING or text for saving, text in zip(told, trace["text"], strict=True)
        )
    names = figure.spec["layout"]["yaxis"]["ticktext"]
    assert names[0].startswith("per prompt share<br>")
    assert "0 to 1" in names[0]
    assert column(figure.numbers, "Assumption")[0] == "per prompt share"
    assert figure.spec["layout"]["shapes"][0]["x0"] == made.SAVING


def test_many_assumptions_are_drawn_in_part_and_listed_whole(store: Store) -> None:
    found = made.cost()
    rows = found["roi"]["sensitivity"]
    found["roi"]["sensitivity"] = [{**rows[0], "name": f"a{at}"} for at in range(20)]
    figure = sections_of(store, found)["Would it pay?"][-1]
    assert len(figure.spec["layout"]["yaxis"]["ticktext"]) == 12
    assert len(figure.numbers.rows) == 20


def test_what_never_pays_back_says_so(store: Store) -> None:
    found = made.cost()
    found["roi"] |= {"payback_days": None, "sensitivity": []}
    note, yearly = sections_of(store, found)["Would it pay?"]
    assert note.is_note
    assert "never" in column(yearly, "Value")


def test_every_assumption_has_its_range_and_source(store: Store) -> None:
    (shown,) = sections_of(store, made.cost())["Assumptions"]
    at = column(shown, "Assumption").index("commercial usd per prompt")
    row = [str(one) for one in shown.rows[at]]
    assert row[1:4] == ["0.0150", "0.00100", "0.0200"]
    assert row[-1] == "roadmap"


def test_savings_stand_beside_claims(store: Store) -> None:
    sections = sections_of(store, made.cost(), ablate=[made.ablation()])
    said, usd, seconds, shown, why = sections["What each saving saves"]
    assert "500 record summaries" in said.text
    assert "$3.20" in said.text
    for figure in (usd, seconds):
        assert isinstance(figure, Figure)
        assert len(figure.spec["layout"]["yaxis"]["ticktext"]) == 6
        assert "commit 1a2b3c4" in figure.footer
    bars, claims, _ = usd.spec["data"]
    assert bars["x"][0] == pytest.approx(1 - 2.3 / 3.2)
    assert claims["x"] == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.9])
    assert claims["y"] == [0, 1, 2, 3, 5]  # nothing is claimed of the bill for parallel calls
    assert claims["error_x"]["array"][-1] == pytest.approx(0.05)
    assert seconds.spec["layout"]["xaxis"]["range"][0] < 1 - 60 / 51  # slower is left of zero
    assert column(shown, "Bill", "claimed")[-2:] == ["–", "85–95\u00a0%"]
    assert column(shown, "Bill", "measured")[-2:] == ["same", "saves\u00a093.8\u00a0%"]
    assert column(shown, "Tokens", "claimed")[3] == "15–25\u00a0%"
    assert column(shown, "Tokens", "measured")[3] == "saves\u00a05.4\u00a0%"
    assert column(why, "Saving")[0] == "prompt caching"
    assert column(why, "Combined bill")[:2] == ["falls\u00a04.3\u00a0%", "rises\u00a040.0\u00a0%"]
    assert column(why, "Why it came out so")[0].startswith("the instructions")
    pages = [said.text, *(figure.title + figure.summary for figure in (usd, seconds))]
    assert " ".join(pages).count("guide") == 1  # whose claims these are is said once


def test_times_are_told_as_exactly_as_one_run_can_tell(store: Store) -> None:
    shown = sections_of(store, made.cost(), ablate=[made.ablation()])["What each saving saves"][3]
    assert column(shown, "Time", "measured") == [
        "noise", "noise", "saves\u00a0≈\u00a060\u00a0%", "noise", "saves\u00a0≈\u00a090\u00a0%",
        "saves\u00a0>\u00a095\u00a0%",
    ]  # fmt: skip


def test_the_ablation_has_a_report_of_its_own(store: Store, tmp_path: Any) -> None:
    run = made.make_run("run-0", "ablation", "ablation", result=made.ablation())
    store.runs.add(run)
    store.runs.set_experiment(
        "ablation", file="", members={"ablation": ["run-0"]}, state="succeeded", owner="t"
    )
    index = render(store, "ablation", tmp_path).read_text("utf-8")
    assert "All savings together take 93.8\u00a0% off the bill" in index
    assert "Each of the" not in index  # one run needs no list
    assert sorted(path.name for path in tmp_path.glob("*.html")) == ["cost.html", "index.html"]
    html = (tmp_path / "cost.html").read_text("utf-8")
    assert "Nothing here yet" not in html
    assert html.count('class="figure-data"') == 2
    assert "Each saving off, all others on" in html


def test_an_ablation_of_an_older_version_spoils_no_page(store: Store) -> None:
    older = made.ablation()
    del older["combined"]["claimed_tokens"]
    assert sections_of(store, made.cost(), ablate=[older])["What each saving saves"] == []


def test_one_of_a_thing_is_not_many(store: Store) -> None:
    found = made.cost()
    found["calls"]["total"] |= {"calls": 1, "hits": 1, "rules": 1, "lost": 1}
    said = sections_of(store, found)["Model calls"][0].text
    for one in ("1 call is", "1 answer,", "1 request.", "1 call,"):
        assert one in said


def proof_of(store: Store, found: dict[str, Any]) -> str:
    made.fill(store, {"pairs": [made.pairs()], "cost": [found]})
    page = cost.page(read_evidence(store, "quickstart"))
    assert page is not None
    assert page.finding is not None
    return page.finding.proof


def test_the_finding_gives_the_range_and_what_makes_it_a_loss(store: Store) -> None:
    said = proof_of(store, made.cost())
    assert "between −$4.1M and +$54.6M a year" in said
    assert "(+$112,300 as assumed below)" in said
    assert "negative if commercial usd per prompt is 0.00100 or attack reduction is 0.300" in said
    assert "or in 2 more cases." in said


def test_no_loss_is_told_where_there_is_none(store: Store) -> None:
    found = made.cost()
    found["roi"]["sensitivity"] = found["roi"]["sensitivity"][:1]
    assert "negative if" not in proof_of(store, found)


@pytest.mark.parametrize(("factor", "is_left_out"), [(9.9, False), (10.1, True)])
def test_what_outweighs_all_others_is_said_not_drawn(
    store: Store, factor: float, is_left_out: bool
) -> None:
    found = made.cost()
    first, second, *_ = found["roi"]["sensitivity"]
    first["swing_usd"] = factor * second["swing_usd"]
    *_, said, figure = sections_of(store, found)["Would it pay?"]
    first_drawn = figure.spec["layout"]["yaxis"]["ticktext"][0]
    assert first_drawn.startswith("commercial" if is_left_out else "per prompt share")
    assert column(figure.numbers, "Assumption")[0] == "per prompt share"
    if is_left_out:
        assert "outweighs all others: per prompt share takes the saving from +$112,300 at 0" in (
            said.text
        )


def test_what_is_assumed_at_its_best_end_is_named(store: Store) -> None:
    note, *_ = sections_of(store, made.cost())["Would it pay?"]
    assert note.text.endswith("best for it: prompts per day.")


def test_the_totals_of_a_job_are_told_apart(store: Store) -> None:
    said = sections_of(store, made.cost())["Spend"][-1].text
    for total in ("step of costs", "table of steps on the first page", "`workbench cost show`"):
        assert total in said


def test_newest_ablation_of_the_store_is_shown_unless_the_experiment_has_its_own(
    store: Store, tmp_path: Any
) -> None:
    steps = {"pairs": [made.pairs()], "cost": [made.cost()]}
    made.fill(store, steps)
    folder = tmp_path / "report"
    render(store, "quickstart", folder)
    assert "What each saving saves" not in (folder / "cost.html").read_text("utf-8")
    for at, words in enumerate(("older", "newer")):
        result = {**made.ablation(), "workload": f"a {words} workload"}
        started = f"2026-11-21T0{at}:00:00.000000Z"
        run = made.make_run(f"run-{at}", "ablation", "by-hand", result=result, started_at=started)
        store.runs.add(run)
    render(store, "quickstart", folder)  # what was written before is not taken for whole
    html = (folder / "cost.html").read_text("utf-8")
    assert "a newer workload" in html
    assert "an older workload" not in html
    made.fill(store, {**steps, "ablation": [made.ablation()]}, experiment="other")
    found = read_evidence(store, "other").ablation
    assert found is not None
    assert found["workload"] == made.ablation()["workload"]


@pytest.mark.parametrize(
    ("usd", "shown"),
    [(999_499, "$999,499"), (999_500, "$1.0M"), (-4.13e6, "−$4.1M"), (5.46e9, "$5,460.0M")],
)
def test_large_amounts_are_told_in_millions(usd: float, shown: str) -> None:
    assert dollars(usd) == shown


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 B"), (999, "999 B"), (1500, "1.50 kB"), (2 * 10**9, "2.00 GB")]
)
def test_sizes(count: int, shown: str) -> None:
    assert size(count).replace("\u00a0", " ") == shown
