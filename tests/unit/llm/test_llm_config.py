"""The llm section: everything said is taken, everything wrong is refused where it stands."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import fields
from decimal import Decimal
from typing import get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from workbench.core.errors import ConfigError
from workbench.core.identity import canonical_json
from workbench.core.settings import read_settings
from workbench.llm.config import GatewayConfig, Rates, Savings, parse, read_config
from workbench.llm.messages import Tier
from workbench.store.budgets import Budgets
from workbench.store.records import PHASES

WHERE = "e.yaml: llm"
dollars = st.none() | st.decimals(0, 10**9, allow_nan=False, places=6)
whole = st.integers(1, 1_000)
real = st.floats(0.1, 1e4)
words = st.text(st.characters(categories=["L", "N"]), min_size=1)
configs = st.builds(
    GatewayConfig,
    provider=st.sampled_from(["anthropic", "bedrock", "vertex", "openai", "scripted"]),
    base_url=st.sampled_from(
        ["", "http://127.0.0.1:8000", "https://h.example/v1", "http://[::1]:1"]
    ),
    models=st.dictionaries(st.sampled_from(["cheap", "standard", "strong"]), words),
    tasks=st.dictionaries(words, st.sampled_from(get_args(Tier))),
    ttl_s=st.dictionaries(words, st.none() | real),
    off_peak=st.sampled_from(["", "22:00-06:00 Europe/Berlin"]),
    savings=st.builds(
        Savings,
        prompt_cache=st.sampled_from(["off", "5m", "1h"]),
        prewarm=st.booleans(),
        response_cache=st.booleans(),
        routing=st.booleans(),
        items_per_call=whole,
        batches=st.booleans(),
        context_tokens=st.integers(0, 10**6),
        concise=st.booleans(),
        parallel=whole,
    ),
    rates=st.builds(
        Rates, requests_per_minute=real, timeout_s=real, max_attempts=st.integers(1, 100)
    ),
    budgets=st.builds(
        Budgets,
        run=dollars,
        phase=st.dictionaries(st.sampled_from(PHASES), dollars.filter(lambda d: d is not None)),
        experiment=dollars,
        day=dollars,
        user=dollars,
    ),
)


@given(configs)
def test_what_is_written_is_read_again_from_json_yaml_and_settings(config):
    values = config.to_json()
    assert parse(values, where=WHERE) == config
    assert parse(json.loads(json.dumps(values)), where=WHERE) == config
    assert parse(yaml.safe_load(yaml.safe_dump(values)), where=WHERE) == config
    settings = read_settings({"WORKBENCH_LLM": canonical_json(values)})
    assert read_config(settings) == config


def test_nothing_said_is_the_default():
    assert parse({}, where=WHERE) == GatewayConfig() == read_config(read_settings({}))


def test_every_field_can_be_said(tmp_path):
    (tmp_path / "prices.json").write_text('{"version": "1", "models": {}}')
    text = """
    provider: openai
    base_url: http://127.0.0.1:8000/v1
    models: {cheap: small, strong: large}
    tasks: {mutation: none, summary: strong}
    ttl_s: {summary: 60, techniques: null}
    price_file: prices.json
    off_peak: 22:00-06:00 Europe/Berlin
    savings: {prompt_cache: off, prewarm: false, items_per_call: 1, context_tokens: 4000}
    rates: {tokens_per_minute: 1.0e+5, timeout_s: 30, breaker_rest_s: 0}
    budgets: {run: 0.1, phase: {generation: 2, triage: "0.30"}, day: 5}
    """
    config = parse(yaml.safe_load(text), where=WHERE, root=tmp_path)
    assert config.price_file == "prices.json"  # kernels start in that folder
    assert config.models == {"cheap": "small", "strong": "large"}
    assert config.tasks["mutation"] == "none"
    assert config.ttl_s == {"summary": 60, "techniques": None}
    assert config.savings.prompt_cache == "off"  # which YAML reads as False
    assert config.savings.items_per_call == 1
    assert config.budgets.run == Decimal("0.1")  # and not the nearest binary fraction
    assert config.budgets.phase == {"generation": Decimal(2), "triage": Decimal("0.30")}


BAD = {
    "no mapping": ([], r"e\.yaml: llm: \[\]; write a mapping of provider, base_url"),
    "misspelt": ({"modles": {}}, r"llm: unknown field 'modles'; did you mean 'models'"),
    "misspelt inside": (
        {"savings": {"promt_cache": "5m"}},
        r"llm\.savings: unknown field 'promt_cache'; did you mean 'prompt_cache'",
    ),
    "no such provider": ({"provider": "antropic"}, r"provider: 'antropic'; did you mean 'anthro"),
    "no such tier": ({"models": {"big": "x"}}, r"models: 'big'; known: none, cheap"),
    "tier of a task": ({"tasks": {"t": "stron"}}, r"tasks\.t: 'stron'; did you mean 'strong'"),
    "a model for none": ({"models": {"none": "x"}}, r"models: 'none' is the tier without a model"),
    "model as number": ({"models": {"cheap": 3}}, r"models\.cheap: 3; write one line of text"),
    "model of two lines": ({"models": {"cheap": "a\nb"}}, r"models\.cheap: 'a\\nb'; write one"),
    "models as list": ({"models": ["x"]}, r"models: \['x'\]; write a mapping"),
    "phase": ({"budgets": {"phase": {"traning": 1}}}, r"phase: 'traning'; did you mean 'training'"),
    "negative budget": ({"budgets": {"run": -1}}, r"budgets\.run: -1; write dollars >= 0"),
    "budget in words": ({"budgets": {"day": "lots"}}, r"budgets\.day: 'lots'; write dollars"),
    "budget of nan": ({"budgets": {"day": float("nan")}}, r"budgets\.day: nan; write dollars"),
    "budget of yes": ({"budgets": {"day": True}}, r"budgets\.day: True; write dollars"),
    "switch": ({"savings": {"routing": "yes"}}, r"savings\.routing: 'yes'; write true or false"),
    "cache of yes": (
        {"savings": {"prompt_cache": True}},
        r"prompt_cache: True; known: off, 5m, 1h",
    ),
    "no items": (
        {"savings": {"items_per_call": 0}},
        r"items_per_call: 0; write a number from 1 to",
    ),
    "many parallel": ({"savings": {"parallel": 10**6}}, r"parallel: 1000000; .* from 1 to 4096"),
    "half an attempt": ({"rates": {"max_attempts": 1.5}}, r"max_attempts: 1.5; write a whole"),
    "endless timeout": ({"rates": {"timeout_s": float("inf")}}, r"timeout_s: inf; write a number"),
    "a number beyond floats": ({"rates": {"timeout_s": 10**400}}, r"timeout_s: 1000.*; write a n"),
    "negative ttl": ({"ttl_s": {"a": -1}}, r"ttl_s\.a: -1; write a number from 0"),
    "bool for a number": ({"rates": {"timeout_s": True}}, r"timeout_s: True; write a number"),
    "no window": ({"off_peak": "nonsense"}, r"llm: off_peak is 'nonsense'; write two different"),
    "no price file": (
        {"price_file": "absent.json"},
        r"llm: price file absent\.json: FileNotFoundError.*; write version and models",
    ),
    "no address": ({"base_url": "localhost:80"}, r"base_url: write http\(s\)://host"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_refused_in_one_line_that_names_the_place(case):
    section, message = BAD[case]
    with pytest.raises(ConfigError, match=message) as caught:
        parse(section, where=WHERE)
    assert str(caught.value).startswith(WHERE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["https://key@host", "https://u:key@host/v1", "https://host/v1?api=key", "ftp://key", "key",
     "https://host#key", "https://ho st/key", "http://key:99999", "http://key:0", "http://[::key",
     "http://[:::1]/key", "http://127.0.0.1@key.example"],
)  # fmt: skip
def test_an_address_that_may_hold_a_key_is_refused_and_not_shown(url):
    with pytest.raises(ConfigError) as caught:
        parse({"base_url": url}, where=WHERE)
    assert "without user or key" in str(caught.value)
    assert not str(caught.value).replace("without user or key", "").count("key")


@given(st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.sampled_from([f.name for f in (*fields(GatewayConfig), *fields(Savings))]) | st.text(),
        inner,
    ),
    max_leaves=8,
))  # fmt: skip
def test_whatever_is_written_gives_a_config_or_a_clear_refusal(section):
    with suppress(ConfigError):
        config = parse(section, where=WHERE)
        assert parse(config.to_json(), where=WHERE) == config


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "nonsense"])
def test_settings_that_are_no_json_are_named(text):
    with pytest.raises(ConfigError, match="WORKBENCH_LLM is not JSON"):
        read_config(read_settings({"WORKBENCH_LLM": text}))


def test_a_wrong_field_in_the_settings_names_the_variable():
    with pytest.raises(ConfigError, match="WORKBENCH_LLM: unknown field 'x'"):
        read_config(read_settings({"WORKBENCH_LLM": '{"x": 1}'}))
