"""The page of risks: what it claims, what it counts, and what it says where there is nothing."""

from __future__ import annotations

import copy
import re
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NotRequired, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

import report_assessment
import report_results as made
from workbench.report import figures
from workbench.report.blocks import Cards, Figure, Grid, Page, Sortable, Text
from workbench.report.evidence import read_evidence
from workbench.report.html import render
from workbench.report.pages import risk
from workbench.report.tables import Table
from workbench.store.database import Store
from workbench.store.risk_results import AssessmentResult, RiskRow

WHOLE = report_assessment.assessment()


@pytest.fixture
def found() -> dict[str, Any]:
    return copy.deepcopy(WHOLE)


def built(store: Store, found: dict[str, Any]) -> Page:
    made.fill(store, {"assess": [found]})
    page = risk.page(read_evidence(store, "quickstart"))
    assert page is not None
    return page


def blocks(page: Page, kind: type) -> list[Any]:
    return [one for section in page.sections for one in section.blocks if isinstance(one, kind)]


def texts(page: Page) -> str:
    return " ".join(one.text for one in blocks(page, Text))


def test_the_claim_names_the_worst_what_is_late_and_when_it_is_due(
    store: Store, found: dict[str, Any]
) -> None:
    found["counts"] |= {"overdue": 2, "by_level": {"critical": 3, "high": 1}}
    found["top"] = [
        {**found["top"][0], "status": "closed"},
        {**found["top"][1], "subject": "CVE-2021-44228", "asset": "web-1", "due": "2026-11-29"},
    ]
    finding = built(store, found).finding
    assert finding is not None
    assert finding.claim == (
        "3 critical risks, 2 overdue; worst: CVE-2021-44228 on web-1, due 2026-11-29, in 3 days"
    )


@pytest.mark.parametrize(
    ("due", "told"),
    [
        ("2026-11-26", "due 2026-11-26, today"),
        ("2026-11-25", "due 2026-11-25, 1 day overdue"),
        ("2026-11-27", "due 2026-11-27, in 1 day"),
        ("", "due with the next upgrade"),
        ("soon", "due soon"),
    ],
)
def test_due_dates_are_told_from_the_day_of_the_assessment(
    store: Store, found: dict[str, Any], due: str, told: str
) -> None:
    found["top"][0]["due"] = due
    finding = built(store, found).finding
    assert finding is not None
    assert finding.claim.endswith(told)


def test_levels_below_critical_are_not_called_critical(store: Store, found: dict[str, Any]) -> None:
    found["counts"] |= {"overdue": 0, "by_level": {"critical": 0, "high": 12}}
    finding = built(store, found).finding
    assert finding is not None
    assert finding.claim.startswith("No critical risk, 12 high, none overdue; worst: ")


@pytest.mark.parametrize(
    ("risks", "claim"),
    [(14, "No open risk: all 14 are closed"), (0, "No open risk: nothing that was read is known")],
)
def test_no_open_risk_is_told_apart_from_no_risk(store: Store, risks: int, claim: str) -> None:
    nothing = report_assessment.empty()
    nothing["counts"] |= {"risks": risks, "closed": risks}
    finding = built(store, nothing).finding
    assert finding is not None
    assert finding.claim.startswith(claim)


def test_the_matrix_counts_every_open_risk_at_its_level(
    store: Store, found: dict[str, Any]
) -> None:
    (grid,) = (one for one in blocks(built(store, found), Grid) if one.name == "matrix")
    seen = dict.fromkeys(risk.LEAST_SCORES, 0)
    for head, _, cells in grid.rows:
        for impact, cell in enumerate(cells, start=1):
            assert cell.shown == str(found["matrix"][int(head) - 1][impact - 1])
            assert cell.told.endswith(f"likelihood {head}, impact {impact}")
            assert cell.note == cell.tone  # told in words too
            seen[cell.tone] += int(cell.shown)
    assert [head for head, _, _ in grid.rows] == ["5", "4", "3", "2", "1"]
    assert seen == found["counts"]["by_level"]


