"""Prices: exact, equal to the library's own arithmetic, bounded, and never guessed."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.core.errors import ConfigError
from workbench.llm.messages import Request, Turn, Usage
from workbench.llm.prices import Prices, most_prompt_tokens

MODELS = [
    ("claude-haiku-5-5", "anthropic"),
    ("claude-sonnet-5-5", "anthropic"),
    ("claude-opus-5-5", "anthropic"),
    ("claude-sonnet-4-5", "anthropic"),
    ("us.anthropic.claude-haiku-5-5", "aws"),
    ("claude-haiku-5-5", "google"),
    ("gpt-5", "openai"),
]
PRICES = Prices()
TOKENS = st.integers(0, 300_000) | st.sampled_from([0, 1, 99_999, 100_000, 100_001, 200_001])
USAGES = st.builds(
    Usage, input_tokens=TOKENS, cache_read_tokens=TOKENS, cache_write_5m_tokens=TOKENS,
    cache_write_1h_tokens=TOKENS, output_tokens=TOKENS,
)  # fmt: skip
TEXTS = st.text(st.characters(codec="utf-8"), max_size=300)
OWN = {"input": "0.25", "output": 1.25, "source": "https://prices.test", "checked": "2026-11-21"}


@pytest.fixture
def own(tmp_path):
    def write(models, version="2026-11"):
        file = tmp_path / "own.json"
        file.write_text(json.dumps({"version": version, "models": models}))
        return file

    return write


def by_library(usage, model, provider, *, is_batch, moment=None):
    from genai_prices import Usage as Tokens
    from genai_prices import calc_price

    tokens = Tokens(
        input_tokens=usage.prompt_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_5m_tokens + usage.cache_write_1h_tokens,
        cache_write_5m_tokens=usage.cache_write_5m_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
        output_tokens=usage.output_tokens,
    )
    context = {"processing": "batch"} if is_batch else None
    return calc_price(
        tokens, model, provider_id=provider, price_context=context, genai_request_timestamp=moment
    ).total_price


@settings(deadline=None)  # the first call loads the price table
@given(USAGES, st.sampled_from(MODELS), st.booleans())
def test_a_price_is_the_librarys_to_the_last_digit(usage, model, is_batch):
    name, provider = model
    mine = PRICES.price_of(usage, model=name, provider=provider, is_batch=is_batch)
    assert mine == by_library(usage, name, provider, is_batch=is_batch)


@settings(deadline=None)  # the first call loads the price table
@given(
    request=st.builds(
        Request,
        prompt=TEXTS.filter(str.strip),
        system=TEXTS | st.just("s" * 120_000),
        history=st.lists(st.builds(Turn, st.just("user"), TEXTS.filter(str.strip)), max_size=3).map(
            tuple
        ),
        max_tokens=st.integers(1, 8000),
    ),
    model=st.sampled_from(MODELS),
    cache=st.sampled_from(["off", "5m", "1h"]),
    is_batch=st.booleans(),
    data=st.data(),
)
def test_nothing_that_can_be_billed_exceeds_the_worst_case(request, model, cache, is_batch, data):
    left = most_prompt_tokens(request)
    counts = {}
    kinds = {"off": (), "5m": ("cache_write_5m_tokens",)}
    writes = kinds.get(cache, ("cache_write_5m_tokens", "cache_write_1h_tokens"))
    for kind in data.draw(st.permutations(["input_tokens", "cache_read_tokens", *writes])):
        counts[kind] = data.draw(st.integers(0, left) | st.just(left))
        left -= counts[kind]
    usage = Usage(**counts, output_tokens=data.draw(st.integers(0, request.max_tokens)))
    name, provider = model
    worst = PRICES.worst_case(
        request, model=name, provider=provider, prompt_cache=cache, is_batch=is_batch
    )
    assert worst >= PRICES.price_of(usage, model=name, provider=provider, is_batch=is_batch)


def test_the_worst_case_is_reached_by_a_prompt_that_is_all_written_to_the_cache():
    request = Request(prompt="x" * 1000, max_tokens=100)
    usage = Usage(cache_write_1h_tokens=1000 + 16 + 64, output_tokens=100)
    facts = {"model": "claude-opus-5-5", "provider": "anthropic"}
    worst = PRICES.worst_case(request, prompt_cache="1h", **facts)
    assert worst == PRICES.price_of(usage, **facts)
    assert worst > PRICES.worst_case(request, prompt_cache="5m", **facts)


def test_a_schema_reserves_for_the_services_own_words():
    plain = Request(prompt="x")
    schema = {"type": "object"}
    more = most_prompt_tokens(Request(prompt="x", schema=schema)) - most_prompt_tokens(plain)
    assert more >= 346 + len(json.dumps(schema))


def test_long_prompts_cost_several_times_as_much_per_token():
    facts = {"model": "claude-haiku-5-5", "provider": "anthropic"}
    at, above = (PRICES.price_of(Usage(input_tokens=n), **facts) for n in (100_000, 100_001))
    assert above > 4 * at


def test_batches_cost_half():
    usage = Usage(input_tokens=1000, cache_read_tokens=500, output_tokens=100)
    facts = {"model": "claude-sonnet-5-5", "provider": "anthropic"}
    assert PRICES.price_of(usage, is_batch=True, **facts) * 2 == PRICES.price_of(usage, **facts)


def test_prices_of_the_hour_are_followed():
    clock = [datetime(2026, 11, 21, hour, tzinfo=UTC).timestamp() for hour in range(24)]
    now = clock[0]
    prices = Prices(clock=lambda: now)
    usage, facts = (
        Usage(input_tokens=1_000_000),
        {"model": "deepseek-v4-pro", "provider": "deepseek"},
    )
    seen = set()
    for now in clock:
        moment = datetime.fromtimestamp(now, UTC)
        dollars = prices.price_of(usage, **facts)
        assert dollars == by_library(usage, **facts, is_batch=False, moment=moment)
        seen.add(dollars)
    assert len(seen) > 1


@pytest.mark.parametrize(
    ("model", "provider"),
    [("claude-3-imaginary", "anthropic"), ("gpt-5", "nobody"), ("x" * 5000, "openai")],
)
def test_an_unknown_model_is_refused_with_what_to_write(model, provider):
    request = Request(prompt="x")
    for act in (
        lambda: PRICES.worst_case(request, model=model, provider=provider, prompt_cache="off"),
        lambda: PRICES.price_of(Usage(), model=model, provider=provider),
    ):
        with pytest.raises(ConfigError) as caught:
            act()
        message = str(caught.value)
        assert model[:20] in message
        assert provider in message
        assert "genai-prices/" in message
        assert "llm.price_file" in message
        assert len(message) < 700
        assert "\n" not in message


def test_a_price_file_goes_first_and_is_named(own):
    prices = Prices(own({"local": OWN, "claude-opus-5-5": {**OWN, "batch_factor": "0.5"}}))
    usage = Usage(input_tokens=1_000_000, cache_read_tokens=1_000_000, output_tokens=1_000_000)
    assert prices.price_of(usage, model="local", provider="openai") == Decimal("1.75")
    dear = {"model": "claude-opus-5-5", "provider": "anthropic"}
    assert prices.price_of(usage, **dear, is_batch=True) == Decimal("0.875")
    shipped = {"model": "claude-haiku-5-5", "provider": "anthropic"}
    assert prices.price_of(usage, **shipped) == PRICES.price_of(usage, **shipped)
    assert prices.price_version() == f"own.json/2026-11+{PRICES.price_version()}"


def test_free_has_to_be_written(own):
    prices = Prices(own({"loopback": {**OWN, "input": 0, "output": "0"}}))
    assert prices.price_of(Usage(input_tokens=5), model="loopback", provider="openai") == 0


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({**OWN, "imput": 1}, "did you mean 'input'"),
        ({"output": 1, "source": "s", "checked": "2026-11-21"}, "input missing"),
        ({**OWN, "source": ""}, "source missing"),
        ({**OWN, "input": "-1"}, "below 0"),
        ({**OWN, "output": "NaN"}, "not an amount of dollars"),
        ({**OWN, "output": "cheap"}, r"own\.json, model 'local': .*not an amount of dollars"),
        (7, "input, output"),
    ],
)
def test_a_mistaken_price_is_named(own, entry, message):
    with pytest.raises(ConfigError, match=message):
        Prices(own({"local": entry}))


@pytest.mark.parametrize("text", ["", "[]", '{"models": {}}', '{"version": "1", "models": []}'])
def test_a_file_that_is_no_price_file_is_refused(tmp_path, text):
    file = tmp_path / "own.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"own\.json"):
        Prices(file)
    with pytest.raises(ConfigError, match="absent"):
        Prices(tmp_path / "absent.json")


def test_importing_loads_no_price_table():
    probe = (
        "import sys; from workbench.llm.prices import Prices; Prices();"
        " print('genai_prices' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
