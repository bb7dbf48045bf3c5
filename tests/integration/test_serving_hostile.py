"""The service and its guard against callers, upstreams, models and stores that mean harm."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from contextlib import contextmanager

import anthropic
import httpx
import openai
import pytest
from aiohttp import web

from guard_server import KEY, OddUpstream, RuleService, guard_app, serve_app
from served_models import add_model
from workbench.core.errors import StoreError
from workbench.core.settings import Secret
from workbench.llm.loopback import LoopbackServer
from workbench.serving.app import make_app
from workbench.serving.config import ServeConfig
from workbench.serving.guard import guard_routes
from workbench.serving.keys import ANYBODY, new_key
from workbench.serving.refusal import Refusal
from workbench.serving.run import _serve, _Server
from workbench.serving.service import Service
from workbench.serving.upstream import Upstream, UpstreamConfig
from workbench.store.ledger import Ledger
from workbench.store.service_keys import add_key, revoke_key

pytest_plugins = ["odd_upstream"]
CLAUDE, GPT = "claude-haiku-5-5", "gpt-5.4-mini"
SAID = [{"role": "user", "content": "hello"}]


@contextmanager
def service_pays(upstream: OddUpstream, service: RuleService, **options):
    config = UpstreamConfig(
        anthropic_url=upstream.base_url, openai_url=upstream.base_url, payer="service", **options
    )
    keys = {"anthropic": Secret("sk-house"), "openai": Secret("sk-house")}
    with (
        serve_app(guard_app(service, config, keys=keys)) as url,
        httpx.Client(
            base_url=url, headers={"x-api-key": KEY}, trust_env=False, timeout=10
        ) as client,
    ):
        yield client


@contextmanager
def whole_service(store, models, **options):
    """Give the URL of the whole app, its service and the key."""
    add_model(store)
    key, secret = new_key(
        owner="anna", name="t", quota_credits_per_day=None, requests_per_minute=None
    )
    add_key(store.engine, key)
    config = UpstreamConfig(
        anthropic_url=models.base_url, openai_url=models.base_url + "/v1", payer="service"
    )
    house = {"anthropic": Secret("sk-house"), "openai": Secret("sk-house")}
    upstream = Upstream(config, keys=house)
    service = Service(ServeConfig(precision="float32", **options), store)
    app = make_app(service, more=guard_routes(service, upstream))

    async def loading(scope, receive, send):
        if scope["type"] == "http" and not service.is_ready and not service.is_draining:
            await service.load()
        await app(scope, receive, send)
        if scope["type"] == "lifespan":
            await upstream.close()

    with serve_app(loading) as url:
        yield url, service, secret.reveal()


def test_clients_are_told_to_wait_in_their_own_words_and_come_again(store) -> None:
    with (
        LoopbackServer(answer=lambda _: "fine").serve_in_thread() as models,
        whole_service(store, models, max_requests=5) as (url, service, key),
        anthropic.Anthropic(api_key=key, base_url=url, max_retries=0) as claude,
        openai.OpenAI(api_key=key, base_url=url + "/v1", max_retries=0) as gpt,
    ):

        def ask_claude(**options):
            made = claude.with_options(**options).messages.create(
                model=CLAUDE, max_tokens=9, messages=SAID
            )
            return made.content[0].text

        def ask_gpt(**options):
            made = gpt.with_options(**options).chat.completions.create(model=GPT, messages=SAID)
            return made.choices[0].message.content

        assert ask_claude() == ask_gpt() == "fine"
        service.in_flight = 5
        with pytest.raises(anthropic.RateLimitError) as one:
            ask_claude()
        with pytest.raises(openai.RateLimitError) as two:
            ask_gpt()
        assert one.value.body["error"]["type"] == two.value.body["type"] == "rate_limit_error"
        assert one.value.response.headers["content-type"] == "application/json"
        count = service.count_refusal

        def there_is_room_again(refusal):
            count(refusal)
            service.in_flight = 1

        service.count_refusal = there_is_room_again
        for ask in (ask_claude, ask_gpt):
            service.in_flight = 5
            assert ask(max_retries=2) == "fine"
        service.is_draining, service.in_flight = True, 0
        with pytest.raises(anthropic.InternalServerError) as ending:
            ask_claude()
        assert ending.value.status_code == 503
        assert ending.value.body["error"]["type"] == "overloaded_error"
        text = httpx.get(f"{url}/metrics", trust_env=False).text
    assert 'rejections_total{reason="overload"} 4.0' in text
    assert 'rejections_total{reason="ending"} 1.0' in text


def test_a_model_without_a_name_is_not_free(upstream) -> None:
    service = RuleService()
    with service_pays(upstream, service) as client:
        for model in ("", None, [], "x" * 200):
            body = {"model": model, "max_tokens": 9, "messages": SAID}
            got = client.post("/v1/messages", json=body)
            assert (got.status_code, upstream.requests) == (400, [])
            assert "price" in got.json()["error"]["message"]


def test_whoever_pays_chooses_whom_it_is_charged_to(upstream) -> None:
    with service_pays(upstream, RuleService()) as client:
        headers = {"openai-organization": "other", "openai-project": "other", "openai-beta": "x"}
        client.post("/v1/chat/completions", json={"model": GPT, "messages": SAID}, headers=headers)
    sent = upstream.requests[0][1]
    assert sent["openai-beta"] == "x"
    assert not {"openai-organization", "openai-project"} & set(sent)


@pytest.mark.parametrize("ends", ["silence", "leaves", "breaks"])
def test_what_was_asked_and_never_answered_is_paid_for(upstream, ends) -> None:
    async def answer(request):
        if ends == "breaks":
            started = web.StreamResponse(headers={"content-length": "99"})
            await started.prepare(request)
            request.transport.close()
            return started
        await asyncio.sleep(5)
        return web.json_response({})

    upstream.handler = answer
    service = RuleService()
    body = {"model": CLAUDE, "max_tokens": 5000, "messages": SAID}
    with service_pays(upstream, service, silence_s=0.5 if ends == "silence" else 9) as client:
        if ends == "leaves":
            with pytest.raises(httpx.ReadTimeout):
                client.post("/v1/messages", json=body, timeout=1)
        else:
            assert client.post("/v1/messages", json=body).status_code in (502, 504)
        [row] = service.booked(1)
    assert row.details["outcome"] == "lost"
    assert row.details["output"] == 5000
    assert row.estimated
    assert row.usd > 0


def test_a_chat_too_deep_to_be_written_again_is_refused(upstream) -> None:
    service = RuleService()
    config = UpstreamConfig(anthropic_url=upstream.base_url)
    statuses = set()
    with serve_app(guard_app(service, config)) as url:
        for depth in range(880, 1000, 4):
            deep = "[" * depth + "]" * depth
            said = json.dumps([{"role": "user", "content": "REDIRECT"}])
            raw = f'{{"messages": {said}, "x": {deep}, "pad": "{"y" * 100_000}"}}'
            got = httpx.post(
                f"{url}/v1/messages", content=raw, trust_env=False,
                headers={"x-workbench-key": KEY, "content-type": "application/json"},
            )  # fmt: skip
            statuses.add(got.status_code)
            assert got.status_code == 200 or "deep" in got.json()["error"]["message"]
    assert statuses == {200, 400}


@pytest.mark.parametrize(
    "head",
    ["HTTP/1.1 799 Odd", "HTTP/1.1 204 No", "HTTP/1.1 099 Low", "ICY 200 OK", "\x16\x03\x01"],
)
def test_whatever_an_upstream_says_the_client_gets_an_answer(head) -> None:
    def serve(listening: socket.socket) -> None:
        while True:
            try:
                heard, _ = listening.accept()
            except OSError:
                return
            with heard:
                heard.recv(65_536)
                heard.sendall(f"{head}\r\nContent-Type: application/json\r\n\r\n".encode())

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        config = UpstreamConfig(
            anthropic_url=f"http://127.0.0.1:{listening.getsockname()[1]}", silence_s=2
        )
        with serve_app(guard_app(RuleService(), config)) as url:
            got = httpx.post(
                f"{url}/v1/messages", json={"model": "m", "messages": SAID}, trust_env=False,
                headers={"x-workbench-key": KEY},
            )  # fmt: skip
        listening.shutdown(socket.SHUT_RDWR)
    assert got.status_code in (204, 502)


def test_a_ledger_that_is_stuck_keeps_no_revoked_key_alive(store, monkeypatch) -> None:
    add_model(store)
    key, secret = new_key(
        owner="anna", name="t", quota_credits_per_day=None, requests_per_minute=None
    )
    add_key(store.engine, key)

    def add(*_, **__):
        raise StoreError("a row that no database takes")

    async def whole() -> None:
        service = Service(ServeConfig(precision="float32"), store)
        await service.load()
        try:
            headers = {"x-api-key": secret.reveal()}
            await service.sanitize(["Hello"], key=await service.authorized(headers))
            monkeypatch.setattr(Ledger, "add", add)
            revoke_key(store.engine, key.id)
            ends_at = time.monotonic() + 10
            status = 200
            while status == 200 and time.monotonic() < ends_at:
                await asyncio.sleep(0.05)
                try:
                    await service.authorized(headers)
                except Refusal as refusal:
                    status = refusal.status_code
            assert status == 401
        finally:
            monkeypatch.undo()
            await service.close()

    asyncio.run(whole())
    assert sum(row.details.get("texts", 0) for row in store.ledger.rows()) == 1


def test_a_poll_that_fails_in_no_way_foreseen_goes_on_and_loses_no_row(
    store, monkeypatch, caplog
) -> None:
    add_model(store)
    looks = []

    async def whole() -> None:
        service = Service(ServeConfig(precision="float32", poll_s=0.01), store)

        async def load_newer():
            looks.append(1)
            raise RuntimeError("zanzibar")

        monkeypatch.setattr(service.models, "load_newer", load_newer)
        await service.load()
        await service.sanitize(["Hello"], key=ANYBODY)
        ends_at = time.monotonic() + 10
        while len(looks) < 3 and time.monotonic() < ends_at:
            await asyncio.sleep(0.01)
        await service.close()

    asyncio.run(whole())
    assert len(looks) >= 3
    assert "RuntimeError" in caplog.text
    assert "zanzibar" not in caplog.text
    assert sum(row.details.get("texts", 0) for row in store.ledger.rows()) == 1


def test_a_service_that_cannot_load_ends_and_says_why(store, monkeypatch) -> None:
    async def load(_):
        raise RuntimeError("a library of others")

    monkeypatch.setattr(Service, "load", load)

    async def whole() -> None:
        service = Service(ServeConfig(is_open=True, port=0), store)
        await asyncio.wait_for(_serve(service, None, "all"), 20)

    with pytest.raises(RuntimeError, match="of others"):
        asyncio.run(whole())


def test_the_second_signal_loses_no_row(store, monkeypatch) -> None:
    add_model(store)

    async def whole() -> None:
        service = Service(ServeConfig(is_open=True, port=0, precision="float32"), store)

        async def end(self):
            await service.load()
            await service.sanitize(["Hello"], key=ANYBODY)
            service.in_flight = 1  # somebody who does not go
            self.handle_exit(15, None)
            while not service.is_draining:
                await asyncio.sleep(0.01)
            self.handle_exit(15, None)

        monkeypatch.setattr(_Server, "_load", end)
        await asyncio.wait_for(_serve(service, None, "all"), 20)

    asyncio.run(whole())
    assert sum(row.details.get("texts", 0) for row in store.ledger.rows()) == 1


def test_broken_framing_is_no_second_request(store) -> None:
    """A length beside chunks, or two lengths: nobody else's request is made of the rest."""
    add_model(store)
    tricks = [
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Content-Length: 0\r\nContent-Length: 28\r\n\r\n",
        b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    ]
    service = Service(ServeConfig(is_open=True), store)
    with serve_app(make_app(service)) as url:
        port = int(url.rpartition(":")[2])
        for trick in tricks:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as line:
                line.sendall(
                    b"POST /v1/sanitize HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                    b"Content-Type: application/json\r\n" + trick
                    + b"GET /metrics HTTP/1.1\r\n\r\n"
                )  # fmt: skip
                line.shutdown(socket.SHUT_WR)
                answer = b"".join(iter(lambda: line.recv(65_536), b""))
            assert b"workbench_serving" not in answer, trick
            assert answer.startswith(b"HTTP/1.1 4"), (trick, answer[:60])


