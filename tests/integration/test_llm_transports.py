"""Transports against the loopback server, and against servers that break the rules of HTTP."""

import asyncio
import json
import logging
import time
from contextlib import asynccontextmanager

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.core.errors import InputError
from workbench.core.settings import Secret
from workbench.llm.anthropic import AnthropicTransport, BedrockTransport, VertexTransport
from workbench.llm.loopback import Faults, LoopbackServer
from workbench.llm.messages import Fault, Reply, Request
from workbench.llm.openai_compatible import OpenAITransport
from workbench.llm.transport import Sending

KEY = Secret("a-key-of-no-known-pattern")
MODEL = "claude-haiku-4-5"
MESSAGE = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": MODEL,
    "content": [{"type": "text", "text": "hello"}], "stop_reason": "end_turn",
    "stop_sequence": None, "usage": {"input_tokens": 3, "output_tokens": 1},
}  # fmt: skip
COMPLETION = {
    "id": "c", "object": "chat.completion", "created": 1, "model": "local",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hello"}}
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}  # fmt: skip
KINDS = {AnthropicTransport: MESSAGE, OpenAITransport: COMPLETION}


def sending(**values):
    return Sending(**{"model": MODEL, "key": KEY, "timeout_s": 5.0, **values})


@asynccontextmanager
async def raw_server(answer, seen=None):
    """Serve bytes as they are: ``answer`` writes them, from what came."""

    async def handle(reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = [line for line in head.lower().split(b"\r\n") if b"content-length" in line]
                body = await reader.readexactly(int(size[0].split(b":")[1])) if size else b""
                if seen is not None:
                    seen.append(head + body)
                await answer(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}"


def answering(body, *, status="200 OK", media="application/json", size=None, headers=""):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: {media}\r\n{headers}"

    async def answer(writer):
        writer.write(
            f"{head}content-length: {len(data) if size is None else size}\r\n\r\n".encode()
        )
        writer.write(data)
        await writer.drain()
        if size is not None:
            writer.close()

    return answer


def send(kind, answer, *, seen=None, request=None, **values):
    async def run():
        async with raw_server(answer, seen) as url:
            transport = kind(base_url=url)
            try:
                return await transport.send(request or Request(prompt="q"), sending(**values))
            finally:
                await transport.close()

    return asyncio.run(run())


def sse(*events):
    return b"".join(
        b"event: %s\ndata: %s\n\n" % (event["type"].encode(), json.dumps(event).encode())
        for event in events
    )


START = {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None}}
DELTA = {
    "type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hel"}
}  # fmt: skip
END = {
    "type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda good: answering(b"<html>down</html>", media="text/html"), "malformed"),
        (lambda good: answering(b"{{"), "malformed"),
        (lambda good: answering(b"\xff\xfe"), "malformed"),
        (lambda good: answering(b"null"), "malformed"),
        (lambda good: answering(b"[" * 100_000), "malformed"),
        (lambda good: answering({**good, "usage": None}), "malformed"),
        (lambda good: answering({**good, "stop_reason": None, "choices": []}), "malformed"),
        (lambda good: answering(good, size=10_000), "dropped"),
        (lambda good: answering(b"", size=10_000), "dropped"),
    ],
)
def test_an_answer_that_is_lost_may_have_been_billed(kind, spoil, expected):
    fault = send(kind, spoil(KINDS[kind]))
    assert isinstance(fault, Fault)
    assert (fault.kind, fault.is_retryable, fault.may_be_billed) == (expected, True, True)


@pytest.mark.parametrize("kind", KINDS)
def test_validation_stays_strict_for_every_key(kind):
    async def run():
        async with raw_server(answering({"any": "thing"})) as url:
            transport = kind(base_url=url)
            keys = [Secret("one"), Secret("two"), Secret("one")]
            faults = [await transport.send(Request(prompt="q"), sending(key=key)) for key in keys]
            await transport.close()
            return faults

    assert {fault.kind for fault in asyncio.run(run())} == {"malformed"}


