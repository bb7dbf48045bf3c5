"""The loopback server's accounts: prices against another library, the prompt cache's rules."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from workbench.llm import router
from workbench.llm.loopback.ledger import (
    MODELS,
    Block,
    Ledger,
    PrefixCache,
    Row,
    plain_name,
    price,
)
from workbench.llm.messages import Usage

_ROUTES = json.loads(Path(router.__file__).with_name("models.json").read_text("utf-8"))
_tokens = st.integers(0, 150_000)
_usages = st.builds(
    Usage, input_tokens=_tokens, cache_read_tokens=_tokens, cache_write_5m_tokens=_tokens,
    cache_write_1h_tokens=_tokens, output_tokens=_tokens,
)  # fmt: skip


def _oracle(usage: Usage, name: str, provider: str) -> Decimal:
    import genai_prices

    return genai_prices.calc_price(
        genai_prices.Usage(
            input_tokens=usage.prompt_tokens,
            cache_read_tokens=usage.cache_read_tokens,
            cache_write_tokens=usage.cache_write_5m_tokens + usage.cache_write_1h_tokens,
            cache_write_1h_tokens=usage.cache_write_1h_tokens,
            output_tokens=usage.output_tokens,
        ),
        name,
        provider_id=provider,
    ).total_price


@pytest.mark.parametrize("name", sorted(MODELS))
@given(usage=_usages)
@example(usage=Usage(input_tokens=100_000, output_tokens=1))
@example(usage=Usage(input_tokens=100_000, cache_read_tokens=1, output_tokens=1))
def test_the_prices_entered_by_hand_are_those_of_genai_prices(name, usage):
    if name.startswith("gpt"):
        usage = Usage(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens)
    provider = "openai" if name.startswith("gpt") else "anthropic"
    assert price(usage, model=name) == _oracle(usage, name, provider)
    assert price(usage, model=name, is_batch=True) * 2 == price(usage, model=name)


@pytest.mark.parametrize("provider", sorted(_ROUTES["providers"]))
def test_every_model_that_is_routed_to_is_served_and_its_window_is_known_alike(provider):
    for name in map(plain_name, _ROUTES["providers"][provider].values()):
        assert name in MODELS
    for name in MODELS.keys() & _ROUTES["window_tokens"].keys():
        assert MODELS[name]["window"] == _ROUTES["window_tokens"][name]


@given(usage=_usages)
@pytest.mark.parametrize("prefix", ["us.", "global."])
def test_regional_endpoints_of_bedrock_cost_a_tenth_more(prefix, usage):
    name = f"{prefix}anthropic.claude-haiku-4-5-20251001-v1:0"
    assert price(usage, model=name) == _oracle(usage, name, "aws")


@pytest.mark.parametrize(
    "name",
    [
        "claude-haiku-4-5", "claude-haiku-4-5-20251001", "claude-haiku-4-5@20251001",
        "anthropic.claude-haiku-4-5-20251001-v1:0", "us.anthropic.claude-haiku-4-5-20251001-v1:0",
    ],
)  # fmt: skip
def test_a_model_is_known_by_the_names_of_every_service(name):
    assert plain_name(name) == "claude-haiku-4-5"


class _Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def _prefix(tokens: int, ttl: str = "5m") -> list[Block]:
    return [Block("system", tokens, ttl), Block("question", 10, "")]


def _ask(cache: PrefixCache, blocks: list[Block], *, scope: str = "org/model") -> Usage:
    usage, writes = cache.look_up(blocks, scope=scope, minimum=1024)
    cache.keep(writes)
    return usage


@given(
    prompts=st.lists(
        st.lists(
            st.builds(
                Block, st.sampled_from("abc"), st.integers(0, 3000),
                st.sampled_from(["", "", "5m", "1h"]),
            ),
            min_size=1,
            max_size=30,
        ),
        max_size=6,
    )
)  # fmt: skip
def test_every_token_of_a_prompt_is_billed_exactly_once(prompts):
    cache = PrefixCache(clock=_Clock())
    for blocks in prompts:
        usage = _ask(cache, blocks)
        assert usage.prompt_tokens == sum(block.tokens for block in blocks)
        assert min(vars(usage).values()) >= 0
        assert any(block.ttl for block in blocks) or usage.input_tokens == usage.prompt_tokens


def test_a_prefix_is_written_once_and_then_read():
    cache = PrefixCache(clock=_Clock())
    first, second = (_ask(cache, _prefix(2000)) for _ in range(2))
    assert (first.cache_write_5m_tokens, first.cache_read_tokens, first.input_tokens) == (
        2000,
        0,
        10,
    )
    assert (second.cache_write_5m_tokens, second.cache_read_tokens) == (0, 2000)
    assert _ask(cache, _prefix(2000), scope="other org/model").cache_read_tokens == 0


def test_nothing_is_readable_before_the_writing_answer_has_begun():
    cache = PrefixCache(clock=_Clock())
    pending = [cache.look_up(_prefix(2000), scope="s", minimum=1024) for _ in range(3)]
    assert [usage.cache_write_5m_tokens for usage, _ in pending] == [2000] * 3
    cache.keep(pending[0][1])
    assert cache.look_up(_prefix(2000), scope="s", minimum=1024)[0].cache_read_tokens == 2000


def test_short_prefixes_are_not_kept():
    cache = PrefixCache(clock=_Clock())
    for _ in range(2):
        assert _ask(cache, _prefix(1023)) == Usage(input_tokens=1033)


@pytest.mark.parametrize(("ttl", "lives_s"), [("5m", 300), ("1h", 3600)])
def test_a_prefix_expires_unless_it_is_read(ttl, lives_s):
    clock = _Clock()
    cache = PrefixCache(clock=clock)
    written = _ask(cache, _prefix(2000, ttl))
    assert {"5m": written.cache_write_5m_tokens, "1h": written.cache_write_1h_tokens}[ttl] == 2000
    for _ in range(3):  # each read is a new lease
        clock.now += lives_s - 1
        assert _ask(cache, _prefix(2000, ttl)).cache_read_tokens == 2000
    clock.now += lives_s + 1
    assert _ask(cache, _prefix(2000, ttl)).cache_read_tokens == 0


def test_a_longer_prompt_reads_the_shorter_one_and_writes_the_rest():
    cache = PrefixCache(clock=_Clock())
    _ask(cache, [Block("a", 2000, "1h"), Block("b", 5, "")])
    longer = _ask(cache, [Block("a", 2000, "1h"), Block("b", 500, "5m"), Block("c", 7, "")])
    assert longer == Usage(cache_read_tokens=2000, cache_write_5m_tokens=500, input_tokens=7)


def _row(usd: str, *, is_answered: bool) -> Row:
    return Row(usage=Usage(output_tokens=1), usd=Decimal(usd), is_answered=is_answered)


def test_a_ledger_adds_up_and_its_file_has_every_row_at_once(tmp_path):
    ledger = Ledger(file=tmp_path / "ledger.jsonl")
    for number in range(400):
        ledger.add(_row("0.01", is_answered=number % 4 > 0))
    sums = (ledger.total_usd(), ledger.answered_usd(), ledger.lost_usd())
    assert sums == (Decimal("4.00"), Decimal("3.00"), Decimal("1.00"))
    lines = (tmp_path / "ledger.jsonl").read_text().splitlines()  # before it is closed
    ledger.close()
    assert sum(Decimal(json.loads(line)["usd"]) for line in lines) == Decimal("4.00")
    assert json.loads(lines[0])["usage"]["output_tokens"] == 1
