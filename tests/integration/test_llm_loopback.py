"""The loopback server, asked by the services' own clients with strict validation."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from decimal import Decimal
from hashlib import sha256

import anthropic
import httpx2
import openai
import pytest

from workbench.llm.loopback import Faults, LoopbackServer

HAIKU = "claude-haiku-4-5"
SYSTEM = [{"type": "text", "text": "word " * 4000, "cache_control": {"type": "ephemeral"}}]
STRICT = {"max_retries": 0, "_strict_response_validation": True}


def _ask(**changes):
    body = {"model": HAIKU, "max_tokens": 64, "messages": [{"role": "user", "content": "hello"}]}
    return body | changes


@asynccontextmanager
async def _client(server, key="key-one", **options):
    async with anthropic.AsyncAnthropic(
        base_url=server.base_url, api_key=key, **STRICT | options
    ) as client:
        yield client


def _with_client(test, **options):
    """Run ``test(server, client)`` against a fresh server; return what it returns."""

    async def run():
        async with LoopbackServer(**options) as server, _client(server) as client:
            return await test(server, client)

    return asyncio.run(run())


def _row_matches(row, usage):
    created = usage.cache_creation
    return (row.usage.input_tokens, row.usage.cache_read_tokens, row.usage.output_tokens) == (
        usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens,
    ) and (row.usage.cache_write_5m_tokens, row.usage.cache_write_1h_tokens) == (
        created.ephemeral_5m_input_tokens, created.ephemeral_1h_input_tokens,
    )  # fmt: skip


def test_messages_are_answered_counted_and_billed():
    async def test(server, client):
        message = await client.messages.create(**_ask())
        [row] = server.ledger.rows
        assert message.content[0].text
        assert message.stop_reason == "end_turn"
        assert message._request_id
        assert _row_matches(row, message.usage)
        assert (
            row.usd == Decimal(message.usage.input_tokens + 5 * message.usage.output_tokens) / 10**6
        )
        assert row.is_answered
        assert row.prompt_sha256 == sha256(b"hello").hexdigest()
        assert row.key == sha256(b"key-one").hexdigest()[:12]
        assert (server.requests, server.max_in_flight_seen) == (1, 1)

    _with_client(test)


def test_a_stream_says_what_the_whole_answer_says():
    async def test(server, client):
        whole = await client.messages.create(**_ask())
        async with client.messages.stream(**_ask()) as stream:
            events = [event.type async for event in stream]
            streamed = await stream.get_final_message()
        return whole, streamed, events, server.ledger.rows

    whole, streamed, events, rows = _with_client(test, answer=lambda body: "é word " * 9)
    assert streamed.content[0].text == whole.content[0].text
    assert streamed.stop_reason == whole.stop_reason
    assert streamed.usage.output_tokens == whole.usage.output_tokens == rows[1].usage.output_tokens
    assert rows[0].usd == rows[1].usd
    assert events[0] == "message_start"
    assert events[-1] == "message_stop"
    assert events.count("text") > 2


def test_the_prompt_cache_prewarms_writes_and_reads():
    async def test(server, client):
        warm = await client.messages.create(**_ask(system=SYSTEM, max_tokens=0))
        read = await asyncio.gather(
            *(client.messages.create(**_ask(system=SYSTEM)) for _ in range(4))
        )
        assert (warm.usage.output_tokens, warm.content) == (0, [])
        assert warm.usage.cache_creation.ephemeral_5m_input_tokens == 5000
        assert [message.usage.cache_read_input_tokens for message in read] == [5000] * 4
        assert all(map(_row_matches, server.ledger.rows[1:], [message.usage for message in read]))

    _with_client(test)


def test_a_fan_out_without_a_prewarm_writes_many_times():
    async def test(server, client):
        await asyncio.gather(*(client.messages.create(**_ask(system=SYSTEM)) for _ in range(4)))
        return [row.usage.cache_write_5m_tokens for row in server.ledger.rows]

    assert _with_client(test, latency_s=0.03) == [5000] * 4


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"extra_body": {"temperature": 0.5}}, 400, "temperature"),
        ({"messages": []}, 400, "at least one message"),
        ({"extra_body": {"max_tokens": None}}, 400, "max_tokens"),
        ({"model": "claude-unknown"}, 404, "claude-unknown"),
        ({"messages": [{"role": "user", "content": "x" * 900_000}]}, 400, "prompt is too long"),
        ({"messages": [{"role": "user"}]}, 400, "role and a content of texts"),
        ({"extra_headers": {"authorization": "Basic a2V5"}}, 401, "key"),
        ({"extra_headers": {"anthropic-version": ""}}, 400, "anthropic-version"),
    ],
)
def test_what_the_service_refuses_is_refused_and_costs_nothing(changes, status, message):
    async def test(server, client):
        with pytest.raises(anthropic.APIStatusError, match=message) as caught:
            await client.messages.create(**_ask(**changes))
        assert caught.value.status_code == status
        assert [row.status for row in server.ledger.rows] == [status]
        assert server.ledger.total_usd() == 0

    _with_client(test)


def test_api_keys_share_no_prompt_cache():
    async def run():
        async with LoopbackServer() as server:
            for key in ("a", "b"):
                async with _client(server, key) as client:
                    message = await client.messages.create(**_ask(system=SYSTEM))
                    assert message.usage.cache_creation.ephemeral_5m_input_tokens == 5000

    asyncio.run(run())


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 413, 429, 500, 503, 504, 529])
def test_every_status_comes_as_the_services_error(status):
    async def test(server, client):
        with pytest.raises(anthropic.APIStatusError) as caught:
            await client.messages.create(**_ask())
        assert caught.value.status_code == status
        assert caught.value.body["error"]["message"] == "injected fault"
        waits = caught.value.response.headers.get("retry-after")
        assert waits == ("0.5" if status in {429, 503, 529} else None)
        await client.messages.create(**_ask())
        assert [row.is_answered for row in server.ledger.rows] == [False, True]
        assert server.ledger.lost_usd() == 0

    _with_client(test, faults=Faults(script=[str(status)], retry_after_s=0.5))


_BROKEN = (anthropic.APIError, httpx2.HTTPError, json.JSONDecodeError)


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "is_billed"),
    [
        ("drop", False), ("drop_after", True), ("stream_drop", True), ("early_end", True),
        ("truncated", False), ("malformed", False), ("html", False), ("wrong_schema", False),
    ],
)  # fmt: skip
def test_a_lost_answer_reaches_nobody_and_bills_as_documented(fault, is_billed, is_stream):
    async def ask(client):
        if not is_stream:
            return (await client.messages.create(**_ask())).stop_reason
        async with client.messages.stream(**_ask()) as stream:
            return (await stream.get_final_message()).stop_reason

    async def test(server, client):
        try:
            reason = await ask(client)
        except (*_BROKEN, AssertionError):
            reason = None
        assert reason is None
        assert await ask(client)
        lost, answered = server.ledger.rows
        assert (lost.is_answered, answered.is_answered) == (False, True)
        assert lost.fault == fault
        return server.ledger

    ledger = _with_client(test, faults=Faults(script=[fault]))
    assert (ledger.lost_usd() > 0) == is_billed
    assert ledger.total_usd() == ledger.lost_usd() + ledger.answered_usd()
    everything = Faults(script=[fault], lost_answers_bill=True)
    if fault != "drop":
        assert _with_client(test, faults=everything).lost_usd() > 0


def test_a_client_that_goes_away_is_billed_for_an_answer_it_never_got():
    async def test(server, client):
        with pytest.raises(anthropic.APITimeoutError):
            await client.with_options(timeout=0.02).messages.create(**_ask())
        await asyncio.sleep(0.05)
        [row] = server.ledger.rows
        assert row.usd == server.ledger.lost_usd() > 0

    _with_client(test, latency_s=0.05)


@pytest.mark.parametrize("is_stream", [False, True])
def test_an_answer_takes_its_time_per_token(is_stream):
    async def test(server, client):
        started = time.perf_counter()
        answer = await client.messages.create(**_ask(max_tokens=20, stream=is_stream))
        if is_stream:
            assert [event async for event in answer]
        return time.perf_counter() - started

    assert 0.03 < _with_client(test, latency_s=(0.01, 0.002)) < 1


def test_a_batch_costs_half_and_bears_faults_of_single_requests():
    async def test(server, client):
        entries = [
            {"custom_id": f"r{number}", "params": _ask(system=SYSTEM)} for number in range(4)
        ]
        batch = await client.messages.batches.create(requests=entries)
        assert (batch.processing_status, batch.request_counts.processing) == ("in_progress", 4)
        with pytest.raises(anthropic.AnthropicError, match="results"):
            await client.messages.batches.results(batch.id)
        while batch.processing_status != "ended":
            await asyncio.sleep(0.01)
            batch = await client.messages.batches.retrieve(batch.id)
        assert batch.request_counts.succeeded == 2
        results = [line async for line in await client.messages.batches.results(batch.id)]
        found = {line.custom_id: line.result for line in results}
        assert sorted(found) == ["r0", "r1", "r2", "r3"]
        kinds = sorted(result.type for result in found.values())
        assert kinds == ["errored", "expired", "succeeded", "succeeded"]
        rows = {row.custom_id: row for row in server.ledger.rows}
        answered = {name: one for name, one in found.items() if one.type == "succeeded"}
        assert rows.keys() == answered.keys()
        assert all(_row_matches(rows[name], one.message.usage) for name, one in answered.items())
        full = sum(
            row.usage.input_tokens + Decimal("0.1") * row.usage.cache_read_tokens
            + Decimal("1.25") * row.usage.cache_write_5m_tokens + 5 * row.usage.output_tokens
            for row in rows.values()
        )  # fmt: skip
        assert server.ledger.total_usd() == full / 2_000_000

    _with_client(test, batch_delay_s=0.03, faults=Faults(script=["errored", "", "expired"]))


def test_batches_are_listed_newest_first_and_private():
    async def run():
        async with (
            LoopbackServer(batch_delay_s=60) as server,
            _client(server, "a") as client,
            _client(server, "b") as other,
        ):
            entry = {"custom_id": "same", "params": _ask()}
            create = client.messages.batches.create
            made = [(await create(requests=[entry])).id for _ in range(3)]
            listed = [batch.id async for batch in client.messages.batches.list()]
            assert listed == made[::-1]
            assert [batch async for batch in other.messages.batches.list()] == []
            with pytest.raises(anthropic.NotFoundError):
                await other.messages.batches.retrieve(made[0])
            assert server.ledger.rows == []
            with pytest.raises(anthropic.BadRequestError, match="custom_id"):
                await create(requests=[entry, entry])

    asyncio.run(run())


def test_openai_clients_are_served():
    async def run():
        async with (
            LoopbackServer(requests_per_minute=3) as server,
            openai.AsyncOpenAI(base_url=server.base_url + "/v1", api_key="k", **STRICT) as client,
        ):
            ask = {
                "model": "gpt-5-mini",
                "messages": _ask()["messages"],
                "max_completion_tokens": 9,
            }
            whole = await client.chat.completions.create(**ask)
            assert whole.choices[0].finish_reason == "length"
            chunks = [
                chunk
                async for chunk in await client.chat.completions.create(
                    **ask, stream=True, stream_options={"include_usage": True}
                )
            ]
            assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens == 9
            assert chunks[-2].choices[0].finish_reason == "length"
            assert all(row.usd == Decimal(5 + 9 * 8) / 4_000_000 for row in server.ledger.rows)
            raw = await client.chat.completions.with_raw_response.create(**ask)
            assert raw.headers["x-ratelimit-remaining-requests"] == "0"
            with pytest.raises(openai.RateLimitError):
                await client.chat.completions.create(**ask)

    asyncio.run(run())


@pytest.mark.parametrize("cloud", ["bedrock", "vertex"])
def test_cloud_clients_are_served(cloud):
    async def run():
        async with LoopbackServer() as server:
            if cloud == "bedrock":
                model = "global.anthropic.claude-haiku-4-5-20251001-v1:0"
                opened = anthropic.AsyncAnthropicBedrock(
                    base_url=server.base_url, aws_access_key="AKID", aws_secret_key="s",
                    aws_region="us-east-1", **STRICT,
                )  # fmt: skip
            else:
                model = "claude-haiku-4-5@20251001"
                opened = anthropic.AsyncAnthropicVertex(
                    base_url=server.base_url + "/v1", access_token="t", project_id="p",
                    region="europe-west1", **STRICT,
                )  # fmt: skip
            async with opened as client:
                whole = await client.messages.create(**_ask(model=model))
                async with client.messages.stream(**_ask(model=model)) as stream:
                    streamed = await stream.get_final_message()
            assert whole.model == HAIKU
            assert streamed.stop_reason
            plain, stream_row = server.ledger.rows
            assert _row_matches(plain, whole.usage)
            assert stream_row.is_answered

    asyncio.run(run())


def test_configured_limits_are_enforced_and_told():
    async def test(server, client):
        raw = await client.messages.with_raw_response.create(**_ask())
        assert raw.headers["anthropic-ratelimit-requests-remaining"] == "1"
        assert raw.headers["anthropic-ratelimit-input-tokens-limit"] == "1000"
        await client.messages.create(**_ask())
        with pytest.raises(anthropic.RateLimitError) as caught:
            await client.messages.create(**_ask())
        assert 1 <= int(caught.value.response.headers["retry-after"]) <= 30
        assert [row.status for row in server.ledger.rows] == [200, 200, 429]

    _with_client(test, requests_per_minute=2, tokens_per_minute=1000)


def test_structured_output_parses():
    import pydantic

    class Verdict(pydantic.BaseModel):
        score: int
        tags: list[str]

    async def test(server, client):
        message = await client.messages.parse(**_ask(max_tokens=500), output_format=Verdict)
        assert isinstance(message.parsed_output, Verdict)

    _with_client(test)


def test_a_thread_serves_callers_without_an_event_loop():
    with LoopbackServer().serve_in_thread() as server:
        with anthropic.Anthropic(base_url=server.base_url, api_key="k", **STRICT) as client:
            message = client.messages.create(**_ask())
        assert server.ledger.rows[0].usage.output_tokens == message.usage.output_tokens
    with pytest.raises(OSError, match="refused"):
        _connect(server.base_url)


def _connect(url):
    host, _, port = url.removeprefix("http://").partition(":")
    socket.create_connection((host, int(port)), timeout=1).close()


def test_the_command_prints_its_url_and_keeps_a_ledger_through_a_kill(tmp_path):
    ledger = tmp_path / "ledger.jsonl"
    command = [sys.executable, "-m", "workbench.llm.loopback", "--ledger", str(ledger)]
    with subprocess.Popen(
        [*command, "--faults", "slow=1,slow_s=0.01"], stdout=subprocess.PIPE, text=True
    ) as process:
        url = process.stdout.readline().strip()
        with anthropic.Anthropic(base_url=url, api_key="sk-secret", **STRICT) as client:
            message = client.messages.create(**_ask())
        process.kill()
    [row] = map(json.loads, ledger.read_text().splitlines())
    assert row["usage"]["output_tokens"] == message.usage.output_tokens
    assert (row["is_answered"], row["fault"]) == (True, "slow")
    assert Decimal(row["usd"]) > 0
    assert "sk-secret" not in ledger.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--faults", "gremlins=1"], "unknown fault 'gremlins'"),
        (["--port", "65536"], "65536 is no port"),
        (["--port", "http"], "http is no port"),
        (["--latency-s", "-1"], "-1 is no number from 0 up"),
        (["--ledger", "/none/ledger.jsonl"], "/none/ledger.jsonl: No such file"),
        (["--port", "TAKEN"], "in use"),
    ],
)
def test_the_command_refuses_in_one_line(arguments, message):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        arguments = [port if one == "TAKEN" else one for one in arguments]
        command = [sys.executable, "-m", "workbench.llm.loopback", *arguments]
        run = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert run.returncode == 2
    assert message in run.stderr
    assert run.stderr.count("\n") == 1
