"""What transports send, and what they make of faults; nothing is connected."""

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime

import anthropic
import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.core.errors import ConfigError, InputError, ModelError
from workbench.core.settings import Secret, is_loopback
from workbench.llm import anthropic as claude
from workbench.llm import openai_compatible as compatible
from workbench.llm.config import GatewayConfig
from workbench.llm.faults import Exchange, one_line, retry_after_s
from workbench.llm.messages import Fault, Reply, Request, Turn, Usage
from workbench.llm.scripted import ScriptedTransport
from workbench.llm.transport import BatchTransport, Sending, open_transport

KEY = Secret("sk-ant-0123456789abcdefghij")
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}}


def sending(**values):
    return Sending(**{"model": "claude-haiku-4-5", "key": KEY, **values})


def exchange_of(sdk=anthropic, **values):
    return Exchange(sdk=sdk, key=KEY, **values)


def status_error(status, body=None, headers=None, sdk=anthropic):
    request = httpx2.Request("POST", "http://127.0.0.1/v1/messages", content=b"12345")
    response = httpx2.Response(status, request=request, headers=headers, json=body or {})
    return sdk.APIStatusError("no", response=response, body=body)


@pytest.mark.parametrize("ttl", ["5m", "1h"])
def test_the_system_text_is_marked_for_the_cache_and_only_it(ttl):
    request = Request(
        prompt="q", system="rules", history=(Turn("user", "a"), Turn("assistant", "b"))
    )
    body = claude.payload(request, sending(prompt_cache=ttl))
    assert body["system"] == [
        {"type": "text", "text": "rules", "cache_control": {"type": "ephemeral", "ttl": ttl}}
    ]
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
    assert json.dumps(body).count("cache_control") == 1
    assert "cache_control" not in json.dumps(claude.payload(request, sending()))
    assert "system" not in claude.payload(Request(prompt="q"), sending(prompt_cache=ttl))


def test_to_prewarm_asks_for_no_tokens():
    assert (
        claude.payload(Request(prompt="q", max_tokens=9), sending(prewarm=True))["max_tokens"] == 0
    )
    assert claude.payload(Request(prompt="q", max_tokens=9), sending())["max_tokens"] == 9


def test_a_schema_is_sent_as_the_sdk_sends_one():
    body = claude.payload(Request(prompt="q", schema=SCHEMA), sending())
    sent = body["output_config"]["format"]
    assert sent == {"type": "json_schema", "schema": anthropic.transform_schema(SCHEMA)}
    with pytest.raises(InputError, match="schema"):
        claude.payload(Request(prompt="q", schema={"properties": {}}), sending())
    format_ = compatible.payload(Request(prompt="q", schema=SCHEMA), sending())["response_format"]
    assert format_["json_schema"]["schema"] == SCHEMA


@given(st.text(min_size=1).filter(str.strip), st.text())
def test_no_sampling_parameters_and_no_keys_are_in_a_body(prompt, system):
    request = Request(prompt=prompt.encode(errors="ignore").decode() or "x", system="s" + system)
    for payload in (claude.payload, compatible.payload):
        body = payload(request, sending())
        assert not {"temperature", "top_p", "top_k"} & set(body)
        assert body["messages"][-1]["content"] == request.prompt
        assert KEY.reveal() not in json.dumps(body)


@pytest.mark.parametrize("sdk", [anthropic, openai])
@pytest.mark.parametrize(
    ("status", "kind", "is_retryable", "may_be_billed"),
    [
        (302, "invalid", False, False),
        (400, "invalid", False, False),
        (401, "denied", False, False),
        (402, "denied", False, False),
        (403, "denied", False, False),
        (404, "invalid", False, False),
        (408, "timeout", True, True),
        (409, "unavailable", True, False),
        (413, "invalid", False, False),
        (422, "invalid", False, False),
        (429, "rate_limit", True, False),
        (500, "unavailable", True, False),
        (503, "unavailable", True, False),
        (504, "timeout", True, True),
        (529, "overloaded", True, False),
    ],
)
def test_each_status_has_its_meaning(sdk, status, kind, is_retryable, may_be_billed):
    error = status_error(status, {"error": {"type": "t", "message": "m"}}, sdk=sdk)
    fault = exchange_of(sdk).fault_of(error)
    assert (fault.kind, fault.status) == (kind, status)
    assert (fault.is_retryable, fault.may_be_billed) == (is_retryable, may_be_billed)
    assert "t m" in fault.message


