"""Estimates: ordered, bounding what is billed, and lowered by every saving."""

import json
from collections import Counter
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger_rows import hit_row, model_row
from workbench.core.errors import ConfigError
from workbench.llm.config import GatewayConfig, Rates, Savings
from workbench.llm.estimate import Facts, estimate, history_of
from workbench.llm.messages import Request
from workbench.llm.prices import Prices
from workbench.llm.router import Router
from workbench.llm.spending import Purchase

CONFIG = GatewayConfig()
PRICES = Prices()
MODEL = "claude-haiku-5-5"


def ask(number=0, **values):
    usual = {"prompt": f"Say {number} in words.", "model": MODEL, "task": "analysis"}
    return Request(**usual | values)


def of(requests, config=CONFIG, *, is_at_hand=None, **values):
    router, met, purchases = Router(config), Counter(), []
    for request in requests:
        route = router.route(request)
        key = request.key(service="anthropic", model=route.model)
        if not config.savings.response_cache:  # each is bought
            met[key] += 1
            key += f"-{met[key]}"
        purchases.append(Purchase(request=request, route=route, key=key))
    at_hand = {one.key for one in purchases if is_at_hand and is_at_hand(one.request)}
    return estimate(
        purchases, at_hand=at_hand, prices=PRICES, provider="anthropic", config=config, **values
    )


def saving(**values):
    return replace(CONFIG, savings=replace(Savings(), **values))


def test_nothing_asked_costs_nothing():
    nothing = of([])
    assert (nothing.calls, tuple(nothing.usd), nothing.seconds) == (0, (0, 0, 0), 0.0)


@settings(deadline=None)  # the first call loads the price table
@given(
    st.lists(
        st.builds(
            ask, st.integers(0, 5), max_tokens=st.integers(1, 4000), system=st.just("s" * 9000)
        ),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from(["off", "5m", "1h"]),
    st.booleans(),
    st.booleans(),
)
def test_low_expected_and_worst_are_in_order(requests, prompt_cache, batches, response_cache):
    config = saving(prompt_cache=prompt_cache, batches=batches, response_cache=response_cache)
    found = of(requests, config)
    assert found.calls + found.hits == len(requests)
    for figures in (found.prompt_tokens, found.output_tokens, found.usd):
        assert list(figures) == sorted(figures)
    worst = [
        PRICES.worst_case(
            request, model=MODEL, provider="anthropic", prompt_cache=prompt_cache, is_batch=batches
        )
        for request in requests
    ]
    if found.hits == 0:
        assert found.usd.worst == sum(worst)


def test_every_saving_lowers_what_is_expected():
    requests = [ask(n % 40, system="rules " * 2000) for n in range(80)]
    bare = saving(prompt_cache="off", response_cache=False)
    full = of(requests, bare)
    for measure in (
        {"prompt_cache": "5m"},
        {"response_cache": True},
        {"batches": True},
    ):
        cheaper = of(requests, replace(bare, savings=replace(bare.savings, **measure)))
        assert cheaper.usd.expected < full.usd.expected, measure
    assert of(requests, saving(prompt_cache="off")).hits == 40
    assert of(requests, replace(bare, savings=replace(bare.savings, batches=True))).usd == tuple(
        dollars / 2 for dollars in full.usd
    )


def test_a_shared_text_is_written_once_and_read_by_the_others():
    requests = [ask(n, system="rules " * 2000) for n in range(10)]
    by_all = of(requests, saving(prompt_cache="5m", prewarm=False, parallel=10)).usd.expected
    by_one = of(requests, saving(prompt_cache="5m", prewarm=True)).usd.expected
    assert by_one < of(requests, saving(prompt_cache="off")).usd.expected < by_all


def test_short_texts_are_not_cached_by_the_service():
    requests = [ask(n, system="short") for n in range(10)]
    off, on = (of(requests, saving(prompt_cache=cache)) for cache in ("off", "5m"))
    assert off.usd.expected == on.usd.expected


def test_what_is_at_hand_or_ruled_is_not_billed():
    requests = [ask(n) for n in range(10)]
    found = of(requests, is_at_hand=lambda request: request.prompt < "Say 4")
    assert (found.calls, found.hits) == (6, 4)
    ruled = replace(CONFIG, tasks={"analysis": "none"})
    found = of([ask(0, model="")], ruled)
    assert (found.calls, found.rules, found.usd.worst) == (0, 1, 0)


@pytest.mark.parametrize(
    ("rates", "parallel", "seconds"),
    [
        (Rates(), 32, 3.0),
        (Rates(), 1, 30.0),
        (Rates(requests_per_minute=10), 32, 60.0),
        (Rates(tokens_per_minute=1), 32, None),
    ],
)
def test_time_is_the_narrowest_limit(rates, parallel, seconds):
    config = replace(saving(parallel=parallel), rates=rates)
    found = of([ask(n) for n in range(10)], config)
    assert found.seconds == pytest.approx(seconds or 60 * found.prompt_tokens.expected)


def test_an_unknown_price_is_refused():
    with pytest.raises(ConfigError, match="gpt-nobody"):
        of([ask(model="gpt-nobody")])


def calls(**values):
    return [
        model_row(
            resource=MODEL, task="analysis", input=100 * n, cache_read=0, cache_write_5m=0,
            output=10 * n, size_bytes=1000, max_tokens=1000, latency_s=n, **values,
        )
        for n in range(1, 6)
    ]  # fmt: skip


def test_history_replaces_what_is_assumed():
    rows = [*calls(), hit_row(calls=99), model_row(outcome="lost"), model_row()]
    facts = history_of(rows)
    assert facts == {
        (MODEL, "analysis"): Facts(
            tokens_per_byte_low=0.1, tokens_per_byte=pytest.approx(0.3), output_share_low=0.01,
            output_share=pytest.approx(0.03), latency_s=3,
        )
    }  # fmt: skip
    request = ask(prompt="x" * 1000, max_tokens=100)
    found = of([request], history=facts)
    assert (found.prompt_tokens.expected, found.output_tokens.expected) == (300, 3)
    assert found.usd.expected < of([request]).usd.expected


def test_batches_tell_of_tokens_but_not_of_latency():
    rows = [replace(row, details=row.details | {"latency_s": 0.0}) for row in calls()]
    [facts] = history_of(rows).values()
    assert (facts.latency_s, facts.tokens_per_byte) == (Facts().latency_s, pytest.approx(0.3))
    [mixed] = history_of([*rows, *calls()]).values()
    assert mixed.latency_s == 3


def test_too_few_calls_tell_nothing():
    assert history_of(calls()[:4]) == {}


def test_figures_are_json_and_dollars_exact():
    figures = of([ask()]).figures()
    assert json.loads(json.dumps(figures)) == figures | {
        name: list(figures[name]) for name in ("prompt_tokens", "output_tokens")
    }
    assert [Decimal(text) for text in figures["usd"]] == list(of([ask()]).usd)
