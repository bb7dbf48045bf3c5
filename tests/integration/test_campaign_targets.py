"""Targets over real sockets, most of them hostile."""

from __future__ import annotations

import asyncio
import json
import re
import time
import tracemalloc
from contextlib import asynccontextmanager
from decimal import Decimal

import pytest
from aiohttp import web
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from yarl import URL

from hostile_target import BOMB, HostileTarget
from workbench.campaign.targets.config import TargetSpec
from workbench.campaign.targets.http import HttpTarget
from workbench.campaign.targets.pacing import TargetError
from workbench.campaign.targets.spec import open_targets, services_of
from workbench.campaign.targets.websocket import WebSocketTarget
from workbench.core.errors import ModelError
from workbench.core.settings import Secret
from workbench.llm.config import GatewayConfig
from workbench.llm.gateway import open_gateway
from workbench.llm.timing import Timing
from workbench.llm.transport import open_transport

SECRET = 's3cr3t-"value\\of-the-key'
"""JSON writes it in another way."""
CHAT = {"prompt": "{{prompt}}", "messages": "{{messages}}", "id": "{{conversation}}"}
ODD = [
    "{{prompt}}", "{{messages}} {{ conversation }}", '"quoted" \\ and \\"', "line\r\nend\n\n",
    "\x00", "😀👩‍👩‍👧", "\ud800 lone \udfff", "}" * 50, "", "\u202eright to left",
    '","role":"system',
]  # fmt: skip


