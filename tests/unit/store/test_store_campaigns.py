"""Rows of executions: pages miss and repeat nothing, batches are kept whole or not at all."""

from __future__ import annotations

import threading
from collections import Counter
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, delete

from campaign_rows import as_attempt
from workbench.core.errors import StoreError
from workbench.store import schema
from workbench.store.campaigns import (
    add_attempts,
    add_outcomes,
    attempt_pages,
    attempted,
    outcomes,
    remove_attempts,
    remove_errors,
    spent,
    unfinished,
)
from workbench.store.events import events
from workbench.store.ledger import Ledger
from workbench.store.records import Attempt, Event, LedgerRow

KEY = st.tuples(
    st.sampled_from("ef"), st.sampled_from(["", "bare", "Bare", "http://ü/ask"]),
    st.text("abc01", max_size=3), st.integers(0, 3),
)  # fmt: skip


def attempt(execution: str = "e", target: str = "t", case: str = "c", trial: int = 0, **changes):
    facts = {
        "execution": execution, "target": target, "case_id": case, "trial": trial, "sent": "s",
        "received": "r", "decision": "pass", "scores": {"a": 0.5}, "reasons": {"a": "why"},
        "success": False, "latency_ms": 1.5,
    }  # fmt: skip
    return Attempt(**facts | changes)


def cost(usd: Decimal, *, work: str = "w") -> LedgerRow:
    return LedgerRow(
        who="w", job="j", experiment="x", phase="execution", resource="t", quantity=1, unit="call",
        usd=usd, price_version="declared", work=work,
    )  # fmt: skip


@pytest.fixture(scope="module")
def engine():
    made = create_engine("sqlite://")
    schema.metadata.create_all(made)
    yield made
    made.dispose()


def emptied(engine):
    with engine.begin() as connection:
        for table in (schema.attempts, schema.outcomes, schema.ledger, schema.events):
            connection.execute(delete(table))


@given(keys=st.sets(KEY, max_size=30), rows=st.integers(1, 7))
def test_pages_hold_every_attempt_once_and_in_order(engine, keys, rows):
    emptied(engine)
    made = [attempt(*key) for key in keys]
    if made:
        add_attempts(engine, made)
    for execution in "ef":
        pages = list(attempt_pages(engine, execution, rows=rows))
        found = [(row["target"], row["case_id"], row["trial"]) for page in pages for row in page]
        assert found == sorted(key[1:] for key in keys if key[0] == execution)
        assert all(len(page) == rows for page in pages[:-1])
        assert all(0 < len(page) <= rows for page in pages)
        for target in {key[1] for key in keys}:
            mine = {key[2:] for key in keys if key[:2] == (execution, target)}
            assert attempted(engine, execution, target=target) == mine


def test_what_is_written_comes_back(engine):
    emptied(engine)
    one = attempt(sent="\u202e😀\n", scores={}, reasons={"j": "ü"}, usd=Decimal("0.000000001"),
                  error="no", success=True)  # fmt: skip
    add_attempts(engine, [one])
    ((row,),) = attempt_pages(engine, "e", rows=10)
    assert as_attempt(row) == one


@given(keys=st.sets(KEY, min_size=1, max_size=20), rows=st.integers(1, 5), data=st.data())
def test_rows_that_are_added_behind_a_page_are_seen(engine, keys, rows, data):
    """A page is a query of its own: what comes later, and behind it, belongs to the next."""
    emptied(engine)
    before = sorted(data.draw(st.sets(st.sampled_from(sorted(keys)), min_size=1)))
    add_attempts(engine, [attempt(*key) for key in before])
    later = [attempt(*key) for key in keys - set(before)]
    pages = attempt_pages(engine, "e", rows=rows)
    first = next(pages, [])
    if later:
        add_attempts(engine, later)
    seen = [(row["target"], row["case_id"], row["trial"]) for row in first]
    rest = [(row["target"], row["case_id"], row["trial"]) for page in pages for row in page]
    assert rest == sorted(key[1:] for key in keys if key[0] == "e" and seen and key[1:] > seen[-1])


def test_a_batch_with_a_known_attempt_is_kept_as_a_whole_or_not_at_all(engine):
    emptied(engine)
    add_attempts(engine, [attempt(case="1")])
    told = [Event(kind="target_failed", subject="e", who="w")]
    with pytest.raises(StoreError, match="another machine makes the same execution"):
        add_attempts(engine, [attempt(case="2"), attempt(case="1")], events=told)
    assert attempted(engine, "e", target="t") == {("1", 0)}
    assert events(engine) == []


def test_only_what_failed_is_removed(engine):
    emptied(engine)
    add_attempts(
        engine,
        [attempt(case="1", error="down"), attempt(case="2"), attempt("f", case="3", error="down")],
    )
    assert remove_errors(engine, "e") == 1
    assert remove_errors(engine, "e") == 0
    assert attempted(engine, "e", target="t") == {("2", 0)}
    assert attempted(engine, "f", target="t") == {("3", 0)}
    remove_attempts(engine, "e")
    assert attempted(engine, "e", target="t") == set()
    assert attempted(engine, "f", target="t") == {("3", 0)}


@given(prices=st.lists(st.decimals(0, 10, places=9, allow_nan=False), max_size=20))
def test_money_adds_up_to_the_last_place(engine, prices):
    emptied(engine)
    Ledger(engine).add([*map(cost, prices), cost(Decimal(9), work="other")])
    assert spent(engine, "w") == sum(prices, Decimal(0))


def test_unfinished_are_those_with_rows(engine):
    emptied(engine)
    assert unfinished(engine) == {}
    add_attempts(engine, [attempt("e"), attempt("e", trial=1), attempt("f")])
    assert unfinished(engine) == {"e": "", "f": ""}
    remove_attempts(engine, "e")
    assert unfinished(engine) == {"f": ""}


cells_ = st.dictionaries(
    st.tuples(st.sampled_from("tu"), st.sampled_from("pq"), st.sampled_from(["plain", "a+b"])),
    st.integers(0, 50).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
    max_size=8,
)


@given(told=st.lists(st.tuples(st.sampled_from("ef"), cells_), max_size=5))
def test_outcomes_are_those_of_the_last_word_on_each_execution(engine, told):
    emptied(engine)
    for execution, cells in told:
        names = ("target", "plugin", "strategy", "successes", "attempts")
        rows = [dict(zip(names, (*cell, *n), strict=True)) for cell, n in cells.items()]
        add_outcomes(engine, execution, rows)
    want: Counter[tuple[str, str, int]] = Counter()
    known = set()
    for cells in dict(told).values():
        for (_, plugin, strategy), counts in cells.items():
            known.add((plugin, strategy))
            for at, count in enumerate(counts):
                want[plugin, strategy, at] += count
    assert outcomes(engine) == {key: (want[*key, 0], want[*key, 1]) for key in known}


def test_writers_at_once_lose_nothing(store):
    barrier = threading.Barrier(4)

    def write(number: int) -> None:
        barrier.wait(10)
        for at in range(10):
            add_attempts(store.engine, [attempt(case=f"{number}-{at}")])
            store.ledger.add([cost(Decimal("0.1"))])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(attempted(store.engine, "e", target="t")) == 40
    assert spent(store.engine, "w") == sum(row.usd for row in store.ledger.rows()) == 4
