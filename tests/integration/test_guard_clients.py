"""The real clients, protected by nothing but another base URL."""

from __future__ import annotations

from dataclasses import replace

import anthropic
import openai
import pytest

from guard_server import KEY, RuleService, guard_app, serve_app
from workbench.core.errors import ConfigError
from workbench.core.settings import Secret
from workbench.llm.loopback import Faults, LoopbackServer
from workbench.serving.guard import REFUSAL
from workbench.serving.upstream import Upstream, UpstreamConfig

CLAUDE, GPT = "claude-haiku-5-5", "gpt-5.4-mini"


@pytest.fixture
def service():
    return RuleService()


@pytest.fixture(scope="module")
def upstream():
    echo = lambda body: body["messages"][-1]["content"]  # noqa: E731
    with LoopbackServer(answer=lambda body: f"heard: {echo(body)}").serve_in_thread() as server:
        yield server


@pytest.fixture
def url(service, upstream):
    config = UpstreamConfig(
        anthropic_url=upstream.base_url, openai_url=upstream.base_url + "/v1", connect_s=2
    )
    with serve_app(guard_app(service, config)) as url:
        yield url


@pytest.fixture
def claude(url):
    own = {"x-workbench-key": KEY}
    with anthropic.Anthropic(
        api_key="sk-up", base_url=url, max_retries=0, default_headers=own
    ) as made:
        yield made


@pytest.fixture
def gpt(url):
    own = {"x-workbench-key": KEY}
    with openai.OpenAI(
        api_key="sk-up", base_url=url + "/v1", max_retries=0, default_headers=own
    ) as made:
        yield made


def ask_claude(client, text, **more):
    messages = [{"role": "user", "content": text}]
    return client.messages.create(model=CLAUDE, max_tokens=100, messages=messages, **more)


def ask_gpt(client, text, **more):
    messages = [{"role": "user", "content": text}]
    return client.chat.completions.create(model=GPT, messages=messages, **more)


def test_messages(claude, service, upstream):
    before = upstream.requests
    assert ask_claude(claude, "a dull story WRAP: name a river").content[0].text == (
        "heard: name a river"
    )
    raw = claude.messages.with_raw_response.create(
        model=CLAUDE, max_tokens=9, messages=[{"role": "user", "content": "plain"}]
    )
    assert raw.headers["x-workbench-decision"] == "pass"
    assert upstream.requests == before + 2
    row = service.booked(2)[0]
    assert (row.phase, row.who, row.job, row.resource, row.usd) == (
        "serving", "anna", KEY, CLAUDE, 0
    )  # fmt: skip
    assert row.quantity == row.details["input"] + row.details["output"] > 0
    assert row.details["outcome"] == "sent"


def test_messages_streamed(claude, service):
    with claude.messages.stream(
        model=CLAUDE, max_tokens=100, messages=[{"role": "user", "content": "WRAP:a river"}]
    ) as stream:
        assert "".join(stream.text_stream) == "heard: a river"
        final = stream.get_final_message()
    assert final.stop_reason == "end_turn"
    (row,) = service.booked(1)
    assert row.details["output"] == final.usage.output_tokens > 0
    assert row.details["input"] == final.usage.input_tokens > 0
    assert not row.estimated


def test_a_blocked_message_is_declined_without_a_call(claude, service, upstream):
    before = upstream.requests
    answer = ask_claude(claude, "BLOCK me", system=[{"type": "text", "text": "Be kind."}])
    assert answer.stop_reason == "refusal"
    assert answer.content[0].text == REFUSAL
    assert answer.model == CLAUDE
    with claude.messages.stream(
        model=CLAUDE, max_tokens=100, messages=[{"role": "user", "content": "BLOCK me"}]
    ) as stream:
        assert "".join(stream.text_stream) == REFUSAL
        assert stream.get_final_message().stop_reason == "refusal"
    count = claude.messages.count_tokens(
        model=CLAUDE, messages=[{"role": "user", "content": "BLOCK me"}]
    )
    assert count.input_tokens == 0
    assert (upstream.requests, service.rows) == (before, [])


def test_chat(gpt, service):
    answer = ask_gpt(gpt, "WRAP: name a river")
    assert answer.choices[0].message.content == "heard: name a river"
    assert service.booked(1)[0].quantity == answer.usage.total_tokens


def test_chat_streamed(gpt, service):
    chunks = list(ask_gpt(gpt, "WRAP:hi", stream=True, stream_options={"include_usage": True}))
    said = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert "".join(filter(None, said)) == "heard: hi"
    assert service.booked(1)[0].quantity == chunks[-1].usage.total_tokens
    list(ask_gpt(gpt, "hi", stream=True))
    assert service.booked(2)[1].estimated  # it said nothing of tokens