@pytest.mark.parametrize("kind", KINDS)
def test_each_key_is_sent_under_its_name_and_never_shown(kind, caplog, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "not-this-one")
    monkeypatch.setenv("OPENAI_API_KEY", "not-this-one")
    caplog.set_level(logging.DEBUG)
    seen = []
    error = {"error": {"type": "authentication_error", "message": f"bad key {KEY.reveal()}"}}
    fault = send(kind, answering(error, status="401 no"), seen=seen)
    head, _, body = seen[0].partition(b"\r\n\r\n")
    assert KEY.reveal().encode() in head
    assert b"not-this-one" not in head
    assert KEY.reveal().encode() not in body
    assert "bad key [key]" in fault.message
    assert KEY.reveal() not in repr(fault)
    ours = [record for record in caplog.records if record.name.startswith("workbench")]
    assert not ours


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_that_comes_back_in_an_answer_is_kept_nowhere(kind):
    headers = f"request-id: {KEY.reveal()}\r\nx-ratelimit-limit-requests: 5\r\n"
    good = json.dumps({**KINDS[kind], "model": KEY.reveal()}).replace("hello", KEY.reveal())
    reply = send(kind, answering(good.encode(), headers=headers))
    assert reply.text == "[key]"
    assert KEY.reveal() not in repr(reply)
    assert reply.headers == {"x-ratelimit-limit-requests": "5"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_count_of_tokens_beyond_every_window_is_no_bill(kind):
    good = json.dumps(KINDS[kind]).replace('_tokens": 3', '_tokens": 30000000')
    fault = send(kind, answering(good.encode()))
    assert (fault.kind, fault.may_be_billed) == ("malformed", True)


@pytest.mark.parametrize("kind", KINDS)
def test_no_redirect_is_followed(kind):
    seen = []
    headers = "location: http://localhost:1/elsewhere\r\n"
    fault = send(kind, answering({}, status="307 Moved", headers=headers), seen=seen)
    assert (fault.kind, fault.status, fault.is_retryable) == ("invalid", 307, False)
    assert len(seen) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_loopback_goes_through_no_proxy(kind, monkeypatch):
    for name in ("http_proxy", "all_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert isinstance(send(kind, answering(KINDS[kind])), Reply)


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_are_those_of_the_bodies(kind):
    seen = []
    reply = send(kind, answering(KINDS[kind]), seen=seen, request=Request(prompt="ü" * 50))
    assert reply.bytes_sent == len(seen[0].partition(b"\r\n\r\n")[2])
    assert reply.bytes_received == len(json.dumps(KINDS[kind]))


@pytest.mark.parametrize("kind", KINDS)
def test_where_nobody_listens_nothing_is_billed(kind):
    async def run():
        async with raw_server(answering({})) as url:
            pass
        transport = kind(base_url=url)
        fault = await transport.send(Request(prompt="q"), sending())
        await transport.close()
        return fault

    fault = asyncio.run(run())
    assert (fault.kind, fault.is_retryable, fault.may_be_billed) == ("unavailable", True, False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("drip", [b"", b" "])
def test_the_time_limit_is_one_for_the_whole_answer(kind, drip):
    async def never(writer):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n")
        while True:
            writer.write(drip)
            await writer.drain()
            await asyncio.sleep(0.01)

    started = time.monotonic()
    fault = send(kind, never, timeout_s=0.15)
    assert time.monotonic() - started < 2
    assert (fault.kind, fault.is_retryable, fault.may_be_billed) == ("timeout", True, True)


@pytest.mark.parametrize("kind", KINDS)
def test_to_cancel_is_no_fault(kind):
    async def run():
        arrived = asyncio.Event()

        async def answer(_):
            arrived.set()
            await asyncio.Event().wait()

        async with raw_server(answer) as url:
            transport = kind(base_url=url)
            task = asyncio.create_task(transport.send(Request(prompt="q"), sending()))
            await arrived.wait()
            task.cancel()
            done, _ = await asyncio.wait([task])
            await transport.close()
            return done.pop().cancelled()

    assert asyncio.run(run())


def test_what_takes_long_must_be_streamed():
    with pytest.raises(InputError, match="Streaming is required"):
        send(AnthropicTransport, answering(MESSAGE), request=Request(prompt="q", max_tokens=60_000))


def test_a_refusal_is_a_reply():
    reply = send(AnthropicTransport, answering({**MESSAGE, "stop_reason": "refusal"}))
    assert (reply.stop_reason, reply.text) == ("refusal", "hello")
    message = {"role": "assistant", "content": None, "refusal": "no"}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    reply = send(OpenAITransport, answering({**COMPLETION, "choices": [choice]}))
    assert (reply.stop_reason, reply.text) == ("refusal", "no")
    choice = {**COMPLETION["choices"][0], "finish_reason": "content_filter"}
    reply = send(OpenAITransport, answering({**COMPLETION, "choices": [choice]}))
    assert reply.stop_reason == "refusal"


def test_the_last_count_of_a_stream_is_the_one_that_is_billed():
    pieces = []
    reply = send(
        AnthropicTransport,
        answering(sse(START, DELTA, END), media="text/event-stream"),
        on_text=pieces.append,
    )
    assert (reply.text, pieces, reply.stop_reason) == ("hel", ["hel"], "end_turn")
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (3, 7)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (sse(START, DELTA), "malformed"),
        (sse(DELTA, END), "malformed"),
        (sse(START, DELTA, {**END, "delta": {"stop_reason": None}}), "malformed"),
        (sse(START, {"type": "error", "error": {"type": "overloaded_error"}}), "overloaded"),
        (b"event: message_start\ndata: {\n\n", "malformed"),
        (b"", "malformed"),
    ],
)
def test_a_stream_that_ends_badly_may_have_been_billed(body, kind):
    fault = send(AnthropicTransport, answering(body, media="text/event-stream"), on_text=str)
    assert isinstance(fault, Fault)
    assert (fault.kind, fault.is_retryable, fault.may_be_billed) == (kind, True, True)


def test_a_mistake_of_who_listens_is_not_blamed_on_the_service():
    def listen(_):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        send(
            AnthropicTransport,
            answering(sse(START, DELTA, END), media="text/event-stream"),
            on_text=listen,
        )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(KINDS)), st.data(), st.booleans())
