"""Message batches on a scripted transport: each request billed once, whatever comes between."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from decimal import Decimal

import psutil
import pytest
from sqlalchemy import func, select, update

from workbench.core.errors import BudgetError, InputError, ModelError
from workbench.core.settings import Secret
from workbench.llm import orders
from workbench.llm.config import GatewayConfig, Rates, Savings
from workbench.llm.gateway import open_gateway
from workbench.llm.limits import fingerprint
from workbench.llm.messages import Fault, Request
from workbench.llm.off_peak import OffPeak
from workbench.llm.prices import Prices
from workbench.llm.scripted import ScriptedTransport, echo
from workbench.store import schema
from workbench.store.budgets import Budgets
from workbench.store.calls import Batch, Calls
from workbench.store.owners import process_named, this_process

MODEL = "claude-haiku-4-5"
BATCHED = GatewayConfig(
    models={"cheap": MODEL},
    rates=Rates(retry_after_cap_s=0.001, max_attempts=3),
    savings=Savings(batches=True),
)
DROPPED = Fault(kind="dropped", message="connection lost", may_be_billed=True)
REQUESTS = [
    Request(prompt=f"record {n}", task="summary", max_tokens=50, namespace="pages" if n else "")
    for n in range(4)
]


class Killed(BaseException):
    """As good as a kill: nothing after it happens."""


class Service(ScriptedTransport):
    """A service whose batches end when it is told so, and whose answers get lost on their way."""

    def __init__(self, *, default=echo, is_done=True, refusal=None, is_deaf=False, results=None):
        super().__init__(default=default)
        self.is_done = is_done
        self.refusal = refusal
        self.is_deaf = is_deaf
        self.results = results or (lambda found: found)
        self.submitted = []

    async def submit(self, requests, sending):
        self.submitted.append(len(requests))
        await asyncio.sleep(0.01)
        if not self.is_deaf:
            name = await super().submit(requests, sending)
        return self.refusal or name

    async def has_ended(self, batch, *, key):
        if not self.is_done:
            raise Killed
        return await super().has_ended(batch, key=key)

    async def collect(self, batch, *, key):
        return self.results(dict(await super().collect(batch, key=key)))

    def stranger(self, size):
        """Keep a batch of somebody else's, made just now."""
        results = {f"other-{n}": DROPPED for n in range(size)}
        self._batches[f"strange_{len(self._batches)}"] = (time.time(), results)


async def mapped(store, transport, requests, *, config=BATCHED, work="work-1", **options):
    async with open_gateway(
        store, phase="generation", work=work, config=config, transport=transport, tell=lambda _: 0
    ) as gateway:
        return await gateway.map(requests, **options)


def use(store, transport, requests=REQUESTS, **options):
    async def run():
        async with asyncio.timeout(5):
            return await mapped(store, transport, requests, **options)

    return asyncio.run(run())


def killed(store, transport, requests=REQUESTS):
    """Submit a batch and die while the service works on it."""
    transport.is_done = False
    with pytest.raises(BaseExceptionGroup):
        use(store, transport, requests)
    transport.is_done = True


def rows_of(store, outcome):
    return [row for row in store.ledger.rows() if row.details.get("outcome") == outcome]


def spent(rows):
    return sum(row.usd for row in rows)


def flights(store):
    with store.engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(schema.flights)).scalar()


def worst(requests):
    prices = Prices()
    return sum(
        prices.worst_case(
            one, model=MODEL, provider="anthropic", prompt_cache="5m", is_batch=True
        )
        for one in requests
    )  # fmt: skip


def outcomes(answers):
    return [getattr(answer, "outcome", "error") for answer in answers]


def test_a_batch_is_half_the_price(store):
    batched = use(store, ScriptedTransport(default="word " * 20))
    singly = replace(BATCHED, savings=Savings())
    single = use(
        store,
        ScriptedTransport(default="word " * 20),
        [replace(one, variant=1) for one in REQUESTS],
        config=singly,
    )
    assert outcomes(batched) == ["batch"] * 4
    assert [answer.usd * 2 for answer in batched] == [answer.usd for answer in single]
    assert flights(store) == 0


@pytest.mark.parametrize("is_dropping", [False, True])
def test_a_batch_in_flight_is_taken_up_again(store, is_dropping):
    transport = Service(refusal=DROPPED if is_dropping else None)
    killed(store, transport)
    assert flights(store) == 1  # its worst case stays reserved while the service works
    assert outcomes(use(store, transport)) == ["batch"] * 4
    assert transport.submitted == [4]
    assert flights(store) == 0
    assert len(rows_of(store, "batch")) == 4


def test_a_batch_over_budget_is_not_sent(store):
    config = replace(BATCHED, budgets=Budgets(run=Decimal("0.0001")))
    transport = Service()
    with pytest.raises(BudgetError):
        use(store, transport, config=config)
    assert transport.submitted == []
    assert flights(store) == 0


