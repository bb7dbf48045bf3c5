"""Findings in the store: what is known stays, what people say is logged, all or nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.event import listen
from sqlalchemy.exc import NoResultFound

from finding_fakes import make_finding
from workbench.core.errors import DataError
from workbench.store.database import open_store
from workbench.store.findings import (
    add_findings,
    confirm_findings,
    count_findings,
    findings,
    resolve_finding,
    triage,
    triage_log,
)

FOUND = [
    make_finding(1, risk=0.2, owner="anna"),
    make_finding(2, risk=0.9),
    make_finding(3, risk=0.5, execution="f" * 64, status="fixed"),
]


@pytest.fixture
def engine(store):
    add_findings(store.engine, FOUND)
    return store.engine


def test_what_is_known_keeps_its_triage(engine):
    triage(engine, [FOUND[0].id], {"status": "confirmed"}, who="anna")
    new = make_finding(4)
    assert add_findings(engine, [replace(FOUND[0], risk=1.0), new, new]) == [new]
    (kept,) = findings(engine, ids=[FOUND[0].id])
    assert (kept.status, kept.risk) == ("confirmed", 0.2)
    assert add_findings(engine, []) == []


def test_who_finds_the_same_meanwhile_waits_and_adds_nothing(store):
    """Two processes that end one execution together, the second between look and write."""
    other = open_store(store.settings).engine
    with ThreadPoolExecutor(1) as pool:
        second = []

        def interfere(*_):
            if not second:
                second.append(pool.submit(add_findings, other, FOUND))
                wait(second, timeout=0.3)

        listen(store.engine, "after_cursor_execute", interfere)
        assert add_findings(store.engine, FOUND) == FOUND
        assert second[0].result() == []
    other.dispose()
    assert len(findings(store.engine)) == len(FOUND)


@pytest.mark.parametrize(
    ("asked", "numbers"),
    [
        ({}, [1, 2, 0]),
        ({"execution": "e" * 64}, [1, 0]),
        ({"status": "fixed"}, [2]),
        ({"owner": "anna"}, [0]),
        ({"ids": [FOUND[0].id, FOUND[2].id, "gone"]}, [2, 0]),
        ({"ids": [FOUND[0].id], "status": "fixed"}, []),
    ],
)
def test_filters_and_order(engine, asked, numbers):
    assert findings(engine, **asked) == [FOUND[n] for n in numbers]


def test_more_ids_than_one_query_takes_come_in_order_and_once(store):
    many = [make_finding(n, risk=(n * 7919 % 1201) / 1201) for n in range(1_201)]
    add_findings(store.engine, many)
    ids = [one.id for one in many]
    found = findings(store.engine, ids=[*ids, *ids[:10]])
    assert found == sorted(many, key=lambda one: (-one.risk, one.id))
    triage(store.engine, ids, {"status": "fixed"}, who="anna")
    log = triage_log(store.engine, [*ids, *ids[:10]])
    assert [row["finding"] for row in log] == ids


@given(steps=st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 60)), max_size=6))
def test_the_log_tells_every_step_and_minutes_add_up(steps):
    from sqlalchemy import create_engine

    from workbench.store.schema import metadata

    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    add_findings(engine, FOUND)
    for status, minutes in steps:
        triage(engine, [FOUND[0].id], {"status": status}, who="anna", note="n", minutes=minutes)
    log = triage_log(engine, [FOUND[0].id])
    states = ["needs_review", *(status for status, _ in steps)]
    assert [row["changed"] for row in log] == [
        {"status": [a, b]} if a != b else {} for a, b in pairwise(states)
    ]
    assert {row["who"] for row in log} <= {"anna"}
    (now,) = findings(engine, ids=[FOUND[0].id])
    assert now.status == states[-1]
    assert now.minutes == pytest.approx(sum(minutes for _, minutes in steps))
    engine.dispose()


def test_a_finding_named_twice_is_changed_once(engine):
    triage(engine, [FOUND[0].id] * 2, {"status": "fixed"}, who="anna", minutes=3)
    assert len(triage_log(engine)) == 1
    assert findings(engine, ids=[FOUND[0].id])[0].minutes == 3


def test_all_or_nothing(engine):
    with pytest.raises(NoResultFound):
        triage(engine, [FOUND[0].id, "gone"], {"status": "fixed"}, who="anna")
    assert findings(engine, ids=[FOUND[0].id]) == [FOUND[0]]
    assert triage_log(engine) == []


@pytest.mark.parametrize("beginning", ["", "0000", "gone", "%", "_"])
def test_one_finding_must_be_meant(engine, beginning):
    with pytest.raises(DataError, match=repr(beginning)):
        resolve_finding(engine, beginning)
    assert resolve_finding(engine, FOUND[0].id[:8]) == FOUND[0].id
    with pytest.raises(DataError, match="of execution ffff"):
        resolve_finding(engine, FOUND[0].id, execution="f" * 64)


def test_confirming_is_all_or_nothing(engine):
    short = [one.id[:8] for one in FOUND]
    with pytest.raises(DataError):
        confirm_findings(engine, short, execution="e" * 64, who="anna")
    assert findings(engine, status="confirmed") == []
    confirm_findings(engine, short[:2], execution="e" * 64, who="anna")
    assert count_findings(engine, "e" * 64) == {"confirmed": 2}
    assert [row["who"] for row in triage_log(engine)] == ["anna", "anna"]
