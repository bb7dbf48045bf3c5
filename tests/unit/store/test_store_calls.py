"""Flights, budgets and kept answers: nothing over a limit, nothing lost, nothing charged twice."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, text

from model_calls import OWNER, answer, bill, flight, settlement
from workbench.core.errors import StoreError
from workbench.store.budgets import Budgets
from workbench.store.calls import Batch, Calls, Settlement
from workbench.store.owners import Owners, this_process
from workbench.store.records import now

FREE = Budgets()
DEAD = OWNER.rsplit(":", 1)[0] + ":12345.00"
"""Our pid, but created long ago."""


def flights_of(store):
    with store.engine.connect() as connection:
        return list(connection.execute(text("SELECT id FROM flights ORDER BY id")).scalars())


def claim(store, *flights, budgets=FREE):
    return [one.state for one in store.calls.commit(budgets=budgets, claims=flights)]


def settle(store, *settlements, rows=()):
    store.calls.commit(budgets=FREE, settlements=settlements, rows=rows)


def test_a_settled_call_leaves_its_row_and_its_answer_and_no_flight(store):
    one = flight()
    assert claim(store, one) == ["granted"]
    assert flights_of(store) == [one.id]
    assert store.calls.read(one.key) is None
    settle(store, settlement(one, "0.25", text="ä \x00 \ud800 <b>"))
    assert flights_of(store) == []
    assert [row.usd for row in store.ledger.rows()] == [Decimal("0.25")]
    assert store.calls.read(one.key) == answer(one.key, "ä \x00 \ud800 <b>")


def test_each_work_keeps_its_own_answer_and_others_get_the_freshest(store):
    def keep(work, expires_at):
        kept = answer("k", work, work=work, expires_at=expires_at)
        settle(store, Settlement(flight="x", rows=(), answer=kept))

    def read(work=""):
        return store.calls.read("k", work=work).answer["text"]

    keep("a", 5.0)
    keep("", 3.0)
    assert read() == "a"  # the work without a name is nobody's
    keep("b", 9.0)
    assert (read("a"), read("b"), read("c"), read()) == ("a", "b", "b", "b")
    keep("a", None)
    assert read("c") == "a"
    assert store.calls.read("other", work="a") is None


def test_what_is_entered_once_is_not_entered_again(store):
    twice = [
        replace(settlement(flight(key="k"), text=text), flight="", is_once=True)
        for text in ("first", "second", "third")
    ]
    other = replace(twice[0], answer=answer("k", work="other"))
    one = flight()
    claim(store, one)
    settle(store, twice[0], twice[1], other)
    settle(store, replace(twice[2], flight=one.id))
    assert len(store.ledger.rows()) == 2
    assert store.calls.read("k", work="work").answer == {"text": "first"}
    assert flights_of(store) == []  # that ends all the same
    settle(store, replace(twice[2], is_once=False))
    assert store.calls.read("k", work="work").answer == {"text": "third"}


@pytest.mark.parametrize(("work", "rows"), [("work", 1), ("", 2)])
def test_only_what_expired_without_a_work_is_bought_again(store, work, rows):
    kept = answer("k", work=work, expires_at=1.0)
    bought = Settlement(flight="", rows=(bill(),), answer=kept, is_once=True)
    settle(store, bought)
    settle(store, bought)
    assert len(store.ledger.rows()) == rows


def test_a_newer_answer_replaces_the_older_also_within_one_commit(store):
    settle(store, Settlement(flight="a", rows=(), answer=answer("k", "1")))
    settle(
        store,
        Settlement(flight="b", rows=(), answer=answer("k", "2")),
        Settlement(flight="c", rows=(), answer=answer("k", "3", expires_at=5.5)),
    )
    assert store.calls.read("k") == answer("k", "3", expires_at=5.5)


def test_a_settlement_without_a_flight_still_enters_its_row(store):
    settle(store, settlement(flight()))
    assert len(store.ledger.rows()) == 1


LIMITS = {
    "run": (Budgets(run=Decimal(2)), {"job": "other"}),
    "phase: generation": (Budgets(phase={"generation": Decimal(2)}), {"phase": "execution"}),
    "experiment": (Budgets(experiment=Decimal(2)), {"experiment": "other"}),
    "day": (Budgets(day=Decimal(2)), None),
    "user": (Budgets(user=Decimal(2)), {"who": "other"}),
}


@pytest.mark.parametrize("name", LIMITS)
def test_each_limit_holds_for_its_own_scope(store, name):
    budgets, elsewhere = LIMITS[name]
    first, second = flight(), flight("0.5")
    assert claim(store, first, second, flight("0.51"), budgets=budgets) == [
        "granted", "granted", "waiting",
    ]  # fmt: skip
    settle(store, settlement(first, "1.6"))
    (denied,) = store.calls.commit(budgets=budgets, claims=[flight("0.41")])
    assert denied.state == "denied"
    assert f"`llm: budgets: {name}`" in denied.reason
    assert "is $2.00: $1.60 is billed and this call may cost $0.41" in denied.reason
    assert "\n" not in denied.reason
    assert claim(store, flight("0.4"), budgets=budgets) == ["waiting"]  # second holds 0.5
    settle(store, settlement(second, "0"))
    assert claim(store, flight("0.4"), budgets=budgets) == ["granted"]
    if elsewhere:
        assert claim(store, flight("2", **elsewhere), budgets=budgets) == ["granted"]


def test_day_and_month_begin_at_midnight_utc_and_flights_stay_counted(store):
    moment = [datetime(2026, 1, 31, 23, 59, tzinfo=UTC).timestamp()]
    calls = Calls(store.engine, clock=lambda: moment[0])
    budgets = Budgets(day=Decimal(2), user=Decimal(3))
    old = flight("1.5", at="2026-01-31T23:58:00.000000Z")
    calls.commit(budgets=budgets, claims=[old], rows=[bill("0.5", at="2026-01-31T01:00:00Z")])
    assert [one.state for one in calls.commit(budgets=budgets, claims=[flight("0.1")])] == [
        "waiting"
    ]
    moment[0] += 120  # February: nothing is billed yet, but the old flight will be, today
    verdicts = calls.commit(budgets=budgets, claims=[flight("0.6"), flight("0.5")])
    assert [one.state for one in verdicts] == ["waiting", "granted"]


def test_other_costs_and_hits_do_not_count(store):
    store.ledger.add([bill("9", unit="core_s"), bill("0", cache_hit=True)])
    assert claim(store, flight("1"), budgets=Budgets(run=Decimal(1))) == ["granted"]


def test_the_first_limit_that_is_short_is_named(store):
    budgets = Budgets(experiment=Decimal("0.5"), day=Decimal("0.1"))
    (verdict,) = store.calls.commit(budgets=budgets, claims=[flight()])
    assert "experiment trial" in verdict.reason


def test_one_of_equal_shared_calls_flies_and_all_of_the_others(store):
    shared = [flight(key="k"), flight(key="k")]
    own = [flight(key="k", is_shared=False), flight(key="k", is_shared=False)]
    assert claim(store, *shared) == ["granted", "taken"]
    assert claim(store, flight(key="k")) == ["taken"]
    assert claim(store, *own) == ["granted", "granted"]
    settle(store, settlement(shared[0]))
    assert claim(store, flight(key="k"), flight(key="k", is_shared=False)) == ["taken", "granted"]


def test_an_expired_answer_may_be_bought_again(store):
    bought = flight(key="k")
    claim(store, bought)
    settle(store, Settlement(flight=bought.id, rows=(), answer=answer("k", expires_at=1.0)))
    assert claim(store, flight(key="k")) == ["granted"]


def test_a_flight_that_does_not_share_takes_no_key(store):
    assert claim(store, flight(key="k", is_shared=False), flight(key="k")) == [
        "granted", "granted",
    ]  # fmt: skip


def test_the_flight_of_a_dead_process_is_charged_once_and_its_key_is_free(store):
    budgets = Budgets(run=Decimal(3))
    dead = flight("2", key="k", owner=DEAD)
    claim(store, dead, budgets=budgets)
    assert claim(store, flight("1", key="k"), flight("1"), budgets=budgets) == [
        "granted", "waiting",
    ]  # fmt: skip
    (row,) = store.ledger.rows()
    assert (row.usd, row.estimated, row.work) == (Decimal(2), True, "work")
    told = {"calls": 1, "provider": "scripted", "outcome": "lost", "flight": dead.id}
    assert row.details == told
    assert store.calls.recover() == []
    assert len(store.ledger.rows()) == 1


def test_recovering_gives_the_lost_flights_and_leaves_the_living(store):
    dead, alive = flight("2", owner=DEAD), flight()
    claim(store, dead, alive)
    assert store.calls.recover() == [dead]
    assert flights_of(store) == [alive.id]
    settle(store, settlement(dead, "0.5"))  # its answer came after all
    assert [row.usd for row in store.ledger.rows()] == [2, -2, Decimal("0.5")]
    assert sum(row.details["calls"] for row in store.ledger.rows()) == 1
    settle(store, Settlement(flight=dead.id, rows=(), answer=None))
    assert sum(row.usd for row in store.ledger.rows()) == Decimal("0.5")


def test_who_shows_life_is_not_charged_by_another_host(store):
    moment = [datetime.now(UTC).timestamp()]
    calls = Calls(store.engine, clock=lambda: moment[0])
    ours, theirs = flight(owner="far:1:2.0"), flight(owner="far:2:2.0")
    batch = flight(owner="batch:b1", at="2026-01-01T00:00:00.000000Z")
    claim(store, ours, theirs, batch)
    moment[0] += 14 * 60
    calls.touch("far:1:2.0")
    moment[0] += 14 * 60
    assert {one.id for one in calls.recover()} == {theirs.id, batch.id}
    moment[0] += 2 * 60
    assert [one.id for one in calls.recover()] == [ours.id]


def test_recovering_at_once_charges_once(store):
    claim(store, *(flight(owner=DEAD) for _ in range(20)))
    barrier, found = threading.Barrier(4), []

    def recover():
        calls = Calls(store.engine)
        barrier.wait(10)
        found.extend(calls.recover())

    threads = [threading.Thread(target=recover) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == len({one.id for one in found}) == len(store.ledger.rows()) == 20


def test_a_batch_that_nobody_collects_is_charged_after_29_days(store):
    facts = {"job": "j", "experiment": "e", "phase": "generation", "who": "w", "key_hash": "h"}
    store.calls.add_batch(Batch(id="b1", work="work", requests={}, **facts))
    claim(store, flight("2", owner="batch:b1"))
    later = Calls(store.engine, clock=lambda: datetime.now(UTC).timestamp() + 30 * 86400)
    assert store.calls.recover() == []
    assert [lost.worst_usd for lost in later.recover()] == [Decimal(2)]


def open_batch(store, one):
    facts = {"job": "j", "experiment": "e", "phase": "generation", "who": "w", "key_hash": "h"}
    name = one.owner.removeprefix("batch:")
    store.calls.add_batch(Batch(id=name, work=one.work, requests={}, **facts))
    claim(store, one)


@pytest.mark.parametrize("work", ["other", ""])
def test_a_batch_of_other_work_counts_as_billed(store, work):
    budgets = Budgets(run=Decimal(3))
    open_batch(store, flight("2", owner="batch:b1", work=work))
    (verdict,) = store.calls.commit(budgets=budgets, claims=[flight("1.5", work=work or "w")])
    assert verdict.state == ("waiting" if work else "denied")
    (verdict,) = store.calls.commit(budgets=budgets, claims=[flight("1.5", work="")])
    assert verdict.state == "denied"
    assert "$0.00 is billed, open message batches of job may cost $2.00 and this" in verdict.reason
    assert claim(store, flight("1"), flight("1"), budgets=budgets) == ["granted", "waiting"]


@pytest.mark.parametrize(("work", "first"), [("work", "waiting"), ("other", "denied")])
def test_a_batch_counts_on_the_day_on_which_it_was_made(store, work, first):
    moment = [datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp()]
    calls = Calls(store.engine, clock=lambda: moment[0])
    open_batch(store, flight("2", owner="batch:b1", work=work, at="2026-01-31T11:00:00.000000Z"))
    budgets = Budgets(day=Decimal(2), user=Decimal(2))
    for days, state in ((0, first), (1, "granted")):
        moment[0] += days * 86400
        (verdict,) = calls.commit(budgets=budgets, claims=[flight("0.5")])
        assert verdict.state == state
    run = calls.commit(budgets=Budgets(run=Decimal(2)), claims=[flight("0.1")])
    assert [one.state for one in run] == [first]


def test_waiting_says_for_what(store):
    (_, verdict) = store.calls.commit(
        budgets=Budgets(run=Decimal(1)), claims=[flight("0.75"), flight("0.5")]
    )
    assert "$0.00 is billed, open calls may cost $0.75 and this call may cost $0.50" in (
        verdict.reason
    )


def test_the_flights_of_a_batch_live_until_it_is_collected(store):
    batch = Batch(
        id="b1", work="work", job="job", experiment="trial", phase="generation", who="t",
        key_hash="0" * 12, owner=OWNER, requests={"a": {"ä": [1]}},
    )  # fmt: skip
    store.calls.add_batch(batch)
    one = flight(owner="batch:b1", at="2020-01-01T00:00:00.000000Z")
    claim(store, one)
    assert store.calls.recover() == []
    assert store.calls.open_batches("other") == []
    assert store.calls.open_batches("work") == [batch]
    assert store.calls.remote_batches() == set()
    store.calls.update_batch("b1", state="open", remote_id="msgbatch_1")
    assert store.calls.open_batches("work") == [
        replace(batch, state="open", remote_id="msgbatch_1")
    ]
    store.calls.update_batch("b1", state="collected")
    assert store.calls.open_batches("work") == []
    assert store.calls.remote_batches() == {"msgbatch_1"}
    assert store.calls.recover() == [one]


def test_a_process_is_known_by_host_pid_and_time_of_creation():
    moment = [1000.0]
    owners = Owners(lambda: moment[0])
    host, pid, created_at = this_process().rsplit(":", 2)
    at = datetime.fromtimestamp(moment[0], UTC).isoformat()
    assert owners.is_alive(this_process(), at=at)
    assert not owners.is_alive(f"{host}:{pid}:{float(created_at) - 60}", at=at)
    assert not owners.is_alive(f"{host}:{2**22 + 1}:{created_at}", at=at)
    for elsewhere in (f"not-{host}:{pid}:{created_at}", "", "what", f"{host}:x:y"):
        assert owners.is_alive(elsewhere, at=at)
    moment[0] += 16 * 60
    for elsewhere in (f"not-{host}:{pid}:{created_at}", "", "what", f"{host}:x:y"):
        assert not owners.is_alive(elsewhere, at=at)


def test_answers_long_expired_are_removed_the_others_stay(store):
    moment = 1_700_000_000.0
    week = 7 * 24 * 3600
    calls = Calls(store.engine, clock=lambda: moment)
    expiries = {"old": moment - week - 1, "expired": moment - week + 1, "for ever": None}
    for key, expires_at in expiries.items():
        kept = answer(key, expires_at=expires_at)
        settle(store, Settlement(flight="x", rows=(), answer=kept))
    calls.recover()
    assert [key for key in expiries if calls.read(key)] == ["expired", "for ever"]


def test_estimates_come_back_in_order(store):
    for usd in ("1", "2"):
        store.calls.add_estimate(
            {"usd": usd}, work="w", job="j", experiment="trial", phase="generation"
        )
    found = store.calls.estimates("trial")
    assert [one["figures"] for one in found] == [{"usd": "1"}, {"usd": "2"}]
    assert set(found[0]) == {"work", "job", "experiment", "phase", "at", "figures"}
    assert store.calls.estimates("other") == []


def test_an_answer_is_read_again_after_the_engine_was_disposed_and_by_all_threads(store):
    settle(store, Settlement(flight="x", rows=(), answer=answer("k")))
    found = []

    def read():
        found.extend(store.calls.read("k") for _ in range(200))

    for _ in range(2):
        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        store.engine.dispose()
    assert found == [answer("k")] * 1600


def fill(store):
    """Leave no page for anything new."""
    with store.engine.connect() as connection:
        pages = connection.execute(text("PRAGMA page_count")).scalar()
    limit = [pages]
    event.listen(
        store.engine,
        "checkout",
        lambda connection, *_: connection.execute(f"PRAGMA max_page_count={limit[0]}"),
    )
    return limit


def test_on_a_full_disk_nothing_is_half_written_and_later_all_works(store):
    one = flight()
    claim(store, one)
    limit = fill(store)
    huge = settlement(one, text="x" * 500_000)
    with pytest.raises(StoreError, match="full"):
        store.calls.commit(budgets=FREE, claims=[flight()], settlements=[huge])
    assert flights_of(store) == [one.id]
    assert store.ledger.rows() == []
    limit[0] = 2**30
    settle(store, huge)
    assert flights_of(store) == []
    assert len(store.ledger.rows()) == 1


def test_what_was_rolled_back_is_not_taken_for_billed(store):
    budgets = Budgets(run=Decimal(3))
    store.ledger.add([bill("1")])
    dead = flight("1", owner=DEAD)
    claim(store, dead, budgets=budgets)
    limit = fill(store)
    with pytest.raises(StoreError):  # it charges the dead and reads that row, then fails
        store.calls.commit(
            budgets=budgets, claims=[flight()], settlements=[settlement(dead, text="x" * 500_000)]
        )
    limit[0] = 2**30
    settle(store, Settlement(flight=dead.id, rows=(), answer=None))
    assert claim(store, flight("2"), budgets=budgets) == ["granted"]


AMOUNT = st.integers(0, 40).map(lambda cents: Decimal(cents) / 100)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["claim", "claim", "settle", "lose", "die", "retry"]),
        AMOUNT,
        st.sampled_from(["a", "b"]),
        st.sampled_from(["generation", "execution"]),
    ),
    max_size=40,
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS, limit=AMOUNT, phase_limit=AMOUNT)
def test_whatever_happens_no_limit_is_exceeded(store, steps, limit, phase_limit):
    experiment = f"e{now()}"
    budgets = Budgets(
        run=limit, phase={"generation": phase_limit}, experiment=Decimal("0.9"), user=Decimal("1.2")
    )
    who, open_flights, waiting, bills = f"u{now()}", [], {}, 0
    for what, amount, job, phase in steps:
        whose = {"who": who, "job": job + experiment, "experiment": experiment, "phase": phase}
        if what == "claim":
            one = flight(amount, **whose)
        elif what == "retry" and waiting:
            one = next(iter(waiting))
        elif open_flights and what in {"settle", "lose"}:
            one = open_flights.pop(0)
            cost = min(one.worst_usd, amount) if what == "settle" else one.worst_usd
            settle(store, settlement(one, cost))
            bills += 1
            continue
        elif what == "die":
            dead = flight(amount, **whose, owner=DEAD)
            claim(store, dead, budgets=budgets)
            bills += len(store.calls.recover())
            continue
        else:
            continue
        (verdict,) = claim(store, one, budgets=budgets)
        if one in waiting and waiting[one] == bills:
            assert verdict != "denied"
        waiting.pop(one, None)
        if verdict == "granted":
            open_flights.append(one)
        elif verdict == "waiting":
            waiting[one] = bills
        rows = store.ledger.rows(experiment=experiment)
        for name in ("a", "b"):
            assert sum(row.usd for row in rows if row.job == name + experiment) <= limit
        assert sum(row.usd for row in rows if row.phase == "generation") <= phase_limit
        assert sum(row.usd for row in rows) <= Decimal("0.9")
    settle(store, *(settlement(one, one.worst_usd) for one in open_flights))
    assert sum(row.usd for row in store.ledger.rows(experiment=experiment)) <= Decimal("0.9")
