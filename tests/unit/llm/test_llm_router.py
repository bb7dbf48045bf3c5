from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import workbench.llm.router as router_module
from workbench.core.errors import ConfigError, InputError
from workbench.llm.config import GatewayConfig, Savings
from workbench.llm.messages import Request
from workbench.llm.router import Router

TABLE = json.loads(Path(router_module.__file__).with_name("models.json").read_text("utf-8"))
TIERS = ["cheap", "standard", "strong"]
PRICED_AS = {
    "anthropic": "anthropic",
    "bedrock": "aws",
    "vertex": "google",
    "scripted": "anthropic",
}


def ask(task: str = "analysis", **fields: object) -> Request:
    return Request(prompt="What is new?", task=task, **fields)


@given(
    task=st.sampled_from(sorted(TABLE["tasks"])),
    difficulty=st.sampled_from(["simple", "normal", "complex"]),
    provider=st.sampled_from(sorted(PRICED_AS)),
)
def test_difficulty_moves_one_tier_within_those_there_are(
    task: str, difficulty: str, provider: str
) -> None:
    route = Router(GatewayConfig(provider=provider)).route(ask(task, difficulty=difficulty))
    usual = TABLE["tasks"][task]
    if usual == "none":
        assert (route.tier, route.model) == ("none", "")
        return
    step = {"simple": -1, "normal": 0, "complex": 1}[difficulty]
    assert TIERS.index(route.tier) == min(max(TIERS.index(usual) + step, 0), 2)
    assert route.model == TABLE["providers"][provider][route.tier]


@pytest.mark.parametrize(
    ("task", "tier"),
    [
        ("report", "standard"), ("summary", "cheap"), ("narrative", "strong"),
        ("research", "strong"), ("risk_score", "none"), ("mutation", "cheap"),
        ("paraphrase", "cheap"), ("validation", "strong"), ("analysis", "standard"),
    ],
)  # fmt: skip
def test_tasks_go_where_the_guides_say(task: str, tier: str) -> None:
    assert Router(GatewayConfig()).route(ask(task)).tier == tier


def test_a_named_model_wins_over_everything() -> None:
    router = Router(GatewayConfig(savings=Savings(routing=False)))
    route = router.route(ask("no such task", model="claude-haiku-5-5"))
    assert (route.model, route.tier) == ("claude-haiku-5-5", "cheap")
    assert router.route(ask("risk_score", model="another")).tier == "strong"


def test_without_routing_all_is_strong_but_typos_are_still_found() -> None:
    router = Router(GatewayConfig(savings=Savings(routing=False)))
    for task in TABLE["tasks"]:
        assert router.route(ask(task, difficulty="simple")).model == "claude-opus-5-5"
    with pytest.raises(ConfigError, match="did you mean 'summary'"):
        router.route(ask("sumary"))


def test_the_experiment_overrides_models_tasks_and_times() -> None:
    config = GatewayConfig(
        provider="openai",
        models={"cheap": "tiny"},
        tasks={"poem": "cheap", "report": "none"},
        ttl_s={"summary": 5.0, "technique": None},
    )
    router = Router(config)
    assert router.route(ask("poem")).model == "tiny"
    assert router.route(ask("report")).tier == "none"
    assert router.ttl_s("summary") == 5
    assert router.ttl_s("technique") is None
    with pytest.raises(ConfigError, match=r"no strong model .* openai; .*llm: \{models: \{strong:"):
        router.route(ask("judge"))


def test_times_to_live_are_the_guides() -> None:
    router = Router(GatewayConfig())
    assert router.ttl_s("vulnerability") == 24 * 3600
    assert router.ttl_s("technique") == 7 * 24 * 3600
    assert router.ttl_s("summary") == 3600
    assert router.ttl_s("mutation") is None
    assert router.ttl_s("paraphrase") is None
    assert router.ttl_s("anything else") == 3600


def test_an_unknown_task_far_from_all_lists_them() -> None:
    with pytest.raises(ConfigError, match=r"known: .*summary.*\(others go under llm: tasks:"):
        Router(GatewayConfig()).route(ask("zzzzzz"))


def test_a_prompt_that_cannot_fit_is_refused() -> None:
    router = Router(GatewayConfig())
    words = "word " * 210_000
    with pytest.raises(InputError, match=r"210,00\d words exceeds the 200,000 .*claude-haiku-4-5"):
        router.route(Request(prompt=words, model="claude-haiku-4-5"))
    with pytest.raises(InputError):
        router.route(
            Request(prompt="x", system=words, model="global.anthropic.claude-haiku-4-5-v1")
        )
    assert router.route(Request(prompt=words, task="analysis")).model == "claude-sonnet-5-5"
    # may well fit, so it is not for us to refuse: few tokens, however many bytes
    assert router.route(Request(prompt="=" * 1_900_000, task="summary")).tier == "cheap"
    assert router.route(Request(prompt=words, model="of a window nobody told")).tier == "strong"


def test_shipped_models_are_priced_with_the_windows_we_state() -> None:
    genai_prices = pytest.importorskip("genai_prices")
    usage = genai_prices.Usage(input_tokens=1_000, output_tokens=10)
    for provider, priced_as in PRICED_AS.items():
        for model in TABLE["providers"][provider].values():
            price = genai_prices.calc_price(usage, model_ref=model, provider_id=priced_as)
            assert price.total_price > 0
            windows = {n for name, n in TABLE["window_tokens"].items() if name in model}
            assert windows == {price.model.context_window}


def test_cheaper_tiers_cost_less() -> None:
    genai_prices = pytest.importorskip("genai_prices")
    usage = genai_prices.Usage(input_tokens=1_000, output_tokens=1_000)
    for provider, priced_as in PRICED_AS.items():
        models = TABLE["providers"][provider]
        dollars = [
            genai_prices.calc_price(
                usage, model_ref=models[tier], provider_id=priced_as
            ).total_price
            for tier in TIERS
        ]
        assert dollars == sorted(set(dollars))


def test_the_table_is_dated_and_well_formed() -> None:
    time.strptime(TABLE["checked"], "%Y-%m-%d")
    assert TABLE["source"]
    assert set(TABLE["tasks"].values()) <= {"none", *TIERS}
    assert list(TABLE["tasks"]) == sorted(TABLE["tasks"])