def test_no_answer_whatsoever_is_an_exception(kind, data, is_streamed):
    good = KINDS[kind]
    field = data.draw(st.sampled_from(list(good)))
    body = json.dumps({**good, field: data.draw(JSON)}).encode()
    if data.draw(st.booleans()):
        body = body[: data.draw(st.integers(0, len(body)))]
    if is_streamed:
        body = b"event: message_start\ndata: " + body + b"\n\n"

    async def run():
        transport = kind(base_url="http://127.0.0.1:9")
        media = {"content-type": "text/event-stream" if is_streamed else "application/json"}
        answer = httpx2.MockTransport(lambda _: httpx2.Response(200, content=body, headers=media))
        transport._http = httpx2.AsyncClient(transport=answer)
        reply = await transport.send(
            Request(prompt="q"), sending(on_text=str if is_streamed else None)
        )
        await transport.close()
        return reply

    reply = asyncio.run(run())
    assert isinstance(reply, Reply | Fault)
    if isinstance(reply, Reply):
        assert reply.stop_reason
        assert min(reply.usage.input_tokens, reply.usage.output_tokens) >= 0


@pytest.mark.parametrize("kind", KINDS)
def test_256_requests_are_in_flight_at_once(kind):
    async def run():
        arrived = asyncio.Semaphore(0)
        everybody = asyncio.Event()

        async def answer(writer):
            arrived.release()
            await everybody.wait()
            await answering(KINDS[kind])(writer)

        async with raw_server(answer) as url:
            transport = kind(base_url=url, max_connections=256)
            sends = [transport.send(Request(prompt=f"q {n}"), sending()) for n in range(256)]
            replies = asyncio.gather(*sends)
            for _ in range(256):
                await asyncio.wait_for(arrived.acquire(), 5)
            everybody.set()
            await replies
            await transport.close()
            return replies.result()

    assert all(isinstance(reply, Reply) for reply in asyncio.run(run()))


def batches(*, faults=None, requests=3, sent=None):
    async def run():
        async with LoopbackServer(faults=faults) as server:
            transport = AnthropicTransport(base_url=server.base_url)
            named = {f"r{n}": Request(prompt=f"q {n}") for n in range(requests)}
            batch = await transport.submit(named, dict.fromkeys(named, sending()))
            if isinstance(batch, Fault):
                return batch
            while not await transport.has_ended(batch, key=KEY):
                await asyncio.sleep(0.01)
            found = (
                await transport.collect(batch, key=KEY),
                await transport.recent(key=KEY),
                batch,
                server.ledger.total_usd(),
            )
            await transport.close()
            return found

    return asyncio.run(run())


def test_a_batch_is_submitted_found_again_and_collected():
    results, recent, batch, usd = batches()
    assert sorted(results) == ["r0", "r1", "r2"]
    assert all(isinstance(reply, Reply) and reply.usage.output_tokens for reply in results.values())
    assert {reply.latency_s for reply in results.values()} == {0.0}
    [(name, at, size)] = recent
    assert (name, size) == (batch, 3)
    assert abs(at - time.time()) < 60
    assert usd > 0