def test_headers_of_limits_and_retry_after_come_along_and_no_others():
    headers = {
        "Anthropic-RateLimit-Requests-Remaining": "7",
        "x-ratelimit-remaining-tokens": "8",
        "retry-after": "2.5",
        "set-cookie": "secret",
    }
    fault = exchange_of().fault_of(status_error(429, headers=headers))
    assert fault.retry_after_s == 2.5
    assert fault.headers == {
        "anthropic-ratelimit-requests-remaining": "7",
        "x-ratelimit-remaining-tokens": "8",
    }


def test_an_error_inside_a_stream_may_be_billed_and_means_what_its_type_says():
    body = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
    fault = exchange_of().fault_of(status_error(200, body))
    assert (fault.kind, fault.status, fault.may_be_billed) == ("overloaded", 529, True)
    fault = exchange_of().fault_of(status_error(200, {"error": {"type": "unheard"}}))
    assert (fault.kind, fault.is_retryable, fault.may_be_billed) == ("unavailable", True, True)


def test_what_was_handled_before_does_not_make_a_lost_answer_free():
    import aiohttp

    error = TimeoutError()
    error.__context__ = aiohttp.ConnectionTimeoutError()
    assert exchange_of().fault_of(error).may_be_billed
    error.__cause__ = aiohttp.ConnectionTimeoutError()
    assert not exchange_of().fault_of(error).may_be_billed


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3),
        ({"retry-after": "-3"}, 0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": format_datetime(datetime.fromtimestamp(1060, UTC), usegmt=True)}, 60),
        ({"retry-after": "Thu, 01 Jan 1970 00:17:40 -0000"}, 60),
    ],
)
def test_retry_after_in_all_its_forms(headers, seconds):
    assert retry_after_s(headers, now=1000) == seconds