def test_what_the_client_refuses_to_send_reserves_nothing(store):
    class Refusing(Service):
        async def submit(self, requests, sending):
            raise InputError("the schema of a request cannot be used")

    with pytest.raises(InputError):
        use(store, Refusing())
    assert flights(store) == 0
    assert store.calls.open_batches("work-1") == []


def test_batches_that_do_not_fit_a_budget_together_follow_each_other(store, monkeypatch):
    monkeypatch.setattr(orders, "_MOST_REQUESTS", 2)
    limit = worst(REQUESTS[:2]) * Decimal("1.6")
    transport = Service(default="short")
    answers = use(store, transport, config=replace(BATCHED, budgets=Budgets(run=limit)))
    assert outcomes(answers) == ["batch"] * 4
    assert transport.submitted == [2, 2]
    assert flights(store) == 0


def test_those_in_flight_end_where_the_budget_leaves_no_room_for_the_next(store, monkeypatch):
    monkeypatch.setattr(orders, "_MOST_REQUESTS", 2)
    transport = Service(default="x" * 190)  # what it costs at most, nearly
    config = replace(BATCHED, budgets=Budgets(run=worst(REQUESTS[:2])))
    seen = []
    with pytest.raises(BudgetError):
        use(store, transport, config=config, on_answer=lambda at, _: seen.append(at))
    assert sorted(seen) == [0, 1]
    assert transport.submitted == [2]
    assert flights(store) == 0


def test_a_batch_holds_no_more_bytes_than_the_service_takes(store, monkeypatch):
    monkeypatch.setattr(orders, "_MOST_BYTES", 2 * REQUESTS[0].size_bytes)
    huge = Request(prompt="x" * 100, task="summary")
    transport = Service()
    use(store, transport, [*REQUESTS[:3], huge, REQUESTS[3]])
    assert transport.submitted == [2, 1, 1, 1]


def test_a_batch_that_somebody_here_submits_is_waited_for(store):
    transport = Service()

    async def both():
        return await asyncio.gather(
            mapped(store, transport, REQUESTS), mapped(store, transport, REQUESTS)
        )

    answers = asyncio.run(both())
    assert sorted(map(outcomes, answers)) == [["batch"] * 4, ["hit"] * 4]
    assert transport.submitted == [4]
    assert len(rows_of(store, "batch")) == 4


def test_a_batch_that_another_process_submits_is_waited_for(store):
    parent = psutil.Process(os.getppid())
    transport = Service()
    killed(store, transport)
    (left,) = store.calls.open_batches("work-1")
    store.calls.update_batch(left.id, state="collected", remote_id="")
    theirs = replace(
        left, id="theirs", owner=process_named(parent.pid), state="submitting", remote_id=""
    )
    store.calls.add_batch(theirs)

    async def named_later():
        asking = asyncio.create_task(mapped(store, transport, REQUESTS))
        await asyncio.sleep(0.05)
        assert store.calls.open_batches("work-1") == [theirs]
        store.calls.update_batch("theirs", state="open", remote_id=left.remote_id)
        return await asking

    assert outcomes(asyncio.run(named_later())) == ["batch"] * 4
    assert transport.submitted == [4]


def test_the_intent_of_a_dead_process_is_sent_anew(store):
    key = fingerprint(Secret(""))
    dead = f"{this_process().rsplit(':', 2)[0]}:999999999:1.00"
    transport = Service()
    killed(store, transport)
    (left,) = store.calls.open_batches("work-1")
    store.calls.update_batch(left.id, state="collected")
    store.calls.add_batch(
        Batch(
            id="intent", work="work-1", job=left.job, experiment=left.experiment, phase=left.phase,
            who=left.who, key_hash=key, requests=left.requests, owner=dead,
        )
    )  # fmt: skip
    assert outcomes(use(store, transport)) == ["batch"] * 4
    assert transport.submitted == [4, 4]


def test_a_batch_settled_but_not_closed_is_not_billed_again(store, monkeypatch):
    transport = Service()
    original = Calls.update_batch

    def die(self, batch, *, state, remote_id=None):
        if state == "collected":
            raise Killed
        original(self, batch, state=state, remote_id=remote_id)

    with monkeypatch.context() as patch:
        patch.setattr(Calls, "update_batch", die)
        with pytest.raises(BaseExceptionGroup):
            use(store, transport)
    assert len(rows_of(store, "batch")) == 4
    assert len(use(store, transport)) == 4
    assert len(rows_of(store, "batch")) == 4
    assert transport.submitted == [4]


def test_who_asks_for_a_part_settles_all(store):
    transport = Service()
    killed(store, transport)
    (part,) = use(store, transport, REQUESTS[2:3])
    assert part.outcome == "batch"
    assert flights(store) == 0
    assert store.calls.open_batches("work-1") == []
    assert store.calls.recover() == []
    rows = rows_of(store, "batch")
    assert len(rows) == 4
    assert {row.details["task"] for row in rows} == {"summary"}
    assert {row.details["size_bytes"] for row in rows} == {REQUESTS[0].size_bytes}
    answers = use(store, transport)
    assert [answer.text for answer in answers] == [echo(one) for one in REQUESTS]
    assert outcomes(answers) == ["hit"] * 4
    assert transport.submitted == [4]
    with store.engine.connect() as connection:
        names = connection.execute(select(schema.responses.c.namespace)).scalars().all()
    assert sorted(names) == ["pages"] * 3 + ["summary"]