def test_levels_are_those_of_the_scores() -> None:
    import numpy as np

    from workbench.risk import score
    from workbench.risk.records import LEVELS

    scores = np.arange(1, 26, dtype=np.int8)
    for one, code in zip(scores, score.level(scores), strict=True):
        assert LEVELS[code] == next(
            level for level, least in risk.LEAST_SCORES.items() if one >= least
        )


@given(st.dates(date(2024, 1, 1), date(2030, 12, 31)), st.integers(-40, 140))
def test_each_day_due_stands_at_its_week_and_weekday(today: date, ahead: int) -> None:
    from workbench.report.pages.risk_due import due_dates

    on = today + timedelta(days=ahead)
    row = {"due": on.isoformat(), "low": 0, "medium": 0, "high": 2, "critical": 1}
    found = {"policy": "x", "today": today.isoformat(), "calendar": [row], "decisions": {}}
    _, grid = due_dates(found | {"register": [], "counts": {"overdue": 0}}, "")
    assert isinstance(grid, Grid)
    *days, (_, _, sums) = grid.rows
    filled = [
        (weekday, week)
        for weekday, (_, _, cells) in enumerate(days)
        for week, cell in enumerate(cells)
        if cell.shown
    ]
    monday = today - timedelta(days=today.weekday())
    week = (on - monday).days // 7
    assert filled == ([(on.weekday(), week)] if 0 <= week < 13 else [])
    for weekday, week in filled:
        cell = days[weekday][2][week]
        assert (cell.shown, cell.tone, sums[week].shown) == ("3", "critical", "3")
        assert cell.told.endswith(f"{on.day} {on:%B %Y}: 1 critical, 2 high due")
    marked = [
        (weekday, week)
        for weekday, (_, _, cells) in enumerate(days)
        for week, cell in enumerate(cells)
        if cell.is_marked
    ]
    assert marked == [(today.weekday(), 0)]
    before, later = map(int, re.findall(r"(\d+) (?:overdue from|due later)", grid.summary))
    assert (before, later) == (3 * (week_of(on, monday) < 0), 3 * (week_of(on, monday) > 12))


def week_of(on: date, monday: date) -> int:
    return (on - monday).days // 7


@pytest.mark.parametrize("overdue", [2, 900])
def test_what_is_late_is_listed_longest_first(
    store: Store, found: dict[str, Any], overdue: int
) -> None:
    for row in found["register"]:
        row["due"] = "2026-12-24"
    for at, due in ((3, "2026-11-20"), (5, "2026-11-25"), (7, "2026-11-02"), (9, "2026-11-26")):
        found["register"][at]["due"] = due
    found["register"][7]["status"] = "accepted"
    found["counts"]["overdue"] = overdue  # the page has no more than the worst
    page = built(store, found)
    (late,) = (one for one in blocks(page, Table) if "Overdue" in one.caption)
    assert [row[3] for row in late.rows] == ["2026-11-20", "2026-11-25"]
    assert ("Listed here: 2 of 900 overdue" in texts(page)) == (overdue > 2)


def test_the_register_sorts_numbers_as_numbers_and_levels_by_urgency(
    store: Store, found: dict[str, Any]
) -> None:
    (register,) = blocks(built(store, found), Sortable)
    heads = [column.name for column in register.table.columns]
    keys = dict(zip(heads, zip(*register.keys, strict=True), strict=True))
    rows = found["register"]
    assert list(keys["Score"]) == [row["score"] for row in rows]
    assert list(keys["Chance"]) == [row["p_exploit"] for row in rows]
    assert list(keys["Loss"]) == [row["annual_loss_usd"] for row in rows]
    by_level = {row["level"]: rank for row, rank in zip(rows, keys["Level"], strict=True)}
    assert sorted(by_level, key=by_level.__getitem__, reverse=True) == [
        one for one in risk.LEAST_SCORES if one in by_level
    ]
    undated = {key for row, key in zip(rows, keys["Due"], strict=True) if not row["due"]}
    assert all(key >= max(row["due"] for row in rows) for key in undated)
    assert len(register.table.rows) == len(register.keys) == 300
    assert "300 worst of 1,278" in register.table.note


