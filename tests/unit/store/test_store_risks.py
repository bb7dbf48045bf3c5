"""The register in the store: what people said stays, clocks never restart, the log tells it all."""

from __future__ import annotations

import threading
from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine

from workbench.core.errors import ConfigError, DataError
from workbench.core.identity import text_id
from workbench.store import schema
from workbench.store.database import open_store
from workbench.store.risks import (
    NOT_SEEN,
    RecordCounts,
    counts,
    decide,
    first_seen,
    record,
    resolve_risk,
    risk_log,
    risks,
    settle,
)

DAY = date(2026, 1, 1)
ONE, TWO = (text_id(str(number)) for number in (1, 2))


def make(number=1, **changes):
    row = {
        "id": text_id(str(number)), "kind": "cve", "subject": f"CVE-2024-{number:05}",
        "title": f"Title {number}", "asset": "shop", "component": "pkg:npm/a@1", "level": "medium",
        "score": 9, "likelihood": 3, "impact": 3, "p_exploit": 0.01, "annual_loss_usd": 10.0,
        "decision": "14_days", "due": "2026-01-15", "owner": "", "state": "affected", "reason": "",
    }  # fmt: skip
    return row | changes


def tell(engine, *rows, day=DAY, **options):
    options = {"assessment": f"of {day}", "who": "anna"} | options
    return record(engine, rows, today=day, **options)


def one(engine, beginning=ONE):
    (found,) = risks(engine, ids=[beginning])
    return found


def later(days):
    return DAY + timedelta(days=days)


@pytest.fixture
def engine():
    made = create_engine("sqlite://")
    schema.metadata.create_all(made)
    yield made
    made.dispose()


def test_new_risks_are_first_seen_today_and_logged(engine):
    assert tell(engine, make(1), make(2, state="fixed")) == RecordCounts(new=2)
    found = one(engine)
    assert {name: found[name] for name in make()} == make()
    assert (found["status"], found["first_seen"], found["last_seen"]) == (
        "open",
        *["2026-01-01"] * 2,
    )
    assert (one(engine, TWO)["status"], one(engine, TWO)["reason"]) == ("closed", "fixed")
    told = risk_log(engine, [ONE])
    assert [row["changed"]["status"] for row in told] == [[None, "open"]]
    assert (told[0]["who"], told[0]["assessment"]) == ("anna", "of 2026-01-01")
    assert first_seen(engine, [ONE, "gone"]) == {ONE: "2026-01-01"}


def test_the_same_assessment_again_changes_nothing(engine):
    rows = [make(1), make(2, state="not_affected", reason="code_not_reachable"), make(3)]
    tell(engine, make(1), make(9))
    tell(engine, *rows, day=later(1))
    before, log = risks(engine), risk_log(engine)
    assert tell(engine, *rows, day=later(1)) == RecordCounts(unchanged=3)
    assert (risks(engine), risk_log(engine)) == (before, log)


def test_only_what_people_would_notice_is_logged_with_its_daily_figures(engine):
    tell(engine, make())
    assert tell(engine, make(p_exploit=0.02), day=later(1)) == RecordCounts(unchanged=1)
    assert one(engine)["p_exploit"] == 0.02
    assert len(risk_log(engine)) == 1
    worse = make(p_exploit=0.5, score=12, level="high")
    assert tell(engine, worse, day=later(2)) == RecordCounts(changed=1)
    assert risk_log(engine)[-1]["changed"] == {
        "level": ["medium", "high"], "score": [9, 12], "p_exploit": [0.02, 0.5]
    }  # fmt: skip


def test_what_no_longer_occurs_is_closed_where_it_was_looked_for(engine):
    tell(engine, make(1), make(2), make(3, told_by="campaign"), make(4, asset="else"))
    assert tell(engine, make(1), day=later(1)) == RecordCounts(unchanged=1, closed=1)
    assert {row["subject"][-1]: row["status"] for row in risks(engine)} == {
        "1": "open", "2": "closed", "3": "open", "4": "open"
    }  # fmt: skip
    assert (one(engine, TWO)["reason"], one(engine, TWO)["last_seen"]) == (NOT_SEEN, "2026-01-01")
    assert risk_log(engine, [TWO])[-1]["note"] == NOT_SEEN
    assert tell(engine, day=later(2), scope=[]) == RecordCounts()
    assert tell(engine, day=later(2), scope=[("else", ""), ("shop", "campaign")]).closed == 2


