"""The gateway on a scripted transport: what is sent, what is billed, what is kept."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal

import pytest
from sqlalchemy import func, select

from workbench.core.errors import BudgetError, ConfigError, InputError, ModelError
from workbench.llm.config import GatewayConfig, Rates, Savings
from workbench.llm.gateway import open_gateway
from workbench.llm.loopback import LoopbackServer
from workbench.llm.messages import Fault, Reply, Request, Usage
from workbench.llm.scripted import ScriptedTransport, echo
from workbench.store import schema
from workbench.store.budgets import Budgets
from workbench.store.calls import Flight
from workbench.store.owners import this_process
from workbench.store.records import now

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


def test_an_answer_that_keeps_getting_lost_is_given_up(store):
    transport = ScriptedTransport(default=DROPPED)
    with pytest.raises(ModelError, match="after 3 attempts"):
        use(store, transport, asks(summary()))
    assert len(rows_of(store, "lost")) == 3


def test_a_lost_answer_counts_towards_the_budget(store):
    transport = ScriptedTransport(default=DROPPED)
    worst = Decimal("0.0007")
    config = replace(QUICK, budgets=Budgets(run=worst))
    with pytest.raises(BudgetError):
        use(store, transport, asks(summary()), config=config)
    assert sum(row.usd for row in store.ledger.rows()) <= worst


def test_a_service_that_stays_broken_is_given_up(store):
    transport = ScriptedTransport(default=BUSY)
    with pytest.raises(ModelError, match=r"overloaded.*after 4 attempts"):
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


def test_another_server_is_another_service(store):
    use(store, ScriptedTransport("a"), asks(summary()), work="")
    other = replace(QUICK, base_url="http://127.0.0.1:9")
    (answer,) = use(store, ScriptedTransport("b"), asks(summary()), config=other, work="")
    assert answer.text == "b"


def test_play_money_is_booked_apart(store):
    async def ask(config):
        async with open_gateway(store, phase="generation", config=config) as gateway:
            return await gateway.ask(summary())

    day = Budgets(day=Decimal("0.01"))
    with LoopbackServer().serve_in_thread() as server:
        played = asyncio.run(ask(replace(QUICK, base_url=server.base_url, budgets=day)))
    (row,) = store.ledger.rows()
    assert (row.who, row.experiment, row.usd) == ("rehearsal:tester", "rehearsal", played.usd)
    (verdict,) = store.calls.commit(
        budgets=Budgets(day=played.usd), claims=[real_flight(played.usd)]
    )
    assert verdict.state == "granted"


def real_flight(worst):
    return Flight(
        id="f", key="k", work="", provider="anthropic", model="m", who="tester", job="",
        phase="generation", experiment="by-hand", worst_usd=worst, owner=this_process(), at=now(),
    )  # fmt: skip


@pytest.mark.parametrize("requests", [
    [summary("one"), summary("two", task="risk_score")],
    [summary("one"), summary("two", task="no such task")],
    [summary("one"), summary("two", model="a model without a price")],
])  # fmt: skip
def test_a_list_with_a_request_that_cannot_be_asked_costs_nothing(store, requests):
    transport = ScriptedTransport(default=echo)
    with pytest.raises(InputError):
        use(store, transport, maps(requests))
    assert transport.requests == []


def test_text_at_hand_is_shown_too(store):
    shown = []

    async def job(gateway):
        await gateway.ask(summary())
        await gateway.ask(summary(), on_text=shown.append)

    use(store, ScriptedTransport("short"), job)
    assert shown == ["short"]


def test_a_key_that_may_not_use_one_model_serves_the_others(store):
    forbidden = Fault(kind="denied", status=403, message="not yours", is_retryable=False)

    async def job(gateway):
        with pytest.raises(ModelError, match="not yours"):
            await gateway.ask(summary())
        return await gateway.ask(summary(model="claude-opus-5-5"))

    assert use(store, ScriptedTransport(forbidden, "yes"), job).text == "yes"


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


def test_without_the_response_cache_an_estimate_tells_equal_requests_apart(store):
    config = replace(QUICK, savings=Savings(response_cache=False))

    async def bought_of_three(gateway):
        estimate = await gateway.estimate([summary()] * 3)
        outcomes = [answer.outcome for answer in await gateway.map([summary()] * 3)]
        assert estimate.calls == outcomes.count("sent")
        return estimate.calls

    use(store, ScriptedTransport(default=echo), maps([summary()]), config=config)
    calls = [
        use(store, ScriptedTransport(default=echo), bought_of_three, config=config)
        for _ in range(2)
    ]
    assert calls == [2, 0]