def test_a_refused_batch_is_not_sought_among_the_services(store):
    refusal = Fault(kind="invalid", status=400, message="HTTP 400: no", is_retryable=False)
    transport = Service(refusal=refusal, is_deaf=True)
    transport.stranger(4)
    with pytest.raises(ModelError, match=r"batch of 4: HTTP 400: no; run again"):
        use(store, transport)
    assert flights(store) == 0
    assert rows_of(store, "lost") == []


def test_a_strangers_batch_leaves_errors_for_what_never_arrived(store):
    transport = Service(refusal=DROPPED, is_deaf=True)
    transport.stranger(4)
    answers = use(store, transport)
    assert [type(answer) for answer in answers] == [ModelError] * 4
    assert "run again" in str(answers[0])
    assert flights(store) == 0
    transport.refusal, transport.is_deaf = None, False
    assert outcomes(use(store, transport)) == ["batch"] * 4


def test_what_may_be_billed_within_a_batch_is_charged_at_its_worst(store):
    garbled = Fault(kind="malformed", message="not readable", may_be_billed=True)
    failed = Fault(kind="unavailable", message="expired in its batch")
    transport = Service(default=lambda one: {"record 1": garbled, "record 2": failed}.get(
        one.prompt, "short"))  # fmt: skip
    answers = use(store, transport)
    assert outcomes(answers) == ["batch", "error", "error", "batch"]
    (lost,) = rows_of(store, "lost")
    assert (lost.usd, lost.estimated, lost.note) == (worst([REQUESTS[1]]), True, "not readable")
    assert lost.details["is_batch"]
    assert spent(store.ledger.rows()) == lost.usd + spent(rows_of(store, "batch"))
    assert flights(store) == 0


@pytest.mark.parametrize("left", [0, 3])
def test_a_batch_whose_results_are_missing_stays_open(store, left):
    transport = Service(results=lambda found: dict(list(found.items())[:left]))
    with pytest.raises(ModelError, match=rf"{4 - left} of 4 results are missing; run again"):
        use(store, transport)
    assert flights(store) == 1
    assert store.ledger.rows() == []
    looks = iter([False])
    transport.results = lambda found: found if next(looks, True) else {}  # there a moment later
    assert outcomes(use(store, transport)) == ["batch"] * 4
    assert transport.submitted == [4]
    assert flights(store) == 0


def test_a_batch_waits_for_the_off_peak_window(store, monkeypatch):
    transport = Service()
    held = []

    async def hold(self, tell):
        held.append(list(transport.submitted))

    monkeypatch.setattr(OffPeak, "hold", hold)
    use(store, transport, config=replace(BATCHED, off_peak="22:00-06:00 UTC"))
    assert held == [[]]


def test_equal_requests_of_a_batch_are_billed_to_the_first(store):
    transport = Service()
    answers = use(store, transport, [REQUESTS[0], REQUESTS[1], REQUESTS[0], REQUESTS[0]])
    assert outcomes(answers) == ["batch", "batch", "joined", "joined"]
    assert sum(answer.usd for answer in answers) == spent(store.ledger.rows())
    (joined,) = rows_of(store, "joined")
    assert joined.details["calls"] == 2
    again = use(store, transport, [REQUESTS[0]] * 3)
    assert outcomes(again) == ["hit"] * 3
    assert [row.details["calls"] for row in rows_of(store, "hit")] == [3]


def test_work_without_a_name_pays_for_what_it_buys_again(store):
    config = replace(BATCHED, savings=Savings(batches=True, response_cache=False))
    for _ in range(2):
        assert outcomes(use(store, Service(), config=config, work="")) == ["batch"] * 4
    assert len(rows_of(store, "batch")) == 8


def test_open_batches_of_one_work_never_ask_for_the_same(store):
    transport = Service()
    killed(store, transport)
    (open_one,) = store.calls.open_batches("work-1")
    key = next(iter(open_one.requests))
    other = replace(open_one, id="other", requests={key: {}, "new": {}})
    assert not store.calls.add_batch(other)
    assert store.calls.open_batches("work-1") == [open_one]
    assert store.calls.add_batch(replace(other, work="work-2"))
    assert store.calls.add_batch(replace(other, id="third", requests={"new": {}}))


def test_a_batch_whose_results_are_gone_is_charged_and_bought_again(store):
    transport = Service()
    killed(store, transport)
    with store.engine.begin() as connection:
        connection.execute(update(schema.batches).values(created_at="2026-01-01T00:00:00.000000Z"))
    (lost,) = store.calls.recover()
    assert outcomes(use(store, transport)) == ["batch"] * 4
    assert [row.usd for row in rows_of(store, "lost")] == [lost.worst_usd] == [worst(REQUESTS)]
    assert transport.submitted == [4, 4]
