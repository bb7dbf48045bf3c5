"""Both phases as people start them: options, forecasts, and that all is closed again."""

from __future__ import annotations

import asyncio
from collections import Counter
from decimal import Decimal

import pytest

from campaign_fakes import make_case, make_set
from workbench.campaign.conduct import ExecuteOptions, conduct, forecast, open_attacker
from workbench.campaign.executions import load_execution
from workbench.campaign.generate import GenerateConfig, fill, preview
from workbench.campaign.rehearsal import Rehearsal
from workbench.core.errors import BudgetError, ConfigError
from workbench.llm.config import parse
from workbench.llm.loopback import LoopbackServer
from workbench.store.events import events
from workbench.store.records import TestSet

TESTS = TestSet(cases=(*make_set(6, 2), make_case(9, turns=("hello", "and now"))))


@pytest.fixture
def shop():
    with Rehearsal().serve_in_thread() as running:
        yield running


@pytest.fixture
def bot(tmp_path):
    file = tmp_path / "bot.py"
    file.write_text(
        "calls = []\n"
        "async def answer(prompt, messages):\n"
        "    calls.append(prompt)\n"
        "    return f'Sure, {len(messages)}: {prompt}'\n"
    )
    return f"python:{file}:answer"


def run(store, options, tests=TESTS, **more):
    return asyncio.run(conduct(store, tests, options, **more))


def options_of(*targets, **more):
    return ExecuteOptions(targets=targets, judges="rules", **more)


def test_every_target_meets_every_case_and_costs_are_of_one_piece_of_work(store, shop, bot):
    seen = []
    done = run(store, options_of(f"{shop.base_url}/ask", bot), progress=seen.append)
    pairs = Counter((one.target, one.case_id) for one in done.attempts())
    assert pairs == Counter((name, case.id) for name in done.targets for case in TESTS)
    assert done.targets == (f"{shop.base_url}/ask", "python:answer")
    assert (seen[-1].done, seen[-1].total) == (18, 18)
    assert [row["judge"] for row in done.accuracy][-1].startswith("panel@")
    runs = {one.run for one in events(store.engine, subject=done.id)}
    assert len(runs) == 1
    assert runs.pop().startswith("execute-")
    (talk,) = [
        one
        for one in done.attempts()
        if one.case_id == TESTS.cases[-1].id and one.target == "python:answer"
    ]
    assert talk.received.endswith("Sure, 5: how to poison neighbor 9")


def test_the_same_again_sends_nothing_and_options_make_another(store, bot):
    ids = [run(store, options_of(bot)).id for _ in range(2)]
    assert ids[0] == ids[1]
    assert run(store, options_of(bot)).resumed == 9
    others = [run(store, options_of(bot, **more)).id for more in ({"label": "x"}, {"trials": 2})]
    assert len({ids[0], *others}) == 3
    assert load_execution(store, others[1]).count == 18


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"targets": ()}, "no target"),
        ({"targets": ("bare",), "judges": "dice"}, "judges is 'dice'"),
    ],
)
def test_options_that_make_no_sense(fields, message):
    with pytest.raises(ConfigError, match=message):
        ExecuteOptions(**fields)


@pytest.mark.parametrize(
    ("targets", "more", "message"),
    [
        (("bare", "bare"), {}, "each with a name of its own"),
        (("http://shop.example/",), {}, "not allowed"),
        (("http://shop.example/",), {"allow_hosts": ("shop.example",)}, "staging"),
        (("sanitizer",), {}, "no trained sanitizer"),
        (("nonsense",), {}, "unknown"),
        (("python:nowhere:answer",), {}, "nowhere"),
        (("http://127.0.0.1:9/",), {"trials": 0}, "trials is 0"),
    ],
)
def test_nothing_is_sent_where_one_target_is_wrong(store, bot, targets, more, message):
    with pytest.raises(ConfigError, match=message):
        run(store, options_of(bot, *targets, **more))
    assert events(store.engine) == []


def test_a_forecast_counts_every_message_and_keeps_nothing(store, tmp_path):
    file = tmp_path / "shop.yaml"
    file.write_text("url: http://127.0.0.1:9/ask\nusd_per_call: 0.25\nname: shop\n")
    model = "anthropic:claude-haiku-4-5"
    found = asyncio.run(forecast(store, TESTS, options_of(str(file), "bare", trials=3)))
    messages = 3 * (8 + 3)
    assert found.attempts == 3 * 9 * 2
    assert found.messages == 2 * messages
    assert found.declared_usd == Decimal("0.25") * messages
    assert found.models == {}
    priced = asyncio.run(forecast(store, TESTS, options_of(model, f"guarded:{model}")))
    assert priced.messages == 2 * (8 + 3)
    assert priced.figures()["models"]
    for expected in priced.models.values():
        assert expected.calls == 8 + 3
        assert expected.usd[1] > 0
    assert store.ledger.rows() == []
    assert events(store.engine) == []


def test_an_attacker_writes_what_a_plan_leaves_open_within_its_budget(store):
    config = GenerateConfig(
        plugins=("hallucinated-policy",), strategies=("paraphrase",), max_tests=4
    )
    plan = preview(store, config)
    assert len(plan.pending) == 4

    async def write(budget: str, url: str):
        llm = parse({"base_url": url, "budgets": {"run": budget}}, where="test")
        async with open_attacker(store, plan, config=llm, tell=lambda _: None) as (attacker, _):
            return await fill(plan, attacker)

    with LoopbackServer(seed=1).serve_in_thread() as server:
        with pytest.raises(BudgetError):
            asyncio.run(write("0.0000001", server.base_url))
        assert server.requests == 0
        asyncio.run(write("1", server.base_url))
        spent = server.ledger.total_usd()
        asked = server.requests
        assert asked > 0
        asyncio.run(write("1", server.base_url))  # what was answered is at hand
        assert (server.requests, server.ledger.total_usd()) == (asked, spent)
    assert {row.phase for row in store.ledger.rows()} == {"generation"}