@pytest.mark.parametrize("state", ["fixed", "not_affected"])
def test_vex_closes_and_what_it_takes_back_is_open_again(engine, state):
    tell(engine, make())
    assert tell(engine, make(state=state, reason="why"), day=later(1)) == RecordCounts(closed=1)
    assert (one(engine)["status"], one(engine)["reason"]) == ("closed", "why")
    assert tell(engine, make(due="2026-02-01"), day=later(2)) == RecordCounts(reopened=1)
    found = one(engine)
    assert (found["status"], found["first_seen"], found["due"]) == (
        "open", "2026-01-01", "2026-01-15",
    )  # fmt: skip
    assert risk_log(engine)[-1]["note"] == f"no longer {state.replace('_', ' ')}"


def test_what_comes_back_is_open_again(engine):
    tell(engine, make(1), make(2))
    decide(engine, [TWO], {"status": "closed"}, who="bob", note="patched")
    assert tell(engine, make(1), make(2), day=later(1)) == RecordCounts(unchanged=2)
    tell(engine, make(1), day=later(2))  # now it is gone indeed
    assert tell(engine, make(1), make(2), day=later(3)) == RecordCounts(unchanged=1, reopened=1)
    assert risk_log(engine, [TWO])[-1]["note"] == "seen again"


@pytest.mark.parametrize("status", ["accepted", "closed"])
def test_a_decision_stands_until_the_level_rises(engine, status):
    tell(engine, make())
    decide(engine, [ONE], {"status": status}, who="bob", note="no way in")
    assert tell(engine, make(score=10), day=later(99)) == RecordCounts(changed=1)
    assert (one(engine)["status"], one(engine)["reason"]) == (status, "no way in")
    worse = make(level="critical", score=20, due="2026-01-03")
    assert tell(engine, worse, day=later(100)) == RecordCounts(reopened=1)
    assert (one(engine)["status"], one(engine)["due"]) == ("open", "2026-01-03")
    assert risk_log(engine)[-1]["note"] == "level rose from medium to critical"


def test_an_acceptance_ends_after_its_last_day_and_the_clock_was_not_stopped(engine):
    tell(engine, make())
    decide(engine, [ONE], {"status": "accepted", "due": "2026-03-01"}, who="bob", note="budget")
    assert tell(engine, make(), day=date(2026, 3, 1)) == RecordCounts(unchanged=1)
    assert tell(engine, make(), day=date(2026, 3, 2)) == RecordCounts(reopened=1)
    assert one(engine)["due"] == "2026-01-15"
    assert risk_log(engine)[-1]["note"] == "acceptance ended on 2026-03-01"


@given(dues=st.lists(st.sampled_from(["", "2026-01-03", "2026-01-15", "2026-05-01"]), min_size=1))
@settings(max_examples=25, deadline=None)
def test_by_itself_a_due_date_only_moves_earlier(dues):
    engine = create_engine("sqlite://")
    schema.metadata.create_all(engine)
    for day, due in enumerate(dues):
        tell(engine, make(due=due, level=["low", "high"][day % 2]), day=later(day))
        assert one(engine)["due"] == min(filter(None, dues[: day + 1]), default="")
        assert one(engine)["first_seen"] == DAY.isoformat()
    engine.dispose()


