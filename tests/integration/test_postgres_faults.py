"""Connections to PostgreSQL that break at any moment: what is done, is done once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from decimal import Decimal

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as trials
from hypothesis import strategies as st
from sqlalchemy import event, func, select, text

from model_calls import bill, flight, settlement
from workbench.core.errors import StoreError
from workbench.store import schema
from workbench.store import transaction as store_transaction
from workbench.store.budgets import Budgets
from workbench.store.calls import Batch
from workbench.store.campaigns import add_attempts, attempted, counts
from workbench.store.database import open_store
from workbench.store.events import events, tell
from workbench.store.journal import Journal
from workbench.store.leases import hold
from workbench.store.records import Attempt, Run, now
from workbench.store.transaction import once, transaction

pytest_plugins = ["postgres_server"]


class Faults:
    """Breaks the next connections, each at a moment: before a statement, or around a commit."""

    def __init__(self, engine) -> None:
        self.engine = engine
        self.plan: list[int | str] = []
        self.broken = 0
        self._seen = 0
        self._commit = engine.dialect.do_commit
        engine.dialect.do_commit = self.do_commit
        event.listen(engine, "before_cursor_execute", self.before)

    def _break(self, raw) -> None:
        self.broken += 1
        self.plan.pop(0)
        self._seen = 0
        getattr(raw, "dbapi_connection", raw).close()

    def before(self, connection, *_) -> None:
        if self.plan and isinstance(self.plan[0], int):
            self._seen += 1
            if self._seen > self.plan[0]:
                self._break(connection.connection.dbapi_connection)

    def do_commit(self, raw) -> None:
        if self.plan and self.plan[0] == "before":
            self._break(raw)
        self._commit(raw)
        if self.plan and self.plan[0] == "after":
            self._break(raw)
            raise psycopg.OperationalError("server closed the connection unexpectedly")


@pytest.fixture
def store(postgres, monkeypatch):
    monkeypatch.setattr(store_transaction, "_LOOK_S", 0.001)
    opened = open_store(postgres)
    yield opened
    opened.engine.dispose()


@pytest.fixture
def faults(store):
    return Faults(store.engine)


plans = st.lists(st.integers(0, 6) | st.sampled_from(["before", "after"]), max_size=3)
few = trials(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def flights(store) -> int:
    with store.engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(schema.flights)).scalar_one()


@given(plans, plans)
@few
def test_calls_are_granted_and_billed_once(store, faults, first, second):
    before = len(store.ledger.rows())
    one = flight(id=f"f{time.time_ns()}", key=f"k{time.time_ns()}")
    faults.plan = [*first]
    (claim,) = store.calls.commit(budgets=Budgets(), claims=[one])
    assert claim.state == "granted"  # not taken: by itself
    faults.plan = [*second]
    store.calls.commit(budgets=Budgets(), settlements=[settlement(one)], rows=[bill("0.5")])
    faults.plan = []
    assert sorted(row.usd for row in store.ledger.rows()[before:]) == [Decimal("0.5"), 1]
    assert flights(store) == 0
    assert store.calls.read(one.key)


@given(plans)
@few
def test_everything_else_that_is_added_is_added_once(store, faults, plan):
    number = time.time_ns()
    faults.plan = [*plan]
    run = Run(
        id=f"run-{number}", experiment=f"e{number}", step="s", notebook="n", phase="training",
        fingerprint="f", parameters={}, state="running", owner="tester", folder="",
        started_at=now(),
    )  # fmt: skip
    store.runs.add(run)
    faults.plan = [*plan]
    store.runs.settle(run.id, [bill(experiment=run.experiment)], state="succeeded")
    faults.plan = [*plan]
    store.ledger.add([bill(experiment=run.experiment), bill("0", unit="s", experiment="e")])
    faults.plan = [*plan]
    tell(store, "attack_run_started", f"x{number}", {})
    faults.plan = [*plan]
    made = Attempt(
        execution=f"x{number}", case_id="c", target="t", sent="s", received="r", decision="allow",
        scores={}, success=False, latency_ms=1.0,
    )  # fmt: skip
    with hold(store.engine, f"l{number}", holder="me") as lease:
        faults.plan = [*plan]
        add_attempts(store.engine, [made], lease=lease)
    faults.plan = [*plan]
    batch = Batch(
        id=f"b{number}", work="w", job="j", experiment="e", phase="generation", who="tester",
        key_hash="h", requests={f"r{number}": {}},
    )  # fmt: skip
    assert store.calls.add_batch(batch)
    faults.plan = [*plan]
    assert store.runs.get(run.id).state == "succeeded"
    faults.plan = []
    assert len(store.ledger.rows(experiment=run.experiment)) == 2
    assert len(events(store.engine, subject=f"x{number}")) == 1
    assert attempted(store.engine, f"x{number}", target="t") == {("c", 0)}
    assert counts(store.engine, f"x{number}")["done"] == 1


def test_a_commit_that_is_still_on_its_way_is_waited_for(store):
    """The server has not noticed that the connection is gone, and goes on with the work."""
    slow = threading.Event()
    ended = []

    def work(connection):
        connection.execute(schema.ledger.insert(), {**vars(bill()), "usd": "1"})
        return "written"

    first = store.engine.connect()
    begun = first.begin()
    assert store_transaction._is_new(first, "commit same")
    assert work(first) == "written"
    thread = threading.Thread(target=lambda: ended.append(once(store.engine, work, mark="same")))
    thread.start()
    assert not slow.wait(0.3)
    assert not ended
    begun.commit()
    thread.join(10)
    first.close()
    assert ended == [None]
    assert len(store.ledger.rows()) == 1


def test_what_nobody_knows_of_is_settled_once_however_long_the_server_was_away(
    store, faults, monkeypatch
):
    monkeypatch.setattr(store_transaction, "_PATIENCE_S", 0.05)
    journal = Journal(store.calls, Budgets())
    one, other = flight(id="one", key="one"), flight(id="other", key="other")

    async def spend():
        await journal.claim(one)
        faults.plan = ["after"] + [1] * 100_000
        journal.note([bill("0.5")])
        failed = await asyncio.gather(
            journal.settle(settlement(one)), journal.claim(other), return_exceptions=True
        )
        assert {type(each) for each in failed} == {StoreError}
        faults.plan = []
        again = flight(id="again", key="other")
        while (await journal.claim(again)).state != "granted":
            await asyncio.sleep(0.01)
        await journal.settle(settlement(again))

    asyncio.run(spend())
    journal.close()
    assert sorted(row.usd for row in store.ledger.rows()) == [Decimal("0.5"), 1, 1]
    assert flights(store) == 0


def test_only_faults_of_the_connection_are_retried(store):
    tried = []

    def work(connection):
        tried.append(1)
        connection.execute(text("SELECT 1 / 0"))

    with pytest.raises(StoreError, match="division by zero"):
        once(store.engine, work)
    assert len(tried) == 1


def test_a_server_that_was_never_reached_is_not_waited_for(postgres, server):
    store = open_store(postgres)
    server.stop()
    try:
        began = time.monotonic()
        with pytest.raises(StoreError, match="start the server"):
            open_store(postgres)
        assert time.monotonic() - began < 3
        with (
            pytest.raises(StoreError, match="start the server"),
            transaction(store.engine, patience_s=0.3),
        ):
            pass
        assert time.monotonic() - began < 6
        threading.Timer(0.5, server.start).start()
        assert store.ledger.rows() == []  # waited for
    finally:
        time.sleep(0.1)
        store.engine.dispose()


def test_what_says_that_a_commit_was_kept_is_removed(store):
    for _ in range(100):
        store.ledger.add([bill()])
    with store.engine.connect() as connection:
        names = connection.execute(select(schema.leases.c.name)).scalars().all()
    assert len(names) <= 2 * store_transaction._AT_ONCE
    assert Counter(name.split()[0] for name in names).keys() == {"commit"}
    with store.engine.begin() as connection:
        connection.execute(schema.leases.update().values(until=1.0))
    store.calls.recover()
    with store.engine.connect() as connection:
        assert not connection.execute(select(schema.leases.c.name)).all()