@given(st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms"]), st.text()))
def test_a_hostile_retry_after_gives_a_wait_or_none(headers):
    seconds = retry_after_s(headers, now=1000)
    assert seconds is None or 0 <= seconds < float("inf")


@given(st.text(), st.text())
def test_messages_are_one_short_line_without_the_key(before, after):
    key = Secret("k3y-Of-A-Local-Server")
    line = one_line(before + key.reveal() + after, key=key)
    assert key.reveal() not in line
    assert len(line) <= 300
    assert line.isprintable()


def test_personal_data_and_other_keys_are_redacted_too():
    line = one_line("ask a@b.example about sk-ant-zzzzzzzzzzzzzzzzzzzzzz\nnow", key=KEY)
    assert "@" not in line
    assert "zzzz" not in line
    assert "\n" not in line


def test_an_answer_needs_a_stop_reason_and_usage():
    good = {"text": "t", "stop_reason": "end_turn", "usage": Usage(), "model": "m"}
    response = httpx2.Response(200, request=httpx2.Request("POST", "http://127.0.0.1/"))
    exchange = exchange_of(response=response)
    assert isinstance(exchange.reply(**good), Reply)
    for bad in ({"stop_reason": None}, {"usage": None}, {"usage": Usage(output_tokens=-1)}):
        fault = exchange.reply(**{**good, **bad})
        assert (fault.kind, fault.may_be_billed, fault.is_retryable) == ("malformed", True, True)


def test_usage_tells_what_was_read_and_written_apart():
    usage = anthropic.types.Usage(
        input_tokens=1, output_tokens=2, cache_read_input_tokens=3, cache_creation_input_tokens=9
    )
    assert claude._usage(usage) == Usage(
        input_tokens=1, output_tokens=2, cache_read_tokens=3, cache_write_5m_tokens=9
    )
    usage.cache_creation = anthropic.types.CacheCreation(
        ephemeral_5m_input_tokens=4, ephemeral_1h_input_tokens=5
    )
    assert claude._usage(usage).cache_write_5m_tokens == 4
    assert claude._usage(usage).cache_write_1h_tokens == 5


@given(st.integers(0, 100), st.integers(0, 100), st.integers(0, 100))
def test_tokens_of_a_compatible_prompt_add_up(fresh, read, written):
    usage = openai.types.CompletionUsage(
        prompt_tokens=fresh + read + written,
        completion_tokens=5,
        total_tokens=0,
        prompt_tokens_details={"cached_tokens": read, "cache_write_tokens": written},
    )
    found = compatible._usage(usage)
    assert found.prompt_tokens == usage.prompt_tokens
    assert (found.input_tokens, found.cache_read_tokens) == (fresh, read)


@pytest.mark.parametrize(
    ("provider", "kind"),
    [
        ("anthropic", claude.AnthropicTransport),
        ("bedrock", claude.BedrockTransport),
        ("vertex", claude.VertexTransport),
        ("openai", compatible.OpenAITransport),
    ],
)
def test_offline_only_this_machine_is_in_reach(provider, kind, settings):
    def open_(url, *, offline):
        config = GatewayConfig(provider=provider, base_url=url)
        return open_transport(config, settings=replace(settings, offline=offline))

    assert type(open_("http://127.0.0.1:9/v1", offline=True)) is kind
    assert type(open_("http://[::1]:9", offline=True)) is kind
    assert type(open_("", offline=False)) is kind
    for url in ("", "https://models.example", "http://127.0.0.1.example", "http://10.0.0.1:9"):
        with pytest.raises(ConfigError, match="WORKBENCH_OFFLINE=0"):
            open_(url, offline=True)


def test_the_scripted_provider_works_offline(settings):
    transport = open_transport(GatewayConfig(provider="scripted"), settings=settings)
    reply = asyncio.run(transport.send(Request(prompt="marmot"), sending()))
    assert "marmot" in reply.text


@given(st.text(max_size=80))
def test_what_is_loopback_never_raises(text):
    for url in (text, "http://" + text):
        assert is_loopback(url) in {True, False}
    assert not is_loopback("http://a\u2100b")


@pytest.mark.parametrize("kind", [claude.BedrockTransport, claude.VertexTransport])
def test_a_missing_extra_is_named(kind, monkeypatch):
    monkeypatch.setattr("workbench.llm.sdk.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'prompt-safety-workbench\["):
        kind()


@pytest.mark.parametrize("kind", [claude.AnthropicTransport, compatible.OpenAITransport])
def test_a_service_of_its_own_is_not_asked_without_a_key(kind, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-of-somebody-else")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")
    with pytest.raises(ConfigError, match="no key"):
        asyncio.run(kind().send(Request(prompt="q"), sending(key=Secret(""))))


def test_a_cloud_without_a_region_says_so(monkeypatch, tmp_path):
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "CLOUD_ML_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    for kind in (claude.BedrockTransport, claude.VertexTransport):
        with pytest.raises(ConfigError, match="region"):
            asyncio.run(kind().send(Request(prompt="q"), sending()))


def test_importing_transports_loads_no_sdk():
    code = (
        "import sys, workbench.llm.anthropic, workbench.llm.openai_compatible,"
        " workbench.llm.scripted, workbench.llm.transport, workbench.llm.faults;"
        "print(*{'anthropic', 'openai', 'aiohttp', 'redis', 'httpx2'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_script_is_followed_recorded_and_ends_loudly():
    fault = Fault(kind="overloaded", message="busy", status=529)
    transport = ScriptedTransport("one", fault, lambda request: request.prompt.upper())
    heard = []

    async def run():
        requests = [Request(prompt=f"p{n}") for n in range(3)]
        answers = [await transport.send(one, sending(on_text=heard.append)) for one in requests]
        with pytest.raises(ModelError, match="request number 4"):
            await transport.send(requests[0], sending())
        return answers

    first, second, third = asyncio.run(run())
    assert (first.text, second, third.text) == ("one", fault, "P2")
    assert heard == ["one", "P2"]
    assert [request.prompt for request in transport.requests] == ["p0", "p1", "p2", "p0"]
    assert len(transport.sendings) == 4


@given(st.text(min_size=1, max_size=60), st.integers(1, 8))
def test_a_scripted_answer_keeps_to_its_limit_and_is_counted(text, limit):
    text = text.encode(errors="ignore").decode()
    request = Request(prompt="p", max_tokens=limit)
    reply = asyncio.run(ScriptedTransport(text).send(request, sending()))
    assert text.startswith(reply.text)
    assert len(reply.text.encode()) <= 4 * reply.usage.output_tokens <= 4 * limit
    assert (reply.stop_reason == "end_turn") == (reply.text == text)


def test_scripted_batches_are_kept_until_collected():
    transport = ScriptedTransport("a", Fault(kind="unavailable", message="no"))
    assert isinstance(transport, BatchTransport)

    async def run():
        requests = {"x": Request(prompt="1"), "y": Request(prompt="2")}
        batch = await transport.submit(requests, dict.fromkeys(requests, sending()))
        return (
            await transport.has_ended(batch, key=KEY),
            await transport.collect(batch, key=KEY),
            await transport.recent(key=KEY),
            await transport.collect("other", key=KEY),
        )

    ended, results, recent, unknown = asyncio.run(run())
    assert ended
    assert (results["x"].text, results["y"].kind) == ("a", "unavailable")
    assert [(batch, size) for batch, _, size in recent] == [("batch_1", 2)]
    assert unknown.status == 404


def test_only_anthropic_and_scripts_take_batches():
    url = "http://127.0.0.1:9"
    assert isinstance(claude.AnthropicTransport(base_url=url), BatchTransport)
    for kind in (claude.BedrockTransport, claude.VertexTransport, compatible.OpenAITransport):
        assert not isinstance(kind(base_url=url), BatchTransport)