def test_what_people_said_of_owner_and_due_date_stays(engine):
    tell(engine, make(owner="inventory"))
    decide(engine, [ONE], {"owner": "bob", "due": "2026-02-20"}, who="bob", note="freeze")
    tell(engine, make(owner="inventory"), day=later(1))
    assert (one(engine)["owner"], one(engine)["due"]) == ("bob", "2026-02-20")
    tell(engine, make(owner="inventory", decision="3_days", due="2026-01-04"), day=later(2))
    assert (one(engine)["owner"], one(engine)["due"]) == ("bob", "2026-01-04")
    tell(engine, make(owner="inventory", due="2026-01-15"), day=later(3))
    assert one(engine)["due"] == "2026-01-04"


def test_owners_of_the_inventory_follow_it_and_are_not_lost(engine):
    for day, (told, expected) in enumerate([("a", "a"), ("b", "b"), ("", "b")]):
        tell(engine, make(owner=told), day=later(day))
        assert one(engine)["owner"] == expected


@pytest.mark.parametrize("until", ["2099-01-01", ""])
def test_a_risk_that_is_accepted_no_longer_is_due_as_before(engine, until):
    tell(engine, make())
    decide(engine, [ONE], {"status": "accepted", "due": until}, who="bob", note="isolated")
    decide(engine, [ONE], {"due": "2099-02-02"}, who="bob", note="longer")
    decide(engine, [ONE], {"status": "open"}, who="bob")
    assert (one(engine)["status"], one(engine)["due"]) == ("open", "2026-01-15")
    assert risk_log(engine, [ONE])[-1]["changed"]["due"] == ["2099-02-02", "2026-01-15"]
    tell(engine, make(), day=later(1))
    assert one(engine)["due"] == "2026-01-15"
    decide(engine, [ONE], {"status": "accepted"}, who="bob", note="again")
    decide(engine, [ONE], {"status": "open", "due": "2026-01-10"}, who="bob")
    assert one(engine)["due"] == "2026-01-10"


def test_opened_again_by_a_person_the_clock_is_the_old_one(engine):
    tell(engine, make())
    decide(engine, [ONE], {"status": "accepted"}, who="bob", note="ok")
    decide(engine, [ONE], {"status": "open"}, who="bob")
    tell(engine, make(), day=later(1))
    assert (one(engine)["due"], one(engine)["reason"]) == ("2026-01-15", "")


@pytest.mark.parametrize(
    ("changes", "note", "named"),
    [
        ({"status": "acepted"}, "x", "acepted.*accepted"),
        ({"status": "accepted"}, " ", "needs a note"),
        ({"status": "closed"}, "", "needs a note"),
        ({"due": "2026-01-16"}, "", "2026-01-15"),
        ({"due": ""}, "", "2026-01-15"),
        ({"due": "20260101"}, "x", "20260101"),
        ({"due": "soon"}, "x", "soon"),
        ({"owner": "o" * 201}, "x", "200"),
        ({"level": "low"}, "x", "level"),
    ],
)
def test_a_decision_that_cannot_be_is_refused(engine, changes, note, named):
    tell(engine, make())
    before = one(engine)
    with pytest.raises(ConfigError, match=named):
        decide(engine, [ONE], changes, who="bob", note=note)
    assert one(engine) == before
    assert len(risk_log(engine)) == 1


def test_decisions_are_all_or_nothing(engine):
    tell(engine, make())
    with pytest.raises(DataError, match="gone"):
        decide(engine, [ONE, "gone"], {"owner": "bob"}, who="bob")
    assert one(engine)["owner"] == ""
    decide(engine, [ONE, ONE], {"due": "2026-01-02"}, who="bob")
    assert risk_log(engine)[-1]["changed"] == {"due": ["2026-01-15", "2026-01-02"]}
    assert (len(risk_log(engine)), risk_log(engine)[-1]["assessment"]) == (2, "")


def test_settling_tells_what_recording_writes(engine):
    tell(engine, make(1), make(2), make(3))
    decide(engine, [TWO], {"status": "accepted"}, who="bob", note="x")
    rows = [make(2, score=10), make(4, state="fixed"), make(1, due="2026-05-01")]
    told = settle(engine, rows, today=later(1))
    before = risks(engine)
    assert risks(engine) == before
    tell(engine, *told, day=later(1))
    for row in told:
        kept = one(engine, row["id"])
        assert {**row, "assessment": "", "updated_at": ""} == {
            **kept, "assessment": "", "updated_at": ""
        }  # fmt: skip
    assert tell(engine, *rows, day=later(1)) == RecordCounts(unchanged=3)


