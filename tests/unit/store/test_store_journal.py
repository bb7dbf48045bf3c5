"""The journal: many callers, few commits, and nothing that was queued is lost."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from decimal import Decimal

import pytest
from sqlalchemy.exc import DataError

from model_calls import bill, flight, settlement
from workbench.core.errors import StoreError
from workbench.store.budgets import Budgets
from workbench.store.calls import Calls
from workbench.store.journal import Journal


class Counting(Calls):
    """Counts commits, and holds or breaks them when told to."""

    def __init__(self, engine):
        super().__init__(engine)
        self.commits = 0
        self.gate = threading.Event()
        self.gate.set()
        self.error = None

    def commit(self, **what):
        assert self.gate.wait(10)
        self.commits += 1
        if self.error:
            raise self.error
        return super().commit(**what)


@pytest.fixture
def calls(store):
    return Counting(store.engine)


@pytest.fixture
def journal(calls):
    opened = Journal(calls, Budgets(run=Decimal(1000)))
    yield opened
    calls.gate.set()
    opened.close()


async def call(journal, **fields):
    one = flight(**fields)
    assert (await journal.claim(one)).state == "granted"
    await journal.settle(settlement(one))
    return one


def test_callers_of_many_loops_share_few_commits(journal, calls, store):
    async def many():
        await asyncio.gather(*(call(journal) for _ in range(50)))

    threads = [threading.Thread(target=asyncio.run, args=(many(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(store.ledger.rows()) == 200
    assert calls.commits < 100
    assert calls.recover() == []


def test_what_is_settled_can_be_read_at_once(journal, calls):
    async def one():
        for _ in range(20):
            done = await call(journal)
            assert calls.read(done.key)
            assert (await calls.find(done.key)).key == done.key

    asyncio.run(one())


def test_a_caller_that_gives_up_loses_no_settlement_and_holds_no_budget(journal, calls, store):
    async def give_up():
        one, other = flight(), flight()
        await journal.claim(one)
        calls.gate.clear()
        waiting = [
            asyncio.create_task(journal.settle(settlement(one))),
            asyncio.create_task(journal.claim(other)),
        ]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError] * 2

    asyncio.run(give_up())
    calls.gate.set()
    journal.close()
    assert len(store.ledger.rows()) == 1
    with store.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM flights").scalar() == 0


@pytest.mark.parametrize("error", [StoreError("the disk is full"), KeyError("secret text")])
def test_a_failed_commit_is_told_to_each_caller_and_the_next_one_works(
    journal, calls, store, error
):
    async def fail():
        calls.error = error
        waiting = [journal.claim(flight()), journal.settle(settlement(flight()))]
        failed = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(one) for one in failed] == [StoreError] * 2
        assert failed[0] is not failed[1]
        assert "secret text" not in str(failed)
        calls.error = None
        await call(journal)

    asyncio.run(fail())
    # what was spent is written as soon as that is possible
    assert len(store.ledger.rows()) == (2 if isinstance(error, StoreError) else 1)


def test_notes_are_entered_by_the_end_and_closing_twice_is_fine(journal, store):
    journal.note([bill("0"), bill("0")])
    journal.note([])
    journal.note(iter([bill("0")]))
    journal.close()
    journal.close()
    assert len(store.ledger.rows()) == 3


def test_closing_says_that_notes_could_not_be_written(journal, calls):
    calls.error = StoreError("the disk is full")
    journal.note([bill("0")])
    with pytest.raises(StoreError, match=r"ledger rows were not written.*disk is full"):
        journal.close()


def test_what_could_not_be_settled_holds_no_budget_once_the_disk_has_room(calls, store):
    journal = Journal(calls, Budgets(run=Decimal("1.5")))

    async def spend():
        one = flight()
        await journal.claim(one)
        calls.error = StoreError("the disk is full")
        with pytest.raises(StoreError, match="full"):
            await journal.settle(settlement(one, "0.25"))
        calls.error = None
        while (await journal.claim(flight())).state == "waiting":
            await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(spend(), 10))
    assert [row.usd for row in store.ledger.rows()] == [Decimal("0.25")]
    journal.close()
    assert len(store.ledger.rows()) == 1


def test_what_could_not_be_settled_is_settled_at_the_end(calls, journal, store):
    async def spend():
        calls.error = StoreError("the disk is full")
        with pytest.raises(StoreError, match="full"):
            await journal.settle(settlement(flight()))

    asyncio.run(spend())
    calls.error = None
    journal.close()
    assert len(store.ledger.rows()) == 1


def test_a_value_that_does_not_fit_stops_nobody_else(calls, journal, store, monkeypatch):
    def keep(connection, answers):
        if any(one.namespace == "bad" for one in answers):
            raise DataError("INSERT", {}, ValueError("too long"))

    monkeypatch.setattr("workbench.store.calls.keep", keep)
    calls.gate.clear()

    async def settle_all():
        ends = [settlement(flight()) for _ in range(5)]
        ends[2] = replace(ends[2], answer=replace(ends[2].answer, namespace="bad"))
        waiting = asyncio.gather(*map(journal.settle, ends), return_exceptions=True)
        await asyncio.sleep(0.01)
        calls.gate.set()
        return await waiting

    outcomes = asyncio.run(settle_all())
    assert [type(one) for one in outcomes] == [type(None)] * 2 + [StoreError] + [type(None)] * 2
    assert len(store.ledger.rows()) == 4


def test_the_owners_of_open_flights_show_life(calls, journal, store, monkeypatch):
    monkeypatch.setattr("workbench.store.journal._BEAT_S", 0.01)
    touched = []
    calls.touch = touched.append

    async def fly():
        one = flight(owner="a")
        await journal.claim(flight(owner="batch:b"))
        await journal.claim(one)
        while len(touched) < 3:
            await asyncio.sleep(0.01)
        await journal.settle(settlement(one))

    asyncio.run(asyncio.wait_for(fly(), 10))
    assert set(touched) == {"a"}
    seen = len(touched)
    asyncio.run(asyncio.sleep(0.04))
    assert len(touched) <= seen + 1


def test_after_closing_nothing_is_taken(journal):
    journal.close()
    for late in (journal.claim(flight()), journal.settle(settlement(flight()))):
        with pytest.raises(StoreError, match="closed"):
            asyncio.run(late)
    with pytest.raises(StoreError, match="closed"):
        journal.note([bill()])


def test_a_loop_that_ended_stops_nobody(journal, calls, store):
    calls.gate.clear()

    async def leave():
        task = asyncio.create_task(journal.settle(settlement(flight())))
        await asyncio.sleep(0)
        assert not task.done()

    asyncio.run(leave())
    calls.gate.set()
    asyncio.run(call(journal))
    assert len(store.ledger.rows()) == 2


def test_256_callers_never_exceed_the_budget(calls, store):
    journal = Journal(calls, Budgets(run=Decimal(10)))

    async def spend():
        one = flight("0.5")
        while (claim := await journal.claim(one)).state == "waiting":
            await asyncio.sleep(0.001)
        if claim.state == "granted":
            await journal.settle(settlement(one, "0.37"))
        return claim.state

    async def all_of_them():
        return await asyncio.gather(*(spend() for _ in range(256)))

    states = asyncio.run(all_of_them())
    journal.close()
    billed = sum(row.usd for row in store.ledger.rows())
    assert billed <= 10
    assert billed + Decimal("0.5") > 10  # and it is used up: nobody was turned away too early
    assert set(states) == {"granted", "denied"}