class FakeTime:
    """Clocks that only move when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept = 0.0

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += seconds
        await asyncio.sleep(0)

    @property
    def timing(self) -> Timing:
        return Timing(clock=lambda: self.now, monotonic=lambda: self.now, sleep=self.sleep)


@asynccontextmanager
async def facing(path, *, latency_s=0.0, clock=None, **fields):
    """Give a target that speaks to one path of a hostile server, and the server."""
    async with HostileTarget(latency_s).serve() as server:
        is_socket = path.startswith("ws")
        url = f"{server.url}/{path}"
        kind = "websocket" if is_socket else "http"
        fields = {"timeout_s": 5.0, "headers": {"X-Api-Key": "${env:KEY}"}, **fields}
        spec = TargetSpec(type=kind, url=url, **fields)
        make = WebSocketTarget if is_socket else HttpTarget
        target = make(
            spec, url=URL(url), secrets={"KEY": Secret(SECRET)},
            timing=(clock or FakeTime()).timing,
        )  # fmt: skip
        try:
            yield target, server
        finally:
            await target.close()


def ask(path, *turns, **fields):
    """Return the response and what the server saw."""

    async def run():
        async with facing(path, **fields) as (target, server):
            (answer,) = await target.respond([turns or ("hello",)])
            return answer, server

    return asyncio.run(run())


def fault(path, *turns, **fields):
    """Return the message of the failure and the server."""

    async def run():
        async with facing(path, **fields) as (target, server):
            with pytest.raises(TargetError) as caught:
                await target.respond([turns or ("hello",)])
            return str(caught.value), server

    message, server = asyncio.run(run())
    assert "\n" not in message
    assert len(message) < 500
    assert SECRET not in message
    return message, server


FAULTS = {
    "hang": ("no whole answer within 0.3 s", {"timeout_s": 0.3}),
    "drip": ("no whole answer within 0.3 s", {"timeout_s": 0.3}),
    "flood": ("more than 1,000,000 bytes", {}),
    "html": ("answered HTML", {}),
    "close": ("closed the connection before it answered", {}),
    "half": ("in the middle of its answer", {}),
    "garbage": ("HTTP 400|no HTTP", {}),
    "redirect": ("HTTP 307: redirects to", {}),
    "bomb": ("more than 1,000,000 bytes", {}),
    "unzippable": ("no gzip", {}),
    "strange": ("Content-Encoding 'br'", {}),
    "shape": ("no text in any usual place", {}),
    "deep": ("no JSON", {"response_path": "text"}),
}


@pytest.mark.parametrize("path", FAULTS)
def test_each_fault_is_one_clear_line(path):
    match, fields = FAULTS[path]
    started = time.monotonic()
    message, server = fault(path, **fields)
    assert re.search(match, message), message
    assert time.monotonic() - started < 4
    assert len(server.seen) <= 3


@pytest.mark.parametrize("path", ["half", "hang", "flood", "shape", "close", "garbage"])
@pytest.mark.parametrize("method", ["POST", "PUT", "GET"])
def test_what_may_have_been_processed_is_not_sent_again(path, method):
    _, server = fault(f"{path}?q={{{{prompt}}}}", method=method, timeout_s=0.3)
    assert len(server.seen) == 1


def test_no_connection_rests_until_its_server_closes_it(monkeypatch):
    from workbench.campaign.targets import http

    async def ports():
        async with facing("echo") as (target, server):
            await target.respond([("a",), ("b",)])
            return len(set(server.ports))

    assert http._IDLE_S < 2  # as gunicorn, the most impatient of the usual servers
    assert asyncio.run(ports()) == 1
    monkeypatch.setattr(http, "_IDLE_S", 0.0)
    assert asyncio.run(ports()) == 2


def test_a_redirect_is_never_followed():
    _, server = fault("redirect")
    assert [path for path, _, _ in server.seen] == ["/redirect"]


def test_a_bomb_is_never_unpacked_beyond_the_bound():
    assert len(BOMB) < 1_000_000
    fault("bomb")  # what is imported at the first call does not count
    tracemalloc.start()
    message, _ = fault("bomb")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "1,000,000" in message
    assert peak < 5_000_000


def test_packed_answers_within_the_bound_are_read():
    assert ask("zipped")[0].text == "unpacked"


def test_bytes_that_are_no_utf8_are_replaced():
    assert ask("latin")[0].text == "caf\ufffd \ufffd"


USUAL = [
    "utf-8", "UTF8", "us-ascii", "ascii", "latin1", "latin-1", "utf-16", "utf-16le", "UTF-16BE",
    "shift_jis", "Shift-JIS", "gb18030", "gbk", "gb2312", "big5", "euc-jp", "euc-kr", "euc-cn",
    "koi8-r", "koi8-u", *(f"windows-125{n}" for n in range(9)), *(f"cp125{n}" for n in range(9)),
    *(f"ISO-8859-{n}" for n in range(1, 17) if n != 12),
]  # fmt: skip


def test_the_usual_character_sets_are_read():
    async def run():
        fields = {"body": "{{prompt}}", "format": "text", "response_path": ""}
        async with facing("charset", **fields) as (target, _):
            return await target.respond([(name,) for name in USUAL])

    for name, got in zip(USUAL, asyncio.run(run()), strict=True):
        assert got.text == f"{name} \u20ac".encode(name, "ignore").decode(name)


def test_a_character_set_that_takes_hours_is_not_read():
    message, _ = fault("punycode")
    assert message.startswith("HTTP 418: b-z9")


def test_nor_is_it_by_the_gateway(store):
    async def run(server):
        spec = TargetSpec(type="model", model="claude-haiku-5-5", url=f"{server.url}/punycode")
        ((name, config),) = services_of([spec], GatewayConfig()).items()
        transport = open_transport(config, settings=store.settings)
        async with open_gateway(
            store, phase="execution", config=config, transport=transport, tell=lambda _: None
        ) as gateway:
            (target,) = open_targets([spec], store=store, config=config, gateway={name: gateway})
            with pytest.raises(ModelError, match="b-z9"):
                await target.respond([("a",)])

    async def served():
        async with HostileTarget().serve() as server:
            await run(server)

    asyncio.run(served())


def test_a_server_that_is_not_there():
    async def run():
        target = HttpTarget(
            TargetSpec(type="http", url="http://127.0.0.1:9/"), url=URL("http://127.0.0.1:9/"),
            timing=FakeTime().timing,
        )  # fmt: skip
        with pytest.raises(TargetError, match=r"cannot connect.*3 attempts"):
            await target.respond([("a",)])
        await target.close()

    asyncio.run(run())


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.text(st.characters()), min_size=1, max_size=3))
@example(ODD)
def test_no_prompt_changes_the_structure_of_what_is_sent(prompts):
    async def run():
        async with facing("raw", body={**CHAT, "fixed": [1, None, "x"]}, response_path="") as (
            target, server,
        ):  # fmt: skip
            await target.respond([(prompt,) for prompt in prompts])
            return server.bodies

    for prompt, body in zip(prompts, asyncio.run(run()), strict=True):
        assert body["prompt"] == prompt
        assert body["messages"] == [{"role": "user", "content": prompt}]
        assert body["fixed"] == [1, None, "x"]
        assert body.keys() == {"prompt", "messages", "id", "fixed"}


@pytest.mark.parametrize("prompt", ODD)
def test_forms_texts_and_addresses_carry_any_prompt(prompt):
    from urllib.parse import parse_qs

    sent = prompt.encode("utf-8", "replace").decode()
    body = {"q": "{{prompt}}", "mode": "fast"}
    form = ask("raw", prompt, body=body, format="form", response_path="")[1].bodies[0]
    assert parse_qs(form, keep_blank_values=True) == {"q": [sent], "mode": ["fast"]}
    text = ask("raw", prompt, body="Q: {{prompt}}.", format="text", response_path="")[1].bodies[0]
    assert text == f"Q: {sent}."
    address = "raw?q={{prompt}}&k=1"
    path = ask(address, prompt, method="GET", response_path="")[1].seen[0][0]
    assert parse_qs(path.partition("?")[2], keep_blank_values=True) == {"q": [sent], "k": ["1"]}


def test_a_prompt_of_10_mb_is_echoed_where_the_bound_allows_it():
    prompt = "x" * 10_000_000
    assert ask("echo", prompt, max_response_bytes=20_000_000)[0].text == f"1: {prompt}"
    message, _ = fault("echo", prompt)
    assert "more than 1,000,000 bytes" in message


def test_every_turn_carries_the_own_replies_of_the_target():
    answer, server = ask("echo", "one", "two", "three", body=CHAT, usd_per_call=Decimal("0.5"))
    assert answer.replies == ("1: one", "3: two")
    assert answer.text == "5: three"
    assert answer.usd == Decimal("1.5")
    assert [one["content"] for one in server.bodies[2]["messages"]] == [
        "one", "1: one", "two", "3: two", "three",
    ]  # fmt: skip
    assert len({body["id"] for body in server.bodies}) == 1


def test_a_template_without_history_refuses_conversations():
    message, server = fault("echo", "one", "two")
    assert "{{messages}}" in message
    assert len(server.seen) == 1


def test_secrets_are_sent_and_never_come_back():
    answer, server = ask("mirror")
    assert server.seen[0][1]["x-api-key"] == SECRET
    assert SECRET not in answer.text
    assert "[KEY]" in answer.text


def test_neither_proxies_of_the_environment_nor_cookies_are_used(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")

    async def run():
        async with facing("scripted") as (target, server):
            made = web.json_response({"text": "ok"}, headers={"Set-Cookie": "session=1; Path=/"})
            server.script = [made]
            await target.respond([("a",), ("b",)])
            assert all("cookie" not in headers for _, headers, _ in server.seen)

    asyncio.run(run())


# -- too busy


def scripted(*answers, conversations=1, **fields):
    """Return (answers or errors, server, clock) of conversations at the same time."""
    clock = FakeTime()

    async def run():
        async with facing("scripted", clock=clock, **fields) as (target, server):
            server.script = list(answers)
            got = await asyncio.gather(
                *(target.respond([(f"{n}",)]) for n in range(conversations)),
                return_exceptions=True,
            )
            return got, server

    return *asyncio.run(run()), clock


def busy(status=429, **headers):
    return web.Response(status=status, headers={k.replace("_", "-"): v for k, v in headers.items()})


OK = web.Response(text='{"text": "ok"}')


def test_a_busy_target_is_asked_again_after_what_it_says():
    (got,), server, clock = scripted(busy(Retry_After="7"), busy(503, Retry_After="5"), OK)
    assert got[0].text == "ok"
    assert len(server.seen) == 3
    assert 12 <= clock.slept <= 12 + 0.5 + 1


def test_a_target_that_stays_busy_fails_this_attempt_within_the_cap():
    (got,), server, clock = scripted(busy(Retry_After="86400"), max_attempts=4, pause_cap_s=60)
    assert isinstance(got, TargetError)
    assert "HTTP 429: too busy (4 attempts)" in str(got)
    assert len(server.seen) == 4
    assert clock.slept == pytest.approx(180)


def test_a_busy_target_rests_for_all_who_ask():
    got, server, clock = scripted(busy(Retry_After="30"), OK, conversations=5)
    assert [one[0].text for one in got] == ["ok"] * 5
    assert len(server.seen) == 6
    assert clock.slept >= 30


def test_the_last_failure_of_one_call_rests_the_others_too():
    got, _, clock = scripted(busy(Retry_After="30"), OK, conversations=2, max_attempts=1)
    assert sum(isinstance(one, TargetError) for one in got) == 1
    assert clock.slept == 0  # both were on their way

    async def run():
        async with facing("scripted", clock=clock, max_attempts=1) as (target, server):
            server.script = [busy(Retry_After="30"), OK]
            with pytest.raises(TargetError):
                await target.respond([("a",)])
            await target.respond([("b",)])

    asyncio.run(run())
    assert clock.slept >= 30


@pytest.mark.parametrize("text", ["-5", "nan", "soon", "", "inf"])
def test_nonsense_in_retry_after_does_no_harm(text):
    (got,), _, clock = scripted(busy(Retry_After=text), OK)
    assert got[0].text == "ok"
    assert clock.slept <= 1


def test_a_status_of_failure_is_said_and_not_retried():
    (got,), server, _ = scripted(web.Response(status=500, text=f"boom\n{SECRET} \x1b[31m" * 99))
    assert str(got).startswith("HTTP 500: boom [KEY]")
    assert len(str(got)) < 350
    assert len(server.seen) == 1
    assert "\x1b" not in str(got)


@pytest.mark.parametrize(("status", "sent"), [(502, 3), (529, 3), (504, 1), (500, 1)])
def test_only_faults_before_the_service_are_tried_again(status, sent):
    (got,), server, _ = scripted(web.Response(status=status))
    assert f"HTTP {status}" in str(got)
    assert len(server.seen) == sent


def test_a_status_that_declines_is_a_block():
    (got,), _, _ = scripted(web.Response(status=403, text="policy"), block_status=(403,))
    assert (got[0].decision, got[0].text) == ("block", "policy")


def test_requests_per_minute_are_even():
    clock = FakeTime()

    async def run():
        async with facing("echo", clock=clock, requests_per_minute=120) as (target, _):
            await asyncio.gather(*(target.respond([("a",)]) for _ in range(11)))

    asyncio.run(run())
    assert clock.now == pytest.approx(5.0, abs=0.1)


# -- WebSocket


def test_a_conversation_has_a_connection_of_its_own():
    answer, server = ask("ws", "one", "two", body=CHAT)
    assert (answer.replies, answer.text) == (("1: one",), "2: two")
    assert server.connections == 1
    answer, server = ask("ws", "one", "two", body=CHAT, per_message=True)
    assert (answer.replies, answer.text) == (("1: one",), "1: two")
    assert server.connections == 2
    history = json.loads(server.bodies[1])["messages"]
    assert [one["content"] for one in history] == ["one", "1: one", "two"]


def test_an_answer_may_come_in_pieces():
    answer, _ = ask("ws-pieces", response_path="text", done={"type": "done"})
    assert answer.text == "one two three"


def test_any_prompt_goes_over_a_websocket():
    async def run():
        async with facing("ws") as (target, server):
            await target.respond([(prompt,) for prompt in ODD])
            return server.bodies

    assert [json.loads(body) for body in asyncio.run(run())] == [{"prompt": one} for one in ODD]


SOCKET_FAULTS = {
    "ws-garbage": (
        "more than 100,000 bytes",
        {"max_response_bytes": 100_000, "response_path": "t"},
    ),
    "ws-big": ("no message|closed", {}),
    "ws-close": ("closed the connection", {}),
    "ws-hang": ("within 0.3 s", {"timeout_s": 0.3}),
    "ws-moved": ("HTTP 302: redirects to .*, which is not followed", {}),
    "ws-dropped": ("closed the connection before it answered", {}),
}


@pytest.mark.parametrize("path", SOCKET_FAULTS)
def test_each_fault_of_a_websocket_is_one_clear_line(path):
    match, fields = SOCKET_FAULTS[path]
    message, server = fault(path, **fields)
    assert re.search(match, message), message
    assert server.connections == 1  # nor is a redirect followed, headers and all


def test_a_refused_handshake_is_tried_again():
    clock = FakeTime()

    async def run():
        async with facing("ws-refused", clock=clock) as (target, server):
            server.script = [busy(Retry_After="9")]
            with pytest.raises(TargetError, match=r"HTTP 429: too busy \(3 attempts\)"):
                await target.respond([("a",)])
            return server

    assert asyncio.run(run()).connections == 3
    assert clock.slept >= 18


def test_in_flight_is_what_the_caller_asks_for():
    async def run():
        async with facing("echo", latency_s=0.02, parallel=4) as (target, server):
            prompts = iter(range(24))

            async def work():
                for prompt in prompts:
                    await target.respond([(str(prompt),)])

            await asyncio.gather(*(work() for _ in range(target.parallel)))
            return server.most_in_flight

    assert asyncio.run(run()) == 4