def test_bodies_that_are_too_large_together_are_told_to_come_later(upstream) -> None:
    async def answer(_):
        await asyncio.sleep(0.5)
        return web.json_response({})

    upstream.handler = answer
    service = RuleService()
    config = UpstreamConfig(anthropic_url=upstream.base_url)
    body = {"messages": SAID, "pad": "x" * 40_000}
    with serve_app(guard_app(service, config, max_held_bytes=100_000)) as url:

        def ask(statuses: list[int]) -> None:
            got = httpx.post(
                f"{url}/v1/messages", json=body, headers={"x-workbench-key": KEY}, trust_env=False
            )
            statuses.append(got.status_code)

        for _ in range(2):  # what one request held is there for the next
            statuses: list[int] = []
            threads = [threading.Thread(target=ask, args=(statuses,)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sorted(statuses) == [200, 200, 429, 429]
    assert service.refused == ["overload"] * 4


def test_an_error_of_the_guards_own_is_logged_by_its_kind_alone(store, caplog) -> None:
    with (
        LoopbackServer(answer=lambda _: "fine").serve_in_thread() as models,
        whole_service(store, models) as (url, service, key),
    ):
        httpx.get(f"{url}/readyz", trust_env=False)

        async def sanitize(*_, **__):
            raise KeyError("zanzibar")

        service.sanitize = sanitize
        got = httpx.post(
            f"{url}/v1/messages", json={"model": CLAUDE, "messages": SAID}, trust_env=False,
            headers={"x-api-key": key},
        )  # fmt: skip
    assert got.status_code == 500
    assert "KeyError at sanitize" in caplog.text
    assert "zanzibar" not in caplog.text + got.text
