"""Money around a call: who waits says so, and a hostile cache gives no answer."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_calls import OWNER, flight
from workbench.core.errors import BudgetError, ConfigError
from workbench.llm.messages import Answer, Reply, Request, Usage
from workbench.llm.prices import Prices
from workbench.llm.router import Route
from workbench.llm.spending import Account, Purchase, Spending, from_stored, to_stored
from workbench.store.budgets import Budgets
from workbench.store.calls import Batch, Settlement
from workbench.store.journal import Journal

PURCHASE = Purchase(
    request=Request(prompt="hello", task="summary"),
    route=Route(tier="cheap", model="claude-haiku-4-5", reason="test"),
    key="k" * 64,
)
REPLY = Reply(text="hi", stop_reason="end_turn", usage=Usage(output_tokens=1), model="m")
ANSWER = Answer(
    text="hi", stop_reason="end_turn", model="m", usage=Usage(input_tokens=3), usd=Decimal("0.5")
)


@pytest.fixture
def journal(store):
    opened = Journal(store.calls, Budgets(experiment=Decimal(2)))
    yield opened
    opened.close()


def spending(journal, tell, clock=lambda: 0.0):
    account = Account(
        who="tester", job="job", experiment="trial", phase="generation", work="work", owner=OWNER
    )
    return Spending(
        journal, Prices(), account, provider="anthropic", prompt_cache="off", clock=clock, tell=tell
    )


def test_who_waits_long_for_the_budget_says_so_once(store, journal, monkeypatch):
    monkeypatch.setattr("workbench.llm.spending._LONGEST_WAIT_S", 0.001)
    others, told, moment = flight("2"), [], [0.0]

    def clock():
        moment[0] += 0.9
        return moment[0]

    async def reserve():
        waiting = asyncio.create_task(spending(journal, told.append, clock).reserve(PURCHASE))
        while not told:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.03)
        end = Settlement(flight=others.id, rows=(), answer=None)
        store.calls.commit(budgets=Budgets(), settlements=[end])
        return await waiting

    store.calls.commit(budgets=Budgets(), claims=[others])
    assert asyncio.run(asyncio.wait_for(reserve(), 10))
    (line,) = told
    assert "waiting for calls in flight" in line
    assert "experiment trial is $2.00: $0.00 is billed, open calls may cost $2.00" in line
    assert moment[0] > 2


def test_a_batch_of_other_work_ends_in_an_error_not_in_waiting(store, journal):
    facts = {"job": "j", "experiment": "e", "phase": "generation", "who": "w", "key_hash": "h"}
    store.calls.add_batch(Batch(id="b1", work="other", requests={}, **facts))
    held = flight("2", owner="batch:b1", work="other")
    store.calls.commit(budgets=Budgets(), claims=[held])
    with pytest.raises(BudgetError, match="open message batches of job may cost"):
        asyncio.run(asyncio.wait_for(spending(journal, print).reserve(PURCHASE), 10))


def test_what_is_settled_once_is_billed_once(store, journal):
    async def settle():
        own = spending(journal, print)
        return [await own.settle("", PURCHASE, REPLY, is_once=True) for _ in range(2)]

    first, second = asyncio.run(settle())
    assert first == second
    assert len(store.ledger.rows()) == 1


def test_answers_at_hand_are_counted_under_the_model_of_the_route(store, journal):
    own = spending(journal, print)
    answer = from_stored(to_stored(ANSWER) | {"model": "somebody's"}, outcome="hit")
    own.count_at_hand(PURCHASE, answer, saved=Decimal(1))
    own.flush()
    journal.close()
    assert [row.resource for row in store.ledger.rows()] == ["claude-haiku-4-5"]


def test_an_answer_comes_back_from_its_values():
    found = from_stored(json.loads(json.dumps(to_stored(ANSWER))), outcome="hit")
    assert (found.text, found.model, found.usage) == (ANSWER.text, ANSWER.model, ANSWER.usage)
    assert found.usd == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"model": ["a"]},
        {"model": "\ud800"},
        {"model": "a\nb"},
        {"text": None},
        {"stop_reason": 1},
        {"usd": "-0.01"},
        {"usd": "1e9999"},
        {"usd": "nan"},
        {"usd": None},
        {"usage": None},
        {"usage": []},
        {"usage": {"input_tokens": "3"}},
        {"usage": {"input_tokens": True}},
        {"usage": {"input_tokens": -1}},
        {"usage": {"input_tokens": 10**9}},
        {"usage": {"input_tokens": 1.5}},
        {"usage": {"other": 1}},
    ],
)
def test_hostile_values_are_no_answer(changed: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError, ConfigError)):
        from_stored(to_stored(ANSWER) | changed, outcome="hit")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda some: st.lists(some, max_size=3) | st.dictionaries(st.text(), some, max_size=3),
)


@given(values=st.fixed_dictionaries(dict.fromkeys(to_stored(ANSWER), JSON)))
def test_whatever_a_cache_holds_only_known_errors_come(values: dict[str, Any]) -> None:
    try:
        found = from_stored(values, outcome="hit")
    except (KeyError, TypeError, ValueError, ConfigError):
        return
    assert found.model.isprintable()
    assert found.usage.total_tokens >= 0
