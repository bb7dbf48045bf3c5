"""What comes back from triage: data, weights and a set that is tried again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from campaign_fakes import make_case
from finding_fakes import make_finding
from workbench.campaign import testsets
from workbench.campaign.learning import (
    REGRESSION,
    canonical_prompts,
    cases_of,
    confirmed_cells,
    feed_back,
    regression_set,
    tag_regression,
)
from workbench.core.errors import DataError
from workbench.data.inbox import Inbox
from workbench.store.events import events
from workbench.store.findings import add_findings, triage
from workbench.store.records import TestSet

CASES = tuple(
    make_case(n, goal=f"how to scare neighbor {n // 2} away", prompt=f"in disguise {n}")
    for n in range(6)
)
FIRST, SECOND = TestSet(cases=CASES[:4]), TestSet(cases=CASES[3:])
STATES = ("confirmed", "false_positive", "fixed", "confirmed", "needs_review", "confirmed")


@pytest.fixture
def found(store):
    for one in (FIRST, SECOND):
        testsets.save(store, one)
    made = [
        make_finding(
            n, case_id=case.id, test_set=(FIRST if n < 4 else SECOND).id, sent=case.prompt,
            strategy=("plain", "base64")[n % 2], execution=f"{n % 2}" * 64, risk=1 - n / 10,
        )
        for n, case in enumerate(CASES)
    ]  # fmt: skip
    add_findings(store.engine, made)
    for one, state in zip(made, STATES, strict=True):
        if state != "needs_review":
            triage(store.engine, [one.id], {"status": state}, who="anna")
    return [replace(one, status=state) for one, state in zip(made, STATES, strict=True)]


def test_cases_are_found_across_test_sets(store, found):
    assert cases_of(store, found) == {one.id: one for one in CASES}
    elsewhere = [replace(found[0], test_set="f" * 64)]
    assert cases_of(store, elsewhere) == {}


def test_canonical_prompts_are_bare_distinct_and_redacted(found):
    cases = {one.id: one for one in CASES}
    cases[CASES[5].id] = make_case(9, goal=" Scare\n bob@example.org ")
    assert canonical_prompts(found, cases=cases) == [
        "how to scare neighbor 0 away", "how to scare neighbor 1 away",
        "how to scare neighbor 2 away", "Scare [email]",
    ]  # fmt: skip
    assert canonical_prompts(found, cases={}) == []


def test_confirmed_findings_wait_in_the_inbox(store, found):
    told = feed_back(store)
    assert told == {"inbox": {"added": 3}, "requests": 3}
    entries = Inbox(store.home / "inbox").entries()
    assert {one.reference for one in entries} == {found[n].id for n in (0, 3, 5)}
    assert {one.core for one in entries} == {CASES[n].goal for n in (0, 3, 5)}
    assert {one.status for one in entries} == {"quarantined"}
    (event,) = events(store.engine, kind="prompts_fed_back")
    assert (event.who, event.details["requests"]) == ("tester", 3)
    assert feed_back(store)["inbox"] == {"there already": 3}


def test_one_execution_alone_is_fed_back(store, found):
    assert feed_back(store, "1" * 64)["inbox"] == {"added": 2}
    assert events(store.engine, kind="prompts_fed_back")[0].subject == "1" * 64


def test_what_people_said_weighs_for_and_against(store, found):
    assert confirmed_cells(store) == {
        ("harm-violence", "plain"): 2, ("harm-violence", "base64"): 2 - 1
    }  # fmt: skip


def test_the_regression_set_holds_what_ever_was_real(store, found):
    tests = regression_set(store)
    assert list(tests) == [CASES[n] for n in (0, 2, 3, 5)]
    made = testsets.save(store, tests)
    assert regression_set(store).id == made
    assert tests.recipe["regression"]["findings"] == 4


def test_one_test_set_is_the_regression_set(store, found):
    for one in (FIRST.id, SECOND.id, SECOND.id):
        tag_regression(store, one)
    assert testsets.load(store, REGRESSION).id == SECOND.id


def test_a_case_that_got_through_twice_is_in_it_once(store, found):
    twice = replace(found[0], id="9" * 64, target="other", status="confirmed", cluster="9" * 64)
    add_findings(store.engine, [twice])
    assert len(regression_set(store)) == 4


def test_nothing_confirmed_gives_nothing_back(store):
    for give in (feed_back, regression_set):
        with pytest.raises(DataError, match="confirm"):
            give(store)
