"""What passes between client, guard and an upstream that does odd things."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import socket
import threading
import time
from urllib.parse import urlsplit

import httpx
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from guard_server import KEY, RuleService, guard_app, serve_app
from workbench.core.settings import Secret
from workbench.serving.refusal import Overloaded
from workbench.serving.upstream import UpstreamConfig

pytest_plugins = ["odd_upstream"]
OWN = {"x-workbench-key": KEY}
BODY = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
PATHS = ["/v1/messages", "/v1/messages/count_tokens", "/v1/chat/completions"]


@pytest.fixture(scope="module")
def service():
    return RuleService()


@pytest.fixture(scope="module")
def url(odd, service):
    config = UpstreamConfig(
        anthropic_url=odd.base_url + "/a", openai_url=odd.base_url + "/o/v1/", silence_s=1
    )
    with serve_app(guard_app(service, config, max_body_bytes=100_000)) as url:
        yield url


@pytest.fixture(scope="module")
def http_client(url):
    with httpx.Client(base_url=url, headers=OWN, trust_env=False, timeout=10) as client:
        yield client


@pytest.mark.parametrize("path", PATHS)
def test_what_passes_goes_on_byte_for_byte(http_client, upstream, path):
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    content = [{"type": "text", "text": "héllo"}, image]
    raw = json.dumps(
        BODY | {"messages": [{"role": "user", "content": content}], "x": 1.50}, indent=3
    )
    answer = http_client.post(
        path, content=raw, headers={"content-type": "application/json; charset=utf-8"}
    )
    assert answer.headers["x-workbench-decision"] == "pass"
    assert upstream.requests[0][2] == answer.content == raw.encode()
    there = {"/v1/chat/completions": "/o/v1/chat/completions"}.get(path, "/a" + path)
    assert upstream.requests[0][0] == there


def test_headers_of_one_hop_and_those_of_nobody_stay_here(http_client, upstream):
    async def answer(_):
        return web.Response(
            body=b"{}", content_type="application/json", status=201,
            headers={
                "request-id": "req_1", "retry-after": "3", "x-ratelimit-remaining-tokens": "5",
                "anthropic-ratelimit-requests-limit": "9", "set-cookie": "a=b", "server": "odd",
                "x-internal": "1", "keep-alive": "timeout=9", "x-workbench-decision": "fake",
                "x-request-id": "é",
            },
        )  # fmt: skip

    upstream.handler = answer
    sent = {
        "x-api-key": "sk-up", "authorization": "Bearer up", "anthropic-version": "2023-06-01",
        "anthropic-beta": "b", "x-stainless-lang": "python", "cookie": "c=d", "te": "trailers",
        "x-forwarded-host": "evil.example", "host": "evil.example", "proxy-authorization": "p",
        "forwarded": "host=evil.example", "accept-encoding": "gzip", "user-agent": "mine",
    }  # fmt: skip
    query = "?beta=true&url=http://evil.example&limit=1%26x=2"
    got = http_client.post("/v1/messages" + query, json=BODY, headers=sent)
    path, headers, _ = upstream.requests[0]
    assert path == "/a/v1/messages?beta=true&limit=1%26x%3D2"
    assert headers.pop("host") == urlsplit(upstream.base_url).netloc
    assert {name: headers.get(name) for name in sent if name in headers} == {
        "x-api-key": "sk-up", "authorization": "Bearer up", "anthropic-version": "2023-06-01",
        "anthropic-beta": "b", "x-stainless-lang": "python", "accept-encoding": "identity",
        "user-agent": "mine",
    }  # fmt: skip
    assert not any(name.startswith(("x-workbench", "x-forwarded")) for name in headers)
    assert got.status_code == 201
    assert got.headers["request-id"] == "req_1"
    assert got.headers["retry-after"] == "3"
    assert got.headers["x-ratelimit-remaining-tokens"] == "5"
    assert got.headers["anthropic-ratelimit-requests-limit"] == "9"
    assert got.headers["x-workbench-decision"] == "pass"
    assert not {"set-cookie", "x-internal", "keep-alive", "x-request-id"} & set(got.headers)
    assert got.headers["server"] != "odd"


def test_models_are_passed_through(http_client, upstream):
    http_client.get("/v1/models?after=x&secret=1")
    http_client.get("/v1/models", headers={"anthropic-version": "2023-06-01"})
    assert [path for path, _, _ in upstream.requests] == ["/o/v1/models?after=x", "/a/v1/models"]
    assert http_client.get("/v1/models", headers={"x-workbench-key": "no"}).status_code == 401
    assert len(upstream.requests) == 2


def test_a_redirect_is_not_followed(http_client, upstream):
    async def away(_):
        raise web.HTTPTemporaryRedirect(upstream.base_url + "/elsewhere")

    upstream.handler = away
    got = http_client.post("/v1/messages", json=BODY)
    assert got.status_code == 502
    assert "location" not in got.headers
    assert len(upstream.requests) == 1


def test_a_packed_answer_passes_packed(http_client, upstream):
    packed = gzip.compress(b'{"usage": {}}')

    async def answer(_):
        return web.Response(
            body=packed, headers={"content-encoding": "gzip", "content-type": "application/json"}
        )

    upstream.handler = answer
    assert http_client.post("/v1/messages", json=BODY).json() == {"usage": {}}


def test_events_come_one_by_one_and_byte_for_byte(http_client, upstream):
    goes_on = threading.Event()
    parts = [b"event: a\r\nda", b"ta: {}\r\n\r\n", b": comment\n\ndata: [\xff"]

    async def answer(request):
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for part in parts:
            await response.write(part)
            await asyncio.to_thread(goes_on.wait, 10)
            goes_on.clear()
        return response

    upstream.handler = answer
    with http_client.stream("POST", "/v1/messages", json=BODY) as got:
        assert got.headers["content-type"] == "text/event-stream; charset=utf-8"
        for at, chunk in enumerate(got.iter_raw()):
            assert chunk == parts[at]  # the upstream has not sent the next yet
            goes_on.set()
    assert at == 2


@pytest.mark.parametrize("begins", [True, False])
def test_a_client_that_leaves_ends_the_call(url, service, upstream, begins):
    came, ended = threading.Event(), threading.Event()

    async def answer(request):
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        try:
            if begins:
                await response.prepare(request)
            came.set()
            while request.transport and not request.transport.is_closing():
                await asyncio.sleep(0.01)
        finally:
            ended.set()
        return response

    upstream.handler = answer
    host = urlsplit(url)
    connection = http.client.HTTPConnection(host.hostname, host.port)
    headers = OWN | {"content-type": "application/json"}
    connection.request("POST", "/v1/messages", json.dumps(BODY | {"stream": True}), headers)
    assert came.wait(5)
    connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()
    assert ended.wait(0.9)  # before its silence would end it


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions"])
def test_silence_is_told_in_the_apis_words(http_client, upstream, path):
    async def answer(_):
        await asyncio.sleep(3)

    upstream.handler = answer
    got = http_client.post(path, json=BODY)
    assert got.status_code == 504
    assert got.json()["error"]["type"] in {"timeout_error", "server_error"}
    assert int(got.headers["retry-after"]) > 0


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions"])
def test_an_upstream_that_is_down(service, path):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{held.getsockname()[1]}"
        config = UpstreamConfig(anthropic_url=address, openai_url=address)
        with serve_app(guard_app(service, config)) as url:
            got = httpx.post(url + path, json=BODY, headers=OWN, trust_env=False)
    assert got.status_code == 502
    assert int(got.headers["retry-after"]) > 0
    assert address not in got.text
    assert got.json()["error"]["type"] in {"api_error", "server_error"}


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"content": b"{}", "headers": {"content-type": "text/plain"}}, 415),
        ({"json": BODY, "headers": {"content-encoding": "gzip"}}, 415),
        ({"json": BODY | {"x": "y" * 100_000}}, 413),
        ({"json": BODY, "headers": {"x-workbench-key": "other"}}, 401),
        ({"json": BODY, "headers": {"anthropic-version": b"\xff"}}, 400),
        ({"json": []}, 400),
    ],
)
@pytest.mark.parametrize("path", PATHS)
def test_refusals_have_the_apis_shape_and_call_nobody(http_client, upstream, path, more, status):
    got = http_client.post(path, **more)
    assert got.status_code == status
    error = got.json()["error"]
    assert error["message"]
    assert error["type"]
    assert ("type" in got.json()) == ("messages" in path)
    assert upstream.requests == []


def test_overload_is_told_with_a_time(http_client, service, upstream):
    service.refusal = Overloaded(3, "too much waits")
    try:
        got = http_client.post("/v1/messages", json=BODY | {"messages": [
            {"role": "user", "content": "never seen before"}]})  # fmt: skip
    finally:
        service.refusal = None
    assert (got.status_code, got.headers["retry-after"]) == (429, "3")
    assert got.json()["error"]["type"] == "rate_limit_error"
    assert upstream.requests == []


def test_no_more_than_so_many_wait_for_the_upstream(service, upstream):
    async def answer(_):
        await asyncio.sleep(0.5)
        return web.json_response({})

    upstream.handler = answer
    config = UpstreamConfig(openai_url=upstream.base_url, most_open=1)
    with serve_app(guard_app(service, config)) as url:
        statuses = []

        def ask():
            got = httpx.post(url + PATHS[2], json=BODY, headers=OWN, trust_env=False)
            statuses.append(got.status_code)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
            time.sleep(0.1)
        for thread in threads:
            thread.join()
        assert sorted(statuses) == [200, 429, 429]
        assert httpx.get(url + "/v1/messages", trust_env=False).status_code == 404


def test_keys_are_in_no_log_and_no_row(service, upstream, caplog, capfd):
    keys = {"anthropic": Secret("sk-house-secret")}
    config = UpstreamConfig(anthropic_url=upstream.base_url, payer="service")
    with caplog.at_level("DEBUG"), serve_app(guard_app(service, config, keys=keys)) as url:
        body = BODY | {"model": "claude-haiku-5-5"}
        got = httpx.post(
            url + PATHS[0], json=body, headers={"x-api-key": KEY + "-secret"}, trust_env=False
        )
    assert got.status_code == 200
    assert upstream.requests[0][1]["x-api-key"] == "sk-house-secret"
    told = caplog.text + "".join(capfd.readouterr()) + repr(config)
    assert "sk-house-secret" not in told


texts = st.sampled_from(["hi", "BLOCK", "REDIRECT", "WRAP:x", "", " ", "\x00", "\ud800", "é" * 50])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["role", "content", "text", "type", "source", "data", "Text", "é"]),
        inner, max_size=4,
    ),
    max_leaves=8,
)  # fmt: skip
messages = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["user", "assistant", "tool"]) | json_values,
            "content": json_values,
        }
    )
    | json_values,
    max_size=4,
)
bodies = st.fixed_dictionaries(
    {"messages": messages | json_values},
    optional={"model": json_values, "stream": json_values, "stream_options": json_values},
)


@settings(max_examples=150)
@given(st.sampled_from(PATHS), bodies.map(json.dumps).map(str.encode) | st.binary(max_size=60))
def test_no_body_makes_an_error_of_its_own(http_client, odd, path, raw):
    odd.requests.clear()
    odd.handler = None
    got = http_client.post(path, content=raw, headers={"content-type": "application/json"})
    assert got.status_code in {200, 400}
    assert "x-workbench-decision" in got.headers or got.json()["error"]["message"]
    if odd.requests:
        for message in odd.sent()["messages"]:
            if message["role"] != "assistant":
                assert not hidden(message.get("content"))


def hidden(content):
    """Return whether a text that models read holds what the guard should have taken out."""
    if isinstance(content, str):
        return "REDIRECT" in content or "BLOCK" in content
    if isinstance(content, list):
        return any(hidden(one) for one in content if not isinstance(one, list))
    if isinstance(content, dict):
        return any(hidden(content.get(name)) for name in ("text", "content", "source"))
    return False
