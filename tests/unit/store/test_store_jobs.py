from __future__ import annotations

import itertools
import threading
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.core.errors import DataError, InputError
from workbench.core.settings import read_settings
from workbench.store import jobs as rows
from workbench.store.database import open_store
from workbench.store.jobs import (
    Job,
    add_job,
    cancel_job,
    claim_job,
    finish_job,
    job,
    jobs,
    settle_lost_jobs,
    tell_job,
)
from workbench.store.owners import this_process

NUMBERS = itertools.count()
DEAD = this_process().rsplit(":", 1)[0] + ":1.00"


@pytest.fixture(scope="module")
def one_store(tmp_path_factory):
    """One store for all examples: opening one takes longer than an example."""
    opened = open_store(read_settings({"WORKBENCH_HOME": str(tmp_path_factory.mktemp("jobs"))}))
    yield opened
    opened.engine.dispose()


def asked(**changes) -> Job:
    return Job(**{"kind": "generate", "owner": "anna", "request": {"tests": 3}} | changes)


def test_a_job_is_added_claimed_told_and_finished(store):
    one = add_job(store.engine, asked(key="k"))
    assert job(store.engine, one.id, owner="anna") == one
    assert claim_job(store.engine, one.id, owner="anna").state == "running"
    assert claim_job(store.engine, one.id, owner="anna") is None
    assert tell_job(store.engine, one.id, done=2, total=9, note="a\x00b", usd=Decimal("0.25"))
    assert tell_job(store.engine, one.id)
    now = job(store.engine, one.id, owner="anna")
    assert (now.done, now.total, now.note, now.usd) == (2, 9, "a\ufffdb", Decimal("0.25"))
    assert finish_job(store.engine, one.id, state="succeeded", result={"datasetId": "x"})
    assert not finish_job(store.engine, one.id, state="failed", error="late")
    assert not tell_job(store.engine, one.id, done=3)
    end = job(store.engine, one.id, owner="anna")
    assert (end.state, end.result, end.done) == ("succeeded", {"datasetId": "x"}, 2)
    assert end.started_at <= end.finished_at
    assert claim_job(store.engine, one.id, owner="anna") is None
    assert cancel_job(store.engine, one.id, owner="anna") == end


def test_the_same_key_is_the_same_job_of_its_owner(store):
    one = add_job(store.engine, asked(key="k"))
    assert add_job(store.engine, asked(key="k")) == one
    other = add_job(store.engine, asked(key="k", owner="bo"))
    assert other.id != one.id
    for changed in ({"request": {"tests": 4}}, {"kind": "run"}):
        with pytest.raises(InputError, match=r"another request.*new key"):
            add_job(store.engine, asked(key="k", **changed))
    assert add_job(store.engine, asked()).id != add_job(store.engine, asked()).id
    with pytest.raises(InputError, match="already"):
        add_job(store.engine, asked(id=one.id, owner="bo"))
    assert [found.id for found in jobs(store.engine, owner="bo")] == [other.id]


def test_of_threads_with_one_key_all_get_one_job(store):
    barrier, found = threading.Barrier(8), []

    def add() -> None:
        barrier.wait(30)
        found.append(add_job(store.engine, asked(key="k")).id)

    def claim() -> None:
        barrier.wait(30)
        found.append(claim_job(store.engine, one, owner="anna") is not None)

    for work in (add, claim):
        found.clear()
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        if work is add:
            (one,) = set(found)
    assert sorted(found) == [False] * 7 + [True]


def test_a_job_is_canceled_at_once_or_by_who_runs_it(store):
    waiting, running = (add_job(store.engine, asked()) for _ in range(2))
    assert cancel_job(store.engine, waiting.id, owner="anna").state == "aborted"
    assert claim_job(store.engine, waiting.id, owner="anna") is None
    claim_job(store.engine, running.id, owner="anna")
    assert cancel_job(store.engine, running.id, owner="anna").cancel
    assert not tell_job(store.engine, running.id, done=1)
    assert finish_job(store.engine, running.id, state="aborted")
    assert job(store.engine, running.id, owner="anna").state == "aborted"