def test_of_several_rows_of_one_risk_the_worst_counts(engine):
    rows = [make(score=9), make(score=16), make(score=25, state="fixed"), make(score=4)]
    assert tell(engine, *rows) == RecordCounts(new=1)
    assert (one(engine)["score"], one(engine)["status"]) == (16, "open")


def test_texts_that_no_database_takes_are_stored(engine):
    tell(engine, make(title="a\x00\ud800", asset="a" * 300))
    assert (one(engine)["title"], one(engine)["asset"]) == ("a\ufffd?", "a" * 200)
    assert tell(engine, make(2, asset="a" * 300), day=later(1)).closed == 1


@pytest.mark.parametrize(
    ("asked", "numbers"),
    [
        ({}, [2, 1, 3, 4]),
        ({"status": "open"}, [2, 1, 4]),
        ({"level": "low"}, [4]),
        ({"asset": "else", "status": "open"}, [4]),
        ({"subject": "CVE-2024-00003"}, [3]),
        ({"kind": "model"}, [2]),
        ({"owner": "bob"}, [1]),
        ({"overdue_on": date(2026, 1, 15)}, [4]),
        ({"sort": "level"}, [2, 1, 3, 4]),
        ({"sort": "due", "descending": False}, [4, 1, 3, 2]),
        ({"limit": 2, "offset": 1}, [1, 3]),
    ],
)
def test_filters_and_orders(engine, asked, numbers):
    tell(
        engine, make(1, owner="bob"), make(2, kind="model", level="critical", score=20, due=""),
        make(3, state="fixed", subject="CVE-2024-00003"),
        make(4, asset="else", level="low", score=2, due="2026-01-14"),
    )  # fmt: skip
    found = [int(row["title"][-1]) for row in risks(engine, **asked)]
    assert found == numbers
    with pytest.raises(ConfigError, match="scor"):
        risks(engine, sort="scoer")


def test_counting(engine):
    tell(
        engine, make(1), make(2, kind="model", level="critical", score=20, due=""),
        make(3, state="fixed"), make(4, asset="else", level="low", due="2026-01-02"), make(5),
    )  # fmt: skip
    decide(engine, [text_id("5")], {"status": "accepted"}, who="bob", note="x")
    assert counts(engine, date(2026, 1, 8)) == {
        "risks": 5, "open": 3, "accepted": 1, "closed": 1, "cves": 2, "model_risks": 1,
        "assets": 2, "overdue": 1, "due_7_days": 1,
        "by_level": {"low": 1, "medium": 1, "high": 0, "critical": 1},
    }  # fmt: skip


@pytest.mark.parametrize("beginning", ["", "gone", "%", "_"])
def test_one_risk_must_be_meant(engine, beginning):
    tell(engine, make(1), make(2))
    with pytest.raises(DataError, match=repr(beginning)):
        resolve_risk(engine, beginning)
    assert resolve_risk(engine, ONE[:8]) == ONE


def test_a_decision_made_while_an_assessment_is_recorded_is_not_lost(settings):
    store, other = open_store(settings), open_store(settings)
    rows = [make(number) for number in range(2_000)]
    tell(store.engine, *rows)
    ids = [row["id"] for row in rows]
    thread = threading.Thread(target=tell, args=(store.engine, *rows), kwargs={"day": later(1)})
    thread.start()
    decide(other.engine, ids, {"owner": "bob"}, who="bob")
    thread.join(60)
    owners = {row["owner"] for row in risks(store.engine, limit=5_000)}
    assert owners == {"bob"}
    assert len(risk_log(store.engine, ids)) == 4_000
    for opened in (store, other):
        opened.engine.dispose()


def test_an_assessment_has_an_id(engine):
    with pytest.raises(ValueError, match="id"):
        tell(engine, make(), assessment="")