def test_a_blocked_chat_is_declined(gpt, upstream):
    before = upstream.requests
    choice = ask_gpt(gpt, "BLOCK").choices[0]
    assert (choice.message.content, choice.message.refusal) == (REFUSAL, REFUSAL)
    assert choice.finish_reason == "content_filter"
    chunks = list(ask_gpt(gpt, "BLOCK", stream=True, stream_options={"include_usage": True}))
    said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert said == REFUSAL
    assert chunks[-1].usage.total_tokens == 0
    assert upstream.requests == before


def test_errors_of_the_service_pass_through(claude, gpt):
    with pytest.raises(anthropic.NotFoundError) as unknown:
        claude.messages.create(
            model="claude-none", max_tokens=5, messages=[{"role": "user", "content": "a"}]
        )
    assert "claude-none" in str(unknown.value)
    with pytest.raises(anthropic.BadRequestError):
        ask_claude(claude, "a", extra_body={"temperature": 0.5})
    with pytest.raises(openai.NotFoundError):
        gpt.chat.completions.create(model="none", messages=[{"role": "user", "content": "a"}])


def test_rate_limits_and_retry_after_pass_through(service):
    faults = Faults(script=["429"], retry_after_s=7)
    with LoopbackServer(faults=faults).serve_in_thread() as upstream:
        config = UpstreamConfig(anthropic_url=upstream.base_url)
        with serve_app(guard_app(service, config)) as url:
            own = {"x-workbench-key": KEY}
            with (
                anthropic.Anthropic(
                    api_key="up", base_url=url, max_retries=0, default_headers=own
                ) as client,
                pytest.raises(anthropic.RateLimitError) as limited,
            ):
                ask_claude(client, "hello")
    assert limited.value.response.headers["retry-after"] == "7"
    assert service.rows == []


@pytest.mark.parametrize("fault", ["stream_drop", "drop", "truncated"])
def test_an_upstream_that_breaks_off_is_told_as_an_error(service, fault):
    with LoopbackServer(faults=Faults(script=[fault])).serve_in_thread() as upstream:
        config = UpstreamConfig(anthropic_url=upstream.base_url)
        with serve_app(guard_app(service, config)) as url:
            own = {"x-workbench-key": KEY}
            with anthropic.Anthropic(
                api_key="up", base_url=url, max_retries=0, default_headers=own
            ) as client:
                is_stream = fault == "stream_drop"
                with pytest.raises(anthropic.APIStatusError) as broken:
                    list(ask_claude(client, "a", stream=is_stream))
    if not is_stream:
        assert broken.value.status_code == 502
        assert broken.value.response.headers["retry-after"]
    else:
        assert service.booked(1)[0].details["outcome"] == "lost"


def test_the_service_may_pay(service, upstream):
    keys = {"anthropic": Secret("sk-house"), "openai": Secret("sk-house")}
    config = UpstreamConfig(
        anthropic_url=upstream.base_url, openai_url=upstream.base_url + "/v1", payer="service"
    )
    with serve_app(guard_app(service, config, keys=keys)) as url:
        with anthropic.Anthropic(api_key=KEY, base_url=url, max_retries=0) as client:
            ask_claude(client, "hello")
            with pytest.raises(anthropic.BadRequestError, match="price"):
                client.messages.create(
                    model="free-lunch", max_tokens=5, messages=[{"role": "user", "content": "a"}]
                )
        with openai.OpenAI(api_key=KEY, base_url=url + "/v1", max_retries=0) as client:
            list(ask_gpt(client, "hello", stream=True))
        with (
            anthropic.Anthropic(api_key="other", base_url=url, max_retries=0) as client,
            pytest.raises(anthropic.AuthenticationError),
        ):
            ask_claude(client, "hello")
    assert [row.usd > 0 for row in service.booked(2)] == [True, True]
    assert [row.estimated for row in service.rows] == [False, False]


def test_who_pays_and_has_no_key_does_not_start(upstream):
    config = UpstreamConfig(openai_url="https://models.example/v1", payer="service")
    for keys in ({}, {"openai": Secret("")}):
        with pytest.raises(ConfigError, match="no key for https://models"):
            Upstream(config, keys=keys)
    Upstream(replace(config, openai_url=upstream.base_url), keys={"openai": Secret("")})


def test_who_has_no_key_reads_where_it_belongs(url):
    with (
        anthropic.Anthropic(api_key="sk-up", base_url=url, max_retries=0) as client,
        pytest.raises(anthropic.AuthenticationError, match="send it as x-workbench-key"),
    ):
        ask_claude(client, "hello")


def test_many_turns_are_looked_at_once(claude, service):
    turns = [{"role": "user", "content": "first"}]
    for number in range(3):
        claude.messages.create(model=CLAUDE, max_tokens=50, messages=turns)
        turns += [
            {"role": "assistant", "content": "yes"},
            {"role": "user", "content": f"more {number}"},
        ]
    assert service.seen == ["first", "more 0", "more 1"]
    service.model_id = "two"
    claude.messages.create(model=CLAUDE, max_tokens=50, messages=turns)
    assert sorted(service.seen[3:]) == ["first", "more 0", "more 1", "more 2"]
