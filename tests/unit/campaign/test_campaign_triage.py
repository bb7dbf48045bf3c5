"""What is a finding, how risky it is, and what stays of what people say of it."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from campaign_fakes import graders, make_case, make_control
from finding_fakes import Tried, make_attempt, make_finding
from workbench.campaign import executions, learning, testsets, triage
from workbench.campaign.execute import execute
from workbench.campaign.summarize import Evidence, summarize
from workbench.campaign.targets.base import PassThrough
from workbench.core.errors import ConfigError, DataError
from workbench.store.events import events
from workbench.store.findings import add_findings, findings
from workbench.store.records import TestSet

CASES = tuple(
    make_case(n, goal=f"goal {n % 2} of a kind", severity=severity, strategies=chain)
    for n, (severity, chain) in enumerate(
        [("critical", ()), ("high", ("base64",)), ("medium", ()), ("low", ("rot13", "base64"))]
    )
)
CONTROL = make_control(1)
SET = TestSet(cases=(*CASES, CONTROL))

tries = st.lists(
    st.builds(
        lambda case, target, score, hit, error: make_attempt(
            case, target=target, scores={"a": score, "b": score}, success=hit and not error,
            error="down" if error else "",
        ),
        st.sampled_from(SET.cases), st.sampled_from(["guard", "model", "bare"]),
        st.floats(0, 1), st.booleans(), st.booleans(),
    ),
    max_size=40,
)  # fmt: skip


def run(made, **changes):
    facts = {"targets": ("guard", "model", "bare"), "baselines": ("bare",)}
    return triage.find(Tried(made, **facts | changes), SET)


# -- what is found


@given(made=tries, seed=st.integers(0, 9))
def test_one_finding_per_case_and_defended_target_that_was_hit(made, seed):
    found = run(made)
    answered = [one for one in made if not one.error and one.target != "bare"]
    hits = {(o.target, o.case_id) for o in answered if o.success and o.case_id != CONTROL.id}
    assert sorted((one.target, one.case_id) for one in found) == sorted(hits)
    for one in found:
        mine = [o for o in answered if (o.target, o.case_id) == (one.target, one.case_id)]
        assert one.score == pytest.approx(sum(o.scores["a"] for o in mine) / len(mine))
        assert 0 <= one.risk <= triage.SEVERITY_WEIGHTS[one.severity] * one.score + 1e-12
        assert 0.5 <= one.confidence <= 1
        if len(mine) > 1:
            assert f"{sum(o.success for o in mine)} of {len(mine)} tries" in one.summary
    assert [one.risk for one in found] == sorted((one.risk for one in found), reverse=True)
    shuffled = Random(seed).sample(made, len(made))
    assert {o.id: pytest.approx(o.risk) for o in found} == {o.id: o.risk for o in run(shuffled)}


def test_without_a_defense_every_target_counts():
    made = [make_attempt(CASES[0], target="bare")]
    assert run(made) == []
    assert len(run(made, baselines=("guard", "model", "bare"))) == 1


def test_the_surest_success_is_shown():
    sure, unsure = {"a": 0.99, "b": 0.99}, {"a": 0.6, "b": 0.6}
    made = [
        make_attempt(CASES[0], scores=unsure, received="unsure", trial=0),
        make_attempt(CASES[0], scores=sure, received="sure", trial=1),
        make_attempt(CASES[0], scores=sure, received="failed", trial=2, success=False),
    ]
    (found,) = run(made)
    assert found.received == "sure"
    assert "2 of 3 tries" in found.summary


def test_risk_follows_severity_score_and_breadth():
    """The formula of the docstring, on an example where every factor differs from one."""
    made = [
        make_attempt(CASES[0]),  # goal 0: hit in 1 of 2 pairs
        make_attempt(CASES[2], success=False),
        make_attempt(CASES[1]),  # goal 1: hit in 2 of 2 pairs
        make_attempt(CASES[3]),
    ]
    risks = {one.case_id: one.risk for one in run(made)}
    assert risks[CASES[0].id] == pytest.approx(1.0 * 0.85 * 0.75)
    assert risks[CASES[1].id] == pytest.approx(0.75 * 0.85 * 1.0)


def test_the_label_tells_the_disguise_and_whether_it_was_rewritten():
    made = [make_attempt(CASES[0]), make_attempt(CASES[3], decision="redirect")]
    assert {one.suggested_label for one in run(made)} == {"missed-plain", "harmful-rewrite-layered"}


def test_cases_of_others_may_use_strategies_unknown_here():
    case = make_case(1, strategies=("jailbreak:tree",))
    (found,) = triage.find(Tried([make_attempt(case)]), TestSet(cases=(case,)))
    assert found.suggested_label == "missed-foreign"
    assert found.summary.startswith("jailbreak:tree · ")


def test_what_is_found_can_be_stored(store):
    made = [make_attempt(case, target=name) for case in CASES for name in ("guard", "model")]
    found = run(made)
    assert add_findings(store.engine, found) == found
    assert findings(store.engine) == found


# -- what people say


@pytest.fixture
def stored(store):
    found = [make_finding(n, risk=1 - n / 10) for n in range(4)]
    found[1] = make_finding(1, risk=0.9, cluster=found[0].id)
    found[2] = make_finding(2, risk=0.8, cluster=found[0].id)
    return add_findings(store.engine, found)


def test_a_decision_is_kept_logged_told_and_timed(store, stored):
    (done,) = triage.decide(
        store, [stored[3].id[:12]], status="confirmed", owner="anna",
        note="write to bob@example.org", minutes=4,
    )  # fmt: skip
    assert (done.id, done.status, done.owner, done.minutes) == (
        stored[3].id, "confirmed", "anna", 4.0
    )  # fmt: skip
    (row,) = triage.history(store, done.id)
    assert (row["who"], row["note"]) == ("tester", "write to [email]")
    assert row["changed"] == {"status": ["needs_review", "confirmed"], "owner": ["", "anna"]}
    (event,) = events(store.engine, kind="triage_outcome", subject=done.id)
    assert (event.who, event.details["before"], event.details["status"]) == (
        "tester", "needs_review", "confirmed"
    )  # fmt: skip
    (paid,) = store.ledger.rows()
    assert (paid.phase, paid.resource, paid.unit, paid.quantity) == ("triage", "human", "min", 4.0)
    assert not paid.usd


def test_a_cluster_is_decided_as_one_and_its_time_is_counted_once(store, stored):
    done = triage.decide(
        store, [stored[1].id], status="false_positive", whole_cluster=True, minutes=3
    )
    assert [one.id for one in done] == [one.id for one in stored[:3]]
    assert sum(one.minutes for one in done) == pytest.approx(3)
    assert findings(store.engine, status="needs_review") == [stored[3]]
    assert len(events(store.engine, kind="triage_outcome")) == 3
    assert sum(row.quantity for row in store.ledger.rows()) == pytest.approx(3)


def test_a_note_alone_changes_no_state(store, stored):
    triage.decide(store, [stored[0].id], status="fixed")
    (done,) = triage.decide(store, [stored[0].id], note="seen again")
    assert done.status == "fixed"
    assert [row["changed"] for row in triage.history(store, done.id)][1] == {}


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"status": "confirmd"}, "did you mean 'confirmed'"),
        ({"status": "open"}, "status 'open'"),
        ({}, "nothing to decide"),
        ({"minutes": -1.0}, "minutes -1.0"),
        ({"minutes": float("nan")}, "minutes nan"),
        ({"owner": "a\nb"}, "owner"),
    ],
)
def test_nonsense_is_refused(store, stored, said, told):
    with pytest.raises(ConfigError, match=told):
        triage.decide(store, [stored[0].id], **said)
    assert findings(store.engine) == stored


@pytest.mark.parametrize("ids", [[], ["nope"], ["0000000"]])
def test_unknown_findings_are_refused_and_nothing_is_decided(store, stored, ids):
    with pytest.raises(DataError):
        triage.decide(store, [stored[0].id, *ids] if ids else [], status="confirmed")
    assert findings(store.engine, status="confirmed") == []
    assert events(store.engine) == []


# -- told anew


def test_evidence_is_read_again_from_a_real_execution(store, bench, encoder):
    tests = TestSet(cases=tuple(make_case(n) for n in range(3)))
    testsets.save(store, tests)
    targets = [PassThrough()]
    done = asyncio.run(execute(store, tests, targets, graders(bench, encoder), trials=2))
    found = triage.find(done, testsets.stored(store, tests.id))
    assert len(found) == 3
    known = triage.evidence_of(store, found[:2])
    goals = {one.id: one.goal for one in tests}
    assert known == {
        one.id: Evidence(goals[one.case_id], known[one.id].reason, 2, 2) for one in found[:2]
    }
    assert summarize(found[:2], known=known) == [one.summary for one in found[:2]]


def test_findings_without_their_test_case_have_no_evidence(store, monkeypatch):
    made = [make_attempt(CASES[0], reasons={"a": "names it"}), make_attempt(CASES[1])]
    found = triage.find(Tried(made), SET)
    monkeypatch.setattr(executions, "load_execution", lambda *_: Tried(made))
    monkeypatch.setattr(learning, "cases_of", lambda *_: {CASES[0].id: CASES[0]})
    (known,) = triage.evidence_of(store, found).values()
    assert known == (CASES[0].goal, "names it", 1, 1)


def test_only_other_summaries_are_written(store, stored):
    told = {stored[0].id: "new", stored[1].id: stored[1].summary, "gone": "x"}
    assert triage.retell(store, told) == 1
    assert findings(store.engine, ids=[stored[0].id])[0].summary == "new"
    assert triage.history(store, stored[1].id) == []