def test_model_risks_stand_beside_cves_with_their_ids(store: Store, found: dict[str, Any]) -> None:
    page = built(store, found)
    (register,) = blocks(page, Sortable)
    shown = [str(row[0]) for row in register.table.rows]
    model = next(row for row in shown if "LLM01:2025" in row)
    for expected in ("model risk", "Prompt Injection", "AML.T0051", "AML.T0054"):
        assert expected in model
    assert any("CVE-2021-44228" in row for row in shown)
    assert "12 model risks" in texts(page)


def test_without_a_campaign_the_page_says_so(store: Store, found: dict[str, Any]) -> None:
    found["counts"]["model_risks"] = 0
    found["register"] = [row for row in found["register"] if row["kind"] == "cve"]
    assert "no campaign was read" in texts(built(store, found))


def test_cards_tell_reasons_gaps_and_who_wrote_the_words(
    store: Store, found: dict[str, Any]
) -> None:
    gappy = next(row for row in found["top"] if row["missing"])
    gappy["explained_by"] = "rules"
    (cards,) = blocks(built(store, found), Cards)
    assert len(cards.cards) + len(cards.folded) == 20
    card = (cards.cards + cards.folded)[found["top"].index(gappy)]
    told = dict(card.facts)
    assert told["Score as known"] == str(gappy["score_known"])
    assert told["Not checked"] == "exploitation, automatable, technical impact"
    assert card.points == tuple(gappy["reasons"])
    assert card.by == "by rules, no model"
    others = {one.by for one in cards.cards} - {card.by}
    assert others == {"by model claude-haiku-5-5"}


def test_stale_and_missing_sources_are_named_with_their_age(
    store: Store, found: dict[str, Any]
) -> None:
    page = built(store, found)
    assert "Stale, counted as last known: epss (16 days old)." in texts(page)
    assert "Missing: servicenow." in texts(page)
    (ages,) = (one for one in blocks(page, Table) if one.caption == "Sources in the snapshot")
    epss = next(row for row in ages.rows if row[0] == "epss")
    assert epss[1] == "stale: 16 days old"
    (fact,) = (one for one in page.sections[0].blocks[0].facts if one.label == "Not checked")
    missing, total = (
        sum(row[name] for row in found["freshness"] for name in names)
        for names in (("missing",), ("missing", "checked", "stale"))
    )
    assert fact.value == f"{100 * missing / total:.1f}\u00a0%"


def test_bars_of_evidence_add_up_and_name_their_shares() -> None:
    rows = {"epss": {"checked": 0.74, "stale": 0.2, "missing": 0.06}, "kev": {"checked": 1.0}}
    rows["kev"] |= {"stale": 0.0, "missing": 0.0}
    spec = figures.stacked(rows, colors=["blue", "orange", "gray"])
    assert [trace["base"] for trace in spec["data"]] == [
        [0, 0], [0.74, 1], [pytest.approx(0.94), 1]
    ]  # fmt: skip
    ends = [base + x for base, x in zip(spec["data"][2]["base"], spec["data"][2]["x"], strict=True)]
    assert ends == [pytest.approx(1)] * 2
    told = spec["layout"]["yaxis"]["ticktext"]
    assert "checked 74.0 %, stale 20.0 %, missing 6.0 %" in told[0]
    assert "missing" not in told[1]


money = st.floats(0, 1e12, allow_nan=False)