def test_requests_that_failed_in_a_batch_are_faults_that_cost_nothing():
    results, *_ = batches(faults=Faults(script=["errored", "expired"]))
    faults = [one for one in results.values() if isinstance(one, Fault)]
    assert len(faults) == 2
    assert all(fault.is_retryable and not fault.may_be_billed for fault in faults)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ({"custom_id": "a", "result": {"type": "succeeded", "message": MESSAGE}}, Reply),
        ({"custom_id": "a", "result": {"type": "succeeded", "message": {}}}, "malformed"),
        ({"custom_id": "a", "result": {"type": "unheard-of"}}, "malformed"),
        ({"custom_id": "a", "result": {"type": "canceled"}}, "unavailable"),
    ],
)
def test_each_result_of_a_batch_is_read_by_itself(line, kind):
    separator = "\u2028"  # a line break to str.splitlines, none in JSON lines
    good = {**MESSAGE, "content": [{"type": "text", "text": f"one{separator}two"}]}
    lines = [line, {"custom_id": "b", "result": {"type": "succeeded", "message": good}}]
    body = "\n".join(json.dumps(one, ensure_ascii=False) for one in lines).encode()
    results = collect(answering(body, media="application/x-jsonl"))
    assert results["b"].text == f"one{separator}two"
    assert results["b"].bytes_received == len(body.splitlines()[1])
    if kind is Reply:
        assert isinstance(results["a"], Reply)
    else:
        assert results["a"].kind == kind
        assert results["a"].may_be_billed == (kind == "malformed")


@pytest.mark.parametrize("body", [b"[]\n", b"{}\n", b"{", b'{"custom_id": "a"}\n{'])
def test_results_that_cannot_be_read_can_be_asked_for_again(body):
    fault = collect(answering(body))
    assert (fault.kind, fault.is_retryable, fault.may_be_billed) == ("malformed", True, False)


def collect(answer, batch="msgbatch_1"):
    async def run():
        async with raw_server(answer) as url:
            transport = AnthropicTransport(base_url=url)
            try:
                return await transport.collect(batch, key=KEY)
            finally:
                await transport.close()

    return asyncio.run(run())


def test_to_look_at_a_batch_is_never_billed():
    async def drop(writer):
        writer.close()

    async def run():
        async with raw_server(drop) as url:
            transport = AnthropicTransport(base_url=url)
            faults = (
                await transport.has_ended("msgbatch_1", key=KEY),
                await transport.collect("msgbatch_1", key=KEY),
                await transport.recent(key=KEY),
            )
            await transport.close()
            return faults

    for fault in asyncio.run(run()):
        assert (fault.kind, fault.is_retryable, fault.may_be_billed) == ("dropped", True, False)


def test_a_batch_id_is_never_a_path():
    with pytest.raises(InputError, match="batch id"):
        collect(answering({}), "../messages")


def test_a_batch_lost_on_its_way_may_have_been_accepted():
    async def drop(writer):
        writer.close()

    async def run():
        async with raw_server(drop) as url:
            transport = AnthropicTransport(base_url=url)
            fault = await transport.submit({"a": Request(prompt="q")}, {"a": sending()})
            await transport.close()
            return fault

    fault = asyncio.run(run())
    assert (fault.kind, fault.may_be_billed) == ("dropped", True)


@pytest.mark.parametrize("kind", [BedrockTransport, VertexTransport])
def test_a_cloud_without_credentials_says_so_before_anything_is_sent(kind, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_BEARER_TOKEN_BEDROCK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"), "CLOUD_ML_REGION": "us",
        "ANTHROPIC_VERTEX_PROJECT_ID": "p", "CLOUDSDK_CONFIG": str(tmp_path),
        "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "none.json"),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    seen = []
    with pytest.raises(InputError, match="is not set up"):
        send(kind, answering(MESSAGE), seen=seen, key=Secret(""))
    assert not seen


def test_bedrock_streams_in_its_own_framing(monkeypatch):
    monkeypatch.setenv("AWS_REGION", "us-east-1")

    async def run():
        async with LoopbackServer(faults=Faults(script=["", "malformed"])) as server:
            transport = BedrockTransport(base_url=server.base_url)
            got = [
                await transport.send(Request(prompt="q"), sending(on_text=str)) for _ in range(2)
            ]
            await transport.close()
            return got

    reply, fault = asyncio.run(run())
    assert isinstance(reply, Reply)
    assert (fault.kind, fault.may_be_billed) == ("malformed", True)