def test_nobody_reads_claims_or_cancels_anothers(store):
    one = add_job(store.engine, asked(key="k"))
    for call in (job, claim_job, cancel_job):
        with pytest.raises(DataError, match="'bo' has no job"):
            call(store.engine, one.id, owner="bo")
    with pytest.raises(DataError, match="'bo' has no job"):
        jobs(store.engine, owner="bo", before=one.id)
    assert jobs(store.engine, owner="bo") == []
    assert job(store.engine, one.id, owner="anna") == one


def test_jobs_of_dead_processes_are_lost_and_run_again(store, monkeypatch):
    ids = [add_job(store.engine, asked(owner=who)).id for who in ("anna", "bo", "bo")]
    with monkeypatch.context() as patch:
        patch.setattr(rows, "this_process", lambda: DEAD)
        for one, who in zip(ids[:2], ("anna", "bo"), strict=True):
            claim_job(store.engine, one, owner=who)
    claim_job(store.engine, ids[2], owner="bo")
    cancel_job(store.engine, ids[1], owner="bo")
    assert not tell_job(store.engine, ids[0], done=1)  # another process's
    assert [(one.id, one.state) for one in settle_lost_jobs(store.engine)] == [
        (ids[0], "lost"), (ids[1], "aborted"),
    ]  # fmt: skip
    assert settle_lost_jobs(store.engine) == []
    assert claim_job(store.engine, ids[0], owner="anna").state == "running"
    assert tell_job(store.engine, ids[0], done=1)


@settings(deadline=None, max_examples=30)
@given(
    total=st.integers(0, 23), size=st.integers(1, 7), same=st.booleans(),
    state=st.sampled_from(["", "queued", "aborted"]),
)  # fmt: skip
def test_pages_give_every_job_of_a_filter_once_newest_first(total, size, same, state, one_store):
    store = one_store
    owner = f"user-{next(NUMBERS)}"
    made = []
    for number in range(total):
        at = "2026-01-01T00:00:00.000000Z" if same else f"2026-01-01T00:00:{number:02}.000000Z"
        made.append(add_job(store.engine, asked(owner=owner, created_at=at)))
        add_job(store.engine, asked(owner="other", created_at=at))
        if number % 3 == 0:
            made[-1] = cancel_job(store.engine, made[-1].id, owner=owner)
    found, page = [], ["first"]
    while page:
        before = found[-1].id if found else ""
        page = jobs(store.engine, owner=owner, state=state, before=before, limit=size)
        found += page
    wanted = [one for one in made if state in {"", one.state}]
    assert found == sorted(wanted, key=lambda one: (one.created_at, one.id), reverse=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "delete"}, {"owner": ""}, {"owner": "a" * 201}, {"key": "a\n"},
        {"request": {"x": float("nan")}}, {"request": {"x": "\x00"}}, {"request": {"x": {1, 2}}},
        {"request": {"\ud800": 1}}, {"request": {"x": (1,)}}, {"request": {1: 2}},
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(store, changes):
    with pytest.raises(InputError):
        add_job(store.engine, asked(**changes))
    assert jobs(store.engine, owner="anna") == []


def test_filters_that_mean_nothing_are_refused(store):
    for filters in ({"kind": "x"}, {"state": "x"}, {"limit": 0}, {"limit": 201}):
        with pytest.raises(InputError):
            jobs(store.engine, owner="anna", **filters)
    with pytest.raises(ValueError, match="no end"):
        finish_job(store.engine, "x", state="running")
    made = replace(asked(), kind="run")
    add_job(store.engine, made)
    assert jobs(store.engine, owner="anna", kind="run") == [made]
    assert jobs(store.engine, owner="anna", kind="generate") == []