@given(st.lists(st.tuples(money, money, money, money), min_size=1, max_size=5))
def test_losses_are_drawn_within_the_axis(losses: list[tuple[float, ...]]) -> None:
    rows = {}
    for at, values in enumerate(losses):
        low, middle, high = sorted(values[:3])
        rows[f"asset {at}"] = made.interval(middle, 0) | {"low": low, "high": high}
    spec = figures.spans(rows, means=[values[3] for values in losses])
    low, high = spec["layout"]["xaxis"]["range"]
    for trace in spec["data"]:
        assert all(10**low <= value <= 10**high for value in trace["x"])
    spread = spec["data"][0]["error_x"]
    for value, below in zip(spec["data"][0]["x"], spread["arrayminus"], strict=True):
        assert value - below > 0  # nothing is not on a log axis
    assert spec["layout"]["xaxis"]["ticktext"][0] == "≈ 0"


def test_the_cost_names_money_calls_and_the_longest_stage(
    store: Store, found: dict[str, Any]
) -> None:
    page = built(store, found)
    assert "3 model calls, 1 answered from the cache: $0.03." in texts(page)
    (stages,) = (one for one in blocks(page, Figure) if one.name == "stages")
    assert stages.title == "4.7\u00a0s in all, most of it to explain"
    assert [row[0] for row in stages.numbers.rows] == ["intake", "evidence", "score", "explain"]


def test_changes_and_closed_risks_say_why(store: Store, found: dict[str, Any]) -> None:
    page = built(store, found)
    assert "31 new, 2 gone, 14 worse, 9 better, 12 closed, 1 reopened since" in texts(page)
    closed = [one for one in blocks(page, Table) if one.caption.startswith("Closed risks")]
    assert sum(len(one.rows) for one in closed) == 38
    assert {row[3] for one in closed for row in one.rows} == {
        "vulnerable code not in execute path", "no reason given"
    }  # fmt: skip


def test_an_assessment_of_nothing_is_a_page(store: Store, tmp_path: Path) -> None:
    page = built(store, report_assessment.empty())
    told = texts(page)
    for expected in (
        "The register is empty.",
        "No open risk has a date by which it is due.",
        "This is the first assessment",
        "Nothing was closed.",
        "No model was asked: $0.00.",
    ):
        assert expected in told
    render(store, "quickstart", tmp_path)
    html = (tmp_path / "risk.html").read_text("utf-8")
    assert "not as this version writes it" not in html
    assert sorted(path.name for path in tmp_path.glob("*.html")) == ["index.html", "risk.html"]


@pytest.mark.parametrize("name", ["freshness", "loss", "calendar", "narrative", "top", "files"])
def test_each_part_may_be_empty(store: Store, found: dict[str, Any], name: str) -> None:
    found[name] = type(found[name])()
    assert built(store, found).finding


def test_a_script_in_a_title_is_text(store: Store, tmp_path: Path, found: dict[str, Any]) -> None:
    made.fill(store, {"assess": [found]})
    render(store, "quickstart", tmp_path)
    html = (tmp_path / "risk.html").read_text("utf-8")
    assert report_assessment.SCRIPT not in html
    assert "&lt;script&gt;window.__pwned=1&lt;/script&gt;" in html


def test_ids_and_dates_are_not_broken_and_nothing_else_is_marked_up(
    store: Store, tmp_path: Path, found: dict[str, Any]
) -> None:
    found["top"][0] |= {"subject": "CVE-2021-44228<b>", "due": "2026-11-29", "title": "&amp; <i>"}
    made.fill(store, {"assess": [found]})
    render(store, "quickstart", tmp_path)
    html = (tmp_path / "risk.html").read_text("utf-8")
    assert '<span class="whole">CVE-2021-44228</span>&lt;b&gt; on' in html
    assert '<span class="whole">2026-11-29</span>' in html
    assert "&amp;amp; &lt;i&gt;" in html
    assert "&lt;span" not in html


def test_results_are_as_the_store_says() -> None:
    assert WHOLE.keys() == AssessmentResult.__annotations__.keys()
    hints = get_type_hints(RiskRow, include_extras=True)
    needed = {name for name, hint in hints.items() if get_origin(hint) is not NotRequired}
    for row in (*WHOLE["top"], *WHOLE["register"]):
        assert needed <= row.keys() <= hints.keys()
