"""The gateway on a scripted transport: what is sent, what is billed, what is kept."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal

import pytest
from sqlalchemy import func, select

from workbench.core.errors import BudgetError, ConfigError, ModelError
from workbench.llm.config import GatewayConfig, Rates, Savings
from workbench.llm.gateway import open_gateway
from workbench.llm.messages import Fault, Reply, Request, Usage
from workbench.llm.scripted import ScriptedTransport, echo
from workbench.store import schema
from workbench.store.budgets import Budgets

QUICK = GatewayConfig(
    models={"cheap": "claude-haiku-4-5"}, rates=Rates(retry_after_cap_s=0.001, max_attempts=4)
)
BUSY = Fault(kind="overloaded", message="overloaded", status=529)
DROPPED = Fault(kind="dropped", message="connection lost", may_be_billed=True)


def use(store, transport, job, *, config=QUICK, work="work-1"):
    async def run():
        async with open_gateway(
            store, phase="generation", work=work, config=config, transport=transport
        ) as gateway:
            return await job(gateway)

    return asyncio.run(run())


def asks(*requests):
    async def job(gateway):
        return [await gateway.ask(request) for request in requests]

    return job


def maps(requests):
    return lambda gateway: gateway.map(requests)


def summary(text="a record", **changes):
    return Request(**{"prompt": text, "task": "summary", "max_tokens": 50} | changes)


def rows_of(store, outcome):
    return [row for row in store.ledger.rows() if row.details.get("outcome") == outcome]


def flights(store):
    with store.engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(schema.flights)).scalar()


def test_an_answer_is_in_the_store_before_its_caller_has_it(store):
    seen = {}

    async def job(gateway):
        answer = await gateway.ask(summary())
        seen["rows"], seen["flights"] = store.ledger.rows(), flights(store)
        return answer

    answer = use(store, ScriptedTransport("short"), job)
    (row,) = seen["rows"]
    assert answer.text == "short"
    assert answer.usd == row.usd > 0
    assert (row.phase, row.work, row.unit, row.estimated) == (
        "generation",
        "work-1",
        "token",
        False,
    )
    assert row.details["miss"] == "absent"
    assert seen["flights"] == 0


def test_the_same_request_is_bought_once(store):
    transport = ScriptedTransport("short")
    first, second = use(store, transport, asks(summary(), summary()))
    assert len(transport.requests) == 1
    assert second.text == first.text
    assert (second.usd, second.outcome) == (0, "hit")
    (hit,) = rows_of(store, "hit")
    assert (hit.usd, hit.cache_hit, hit.details["saved_usd"]) == (0, True, str(first.usd))


def test_another_variant_is_another_answer(store):
    transport = ScriptedTransport("one", "two")
    one, two = use(store, transport, asks(summary(), summary(variant=1)))
    assert {one.text, two.text} == {"one", "two"}


def test_requests_side_by_side_share_one_call(store):
    transport = ScriptedTransport("short", latency_s=0.02)
    answers = use(store, transport, maps([summary()] * 8))
    assert len(transport.requests) == 1
    assert sorted(answer.outcome for answer in answers) == ["joined"] * 7 + ["sent"]
    assert sum(answer.usd for answer in answers) == store.ledger.rows()[0].usd


def test_those_who_share_a_failing_call_all_hear_of_it(store):
    transport = ScriptedTransport(replace(BUSY, is_retryable=False), latency_s=0.02)
    outcomes = use(store, transport, maps([summary()] * 3))
    assert [type(outcome) for outcome in outcomes] == [ModelError] * 3
    assert len(transport.requests) == 1


def test_a_caller_that_gives_up_does_not_take_the_others_along(store):
    transport = ScriptedTransport(default=echo, latency_s=0.05)

    async def job(gateway):
        first = asyncio.create_task(gateway.ask(summary()))
        await asyncio.sleep(0.02)
        second = asyncio.create_task(gateway.ask(summary()))
        await asyncio.sleep(0.01)
        first.cancel()
        return await second

    answer = use(store, transport, job)
    assert answer.outcome == "sent"
    (lost,) = rows_of(store, "lost")  # it was with the service when its caller left
    assert lost.estimated
    assert lost.usd >= answer.usd
    assert flights(store) == 0


def test_without_the_response_cache_equal_requests_are_bought_each_but_never_twice(store):
    off = replace(QUICK, savings=Savings(response_cache=False))
    first = ScriptedTransport("a", "b")
    use(store, first, asks(summary(), summary()), config=off)
    assert len(first.requests) == 2
    resumed = ScriptedTransport("c")
    answers = use(store, resumed, asks(*[summary()] * 3), config=off)
    assert [answer.text for answer in answers] == ["a", "b", "c"]
    assert len(resumed.requests) == 1
    elsewhere = ScriptedTransport("d")
    use(store, elsewhere, asks(summary()), config=off, work="work-2")
    assert len(elsewhere.requests) == 1


def test_an_expired_answer_still_serves_its_own_work(store):
    config = replace(QUICK, ttl_s={"summary": 0.0})
    use(store, ScriptedTransport("old"), asks(summary()), config=config)
    (again,) = use(store, ScriptedTransport(), asks(summary()), config=config)
    assert again.text == "old"
    (other,) = use(store, ScriptedTransport("new"), asks(summary()), config=config, work="work-2")
    assert other.text == "new"
    assert rows_of(store, "sent")[-1].details["miss"] == "expired"


def test_mutations_are_kept_for_ever(store):
    use(store, ScriptedTransport("m"), asks(summary(task="mutation")))
    assert store.calls.read is not None
    with store.engine.connect() as connection:
        assert connection.execute(select(schema.responses.c.expires_at)).scalar() is None


def test_at_the_limit_no_new_call_starts_and_what_is_done_is_kept(store):
    requests = [summary(f"record {n}") for n in range(40)]
    config = replace(QUICK, budgets=Budgets(run=Decimal("0.003")))
    transport = ScriptedTransport(default="x" * 150)
    with pytest.raises(BudgetError, match=r"run .* \$0\.003"):
        use(store, transport, maps(requests), config=config)
    billed = sum(row.usd for row in store.ledger.rows())
    assert 0 < billed <= Decimal("0.003")
    sent = len(transport.requests)
    more = replace(config, budgets=Budgets(run=Decimal(1)))
    use(store, transport, maps(requests), config=more)
    assert len(transport.requests) == 40 > sent


def test_budgets_hold_with_256_callers(store):
    limit = Decimal("0.01")
    config = replace(QUICK, savings=Savings(parallel=256), budgets=Budgets(experiment=limit))
    transport = ScriptedTransport(default="x" * 200, latency_s=0.005)
    with pytest.raises(BudgetError):
        use(store, transport, maps([summary(f"record {n}") for n in range(400)]), config=config)
    billed = sum(row.usd for row in store.ledger.rows())
    assert billed <= limit
    dearest = max(row.usd for row in store.ledger.rows())
    assert billed > limit - 4 * dearest - Decimal("0.0005")  # nor does it stop far too early


def test_a_busy_service_is_asked_again_and_bills_once(store):
    transport = ScriptedTransport(BUSY, BUSY, "at last")
    (answer,) = use(store, transport, asks(summary()))
    assert answer.text == "at last"
    (row,) = store.ledger.rows()
    assert row.details["attempts"] == 3


def test_a_lost_answer_is_charged_at_its_worst_and_bought_again(store):
    transport = ScriptedTransport(DROPPED, "again")
    (answer,) = use(store, transport, asks(summary()))
    lost, sent = store.ledger.rows()
    assert (lost.details["outcome"], lost.estimated, lost.cache_hit) == ("lost", True, False)
    assert lost.usd > sent.usd == answer.usd


def test_a_lost_answer_counts_towards_the_budget(store):
    transport = ScriptedTransport(default=DROPPED)
    worst = Decimal("0.0007")
    config = replace(QUICK, budgets=Budgets(run=worst))
    with pytest.raises(BudgetError):
        use(store, transport, asks(summary()), config=config)
    assert sum(row.usd for row in store.ledger.rows()) <= worst


def test_a_service_that_stays_broken_is_given_up(store):
    transport = ScriptedTransport(default=BUSY)
    with pytest.raises(ModelError, match="overloaded.*after 4 attempts"):
        use(store, transport, asks(summary()))
    assert len(transport.requests) == 4
    assert store.ledger.rows() == []
    assert flights(store) == 0


def test_a_refused_request_is_not_sent_again(store):
    transport = ScriptedTransport(
        Fault(kind="invalid", status=400, message="no", is_retryable=False)
    )
    with pytest.raises(ModelError, match="claude-haiku-4-5: no"):
        use(store, transport, asks(summary()))
    assert len(transport.requests) == 1


def test_a_refusal_is_an_answer(store):
    refusal = Reply(
        text="", stop_reason="refusal", usage=Usage(input_tokens=5), model="claude-haiku-4-5"
    )
    (answer,) = use(store, ScriptedTransport(refusal), asks(summary()))
    assert answer.is_refusal
    assert answer.usd > 0


def test_one_failure_leaves_the_other_answers(store):
    bad = Fault(kind="invalid", status=400, message="no", is_retryable=False)
    config = replace(QUICK, savings=Savings(parallel=1))
    outcomes = use(store, ScriptedTransport("a", bad, "c"), maps(
        [summary("1"), summary("2"), summary("3")]), config=config)  # fmt: skip
    assert [getattr(outcome, "text", None) for outcome in outcomes] == ["a", None, "c"]


def test_no_model_where_a_rule_will_do(store):
    transport = ScriptedTransport()
    request = summary(task="risk_score")

    async def job(gateway):
        with pytest.raises(ConfigError, match="rule"):
            await gateway.ask(request)
        return await gateway.ask(request, rule=lambda asked: asked.prompt.upper())

    answer = use(store, transport, job)
    assert (answer.text, answer.usd, answer.outcome) == ("A RECORD", 0, "rule")
    assert transport.requests == []
    (row,) = rows_of(store, "rule")
    assert row.details["calls"] == 1


def test_a_shared_system_text_is_written_once_before_the_fan_out(store):
    system = "You know a lot about it. " * 200
    requests = [summary(f"record {n}", system=system) for n in range(5)]
    transport = ScriptedTransport(default=echo)
    use(store, transport, maps(requests))
    assert [sending.prewarm for sending in transport.sendings] == [True] + [False] * 5
    assert len(rows_of(store, "prewarm")) == 1
    use(store, transport, maps([replace(one, prompt=one.prompt + "b") for one in requests]))
    assert sum(sending.prewarm for sending in transport.sendings) == 1  # the service has it still
    use(store, transport, maps(requests))
    assert len(transport.sendings) == 11


def test_in_flight_stays_within_its_bound(store):
    now, most = 0, 0

    class Counting(ScriptedTransport):
        async def send(self, request, sending):
            nonlocal now, most
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.002)
            now -= 1
            return await super().send(request, sending)

    config = replace(QUICK, savings=Savings(parallel=7))
    requests = [summary(f"record {n}") for n in range(60)]
    use(store, Counting(default=echo), maps(requests), config=config)
    assert most == 7


def test_text_that_was_shown_is_not_taken_back(store):
    class Streaming(ScriptedTransport):
        async def send(self, request, sending):
            sending.on_text("half an ans")
            return await super().send(request, sending)

    transport, shown = Streaming(DROPPED, "more"), []

    async def job(gateway):
        return await gateway.ask(summary(), on_text=shown.append)

    with pytest.raises(ModelError, match="may be billed"):
        use(store, transport, job)
    assert shown == ["half an ans"]
    assert len(rows_of(store, "lost")) == 1


def test_a_dead_key_is_not_used_again(store):
    denied = Fault(kind="denied", status=401, message="invalid x-api-key", is_retryable=False)
    transport = ScriptedTransport(denied)

    async def job(gateway):
        with pytest.raises(ModelError, match="invalid x-api-key"):
            await gateway.ask(summary("one"))
        with pytest.raises(ConfigError, match="no usable key"):
            await gateway.ask(summary("two"))

    use(store, transport, job)
    assert len(transport.requests) == 1
    assert flights(store) == 0


def test_an_estimate_brackets_the_truth_and_is_kept(store):
    requests = [summary(f"record {n}") for n in range(20)]

    async def job(gateway):
        estimate = await gateway.estimate([*requests, requests[0]])
        await gateway.map(requests)
        again = await gateway.estimate(requests)
        return estimate, again

    estimate, again = use(store, ScriptedTransport(default=echo), job)
    truth = sum(row.usd for row in rows_of(store, "sent"))
    assert (estimate.calls, estimate.hits) == (20, 1)
    assert estimate.usd.low <= truth <= estimate.usd.worst
    assert (again.calls, again.hits, again.usd.worst) == (0, 20, 0)
    assert [row["work"] for row in store.calls.estimates("by-hand")] == ["work-1"] * 2


BATCHED = replace(QUICK, savings=Savings(batches=True))


def test_a_batch_is_half_the_price(store):
    requests = [summary(f"record {n}") for n in range(3)]
    batched = use(store, ScriptedTransport(default="word " * 20), maps(requests), config=BATCHED)
    single = use(
        store,
        ScriptedTransport(default="word " * 20),
        maps([replace(one, variant=1) for one in requests]),
    )
    assert [answer.outcome for answer in batched] == ["batch"] * 3
    assert [answer.usd * 2 for answer in batched] == [answer.usd for answer in single]
    assert flights(store) == 0


class Slow(ScriptedTransport):
    """A service whose batches end when it is told so."""

    is_done = False
    submitted = 0
    is_dropping = False

    async def submit(self, requests, sending):
        self.submitted += 1
        name = await super().submit(requests, sending)
        return replace(DROPPED, is_retryable=True) if self.is_dropping else name

    async def has_ended(self, batch, *, key):
        if not self.is_done:
            raise asyncio.CancelledError  # as good as a kill: nothing after this happens
        return await super().has_ended(batch, key=key)


@pytest.mark.parametrize("is_dropping", [False, True])
def test_a_batch_in_flight_is_taken_up_again(store, is_dropping):
    transport = Slow(default=echo)
    transport.is_dropping = is_dropping
    requests = [summary(f"record {n}") for n in range(3)]
    with pytest.raises(asyncio.CancelledError):
        use(store, transport, maps(requests), config=BATCHED)
    assert flights(store) == 1  # its worst case stays reserved while the service works
    transport.is_done = True
    answers = use(store, transport, maps(requests), config=BATCHED)
    assert transport.submitted == 1
    assert len(answers) == 3
    assert flights(store) == 0
    assert len(rows_of(store, "batch")) == 3


def test_a_batch_over_budget_is_not_sent(store):
    config = replace(BATCHED, budgets=Budgets(run=Decimal("0.0001")))
    transport = Slow(default=echo)
    with pytest.raises(BudgetError):
        use(store, transport, maps([summary()]), config=config)
    assert transport.submitted == 0
    assert flights(store) == 0
