"""The gateway against the loopback server, with Anthropic's own client between them."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal

import pytest

from llm_workloads import (
    KEY,
    Work,
    digest,
    flights_of,
    ledger_of,
    request,
    served,
    spent,
    start,
    variables,
)
from machine import require
from model_calls import bill, flight, settlement
from workbench.core.errors import BudgetError, InputError, ModelError, StoreError
from workbench.core.settings import read_settings
from workbench.llm.config import GatewayConfig, Rates, Savings
from workbench.llm.gateway import open_gateway
from workbench.llm.loopback import Faults, LoopbackServer
from workbench.llm.messages import MAX_PROMPT_BYTES, Request
from workbench.store.budgets import Budgets
from workbench.store.calls import Calls
from workbench.store.database import open_store
from workbench.store.journal import Journal

QUICK = Rates(retry_after_cap_s=0.02, max_attempts=10, timeout_s=20)
ISSUE = {"429": 0.05, "529": 0.03, "drop": 0.02, "malformed": 0.01}


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)


def serve(**options):
    return LoopbackServer(**options).serve_in_thread()


def use(store, server, job, *, work="work-1", phase="generation", **config):
    """Run ``job(gateway)`` against a server."""
    config = {"base_url": server.base_url, "rates": QUICK} | config

    async def run():
        async with open_gateway(
            store, phase=phase, work=work, config=GatewayConfig(**config), tell=lambda _: None
        ) as gateway:
            return await job(gateway)

    return asyncio.run(run())


def maps(count, **changes):
    return lambda gateway: gateway.map([request(n, **changes) for n in range(count)])


def answered(outcomes):
    return [one.text for one in outcomes if not isinstance(one, ModelError)]


# -- 1: the same dollars on both sides


def test_dollars_equal_the_servers_under_faults(store, tmp_path):
    faults = ",".join(f"{name}={share}" for name, share in ISSUE.items())
    with served(tmp_path, faults=faults, latency_s=0.01, seed=1) as server:
        env = variables(store.home, {
            "base_url": server.url, "savings": {"parallel": 64},
            "rates": {"retry_after_cap_s": 0.5, "max_attempts": 10},
        })  # fmt: skip
        process = start(Work(count=1000), env)
        out, err = process.communicate(timeout=120)
        rows, answered_usd, total_usd = server.rows(), server.answered_usd(), server.total_usd()
    assert process.returncode == 0, err
    assert spent(ledger_of(store, "sent")) == answered_usd == total_usd
    faulty = Counter(row["fault"] for row in rows)
    losses = Counter(row["prompt_sha256"] for row in rows if row["fault"] in {"drop", "malformed"})
    given_up = {prompt for prompt, times in losses.items() if times == 3}  # rarely any
    texts = json.loads(out.splitlines()[-1])["texts"]
    assert {digest(n) for n, text in enumerate(texts) if not text} == given_up
    assert len(ledger_of(store, "lost")) == faulty["drop"] + faulty["malformed"] > 0
    assert len(ledger_of(store, "sent")) == 1000 - len(given_up)
    assert faulty["429"] > 0
    assert faulty["529"] > 0
    assert flights_of(store) == 0


def test_lost_answers_that_were_billed_are_covered(store):
    names = ("drop_after", "truncated", "malformed", "html", "wrong_schema", "stream_drop")
    faults = Faults(rates=dict.fromkeys(names, 0.01), lost_answers_bill=True)
    with serve(faults=faults, seed=2) as server:
        outcomes = use(store, server, maps(400), savings=Savings(parallel=64))
        lost_by_server = [row for row in server.ledger.rows if not row.is_answered]
        billed = server.ledger.total_usd()
        assert spent(ledger_of(store, "sent")) == server.ledger.answered_usd()
    times_lost = Counter(row.prompt_sha256 for row in lost_by_server)
    given_up = sum(times == 3 for times in times_lost.values())  # by then it has cost enough
    assert max(times_lost.values()) <= 3
    assert len(answered(outcomes)) == 400 - given_up
    sent, lost = ledger_of(store, "sent"), ledger_of(store, "lost")
    assert len(lost) == len(lost_by_server) > 10
    assert spent(sent) < billed <= spent(sent + lost)
    assert flights_of(store) == 0


@pytest.mark.parametrize("fault", ["early_end", "stream_drop", "malformed", "wrong_schema"])
def test_a_spoiled_stream_is_charged_and_asked_again_unless_it_was_shown(store, fault):
    shown = []
    with serve(faults=Faults(script=[fault], lost_answers_bill=True)) as server:

        async def job(gateway):
            try:
                return await gateway.ask(request(1), on_text=shown.append)
            except ModelError as error:
                return error

        outcome = use(store, server, job)
        billed = server.ledger.total_usd()
    sent, lost = ledger_of(store, "sent"), ledger_of(store, "lost")
    assert len(lost) == 1
    assert isinstance(outcome, ModelError) == (not sent)
    assert sent or shown
    assert spent(sent) <= billed <= spent(sent + lost)


# -- 2: budgets


SCOPES = {
    "run": Budgets(run=Decimal("0.001")),
    "phase": Budgets(phase={"generation": Decimal("0.001")}),
    "experiment": Budgets(experiment=Decimal("0.001")),
    "day": Budgets(day=Decimal("0.001")),
    "user": Budgets(user=Decimal("0.001")),
}


@pytest.mark.parametrize("scope", SCOPES)
def test_no_budget_is_exceeded_by_256_callers(store, scope):
    budgets, limit = SCOPES[scope], Decimal("0.001")
    faults = Faults(rates={"drop_after": 0.02, "429": 0.05}, lost_answers_bill=True)

    async def job(gateway):
        asks = (gateway.ask(request(n)) for n in range(256))
        return await asyncio.gather(*asks, return_exceptions=True)

    with serve(faults=faults, latency_s=0.002) as server:
        savings = Savings(parallel=64)
        outcomes = use(store, server, job, savings=savings, budgets=budgets)
        denied = [one for one in outcomes if isinstance(one, BudgetError)]
        assert denied
        assert "0.001" in str(denied[0])
        requests, billed = server.requests, server.ledger.total_usd()
        assert limit * Decimal("0.9") < spent(store.ledger.rows()) <= limit
        assert billed <= limit
        again = use(store, server, job, savings=savings, budgets=budgets)
        assert server.requests - requests <= 20  # what is left buys next to nothing
        assert len(answered(one for one in again if not isinstance(one, BudgetError))) >= len(
            outcomes
        ) - len(denied)
        more = Budgets(run=Decimal(1), day=Decimal(1))
        outcomes = use(store, server, job, savings=savings, budgets=more)
        assert len(answered(outcomes)) == 256
    assert flights_of(store) == 0


def test_four_processes_share_one_budget(store, tmp_path):
    limit = Decimal("0.002")
    with served(tmp_path, latency_s=0.005) as server:
        llm = {
            "base_url": server.url, "budgets": {"experiment": str(limit)},
            "savings": {"parallel": 64},
        }  # fmt: skip
        works = [Work(count=256, first=256 * n, name=f"w{n}", callers=256) for n in range(4)]
        processes = [
            start(work, variables(store.home, llm, run=f"run-{n}")) for n, work in enumerate(works)
        ]
        errors = [process.communicate(timeout=120)[1] for process in processes]
        billed = server.total_usd()
    assert [process.returncode for process in processes] == [3] * 4
    assert all("the budget of experiment trial is $0.002" in error for error in errors)
    assert limit * Decimal("0.9") < billed <= limit
    assert spent(ledger_of(store, "sent")) <= billed
    assert spent(store.ledger.rows()) <= limit
    assert flights_of(store) == 0


def test_money_held_by_calls_in_flight_is_waited_for(store):
    with serve(latency_s=0.01) as server:
        [one] = use(store, server, maps(1))
        worst = Decimal("0.0001")  # of each, far above what it then costs
        assert one.usd < worst
        budget = Budgets(experiment=worst * 3)
        outcomes = use(store, server, maps(8, variant=1), budgets=budget)
        assert len(answered(outcomes)) == 8


# -- 3: in flight


@pytest.mark.parametrize("parallel", [1, 5, 32])
def test_never_more_in_flight_than_allowed(store, parallel):
    system = "You know a lot about it. " * 400
    faults = Faults(rates={"529": 0.1, "drop": 0.05})

    async def job(gateway):
        plain = [gateway.ask(request(n, variant=1)) for n in range(60)]
        streams = [gateway.ask(request(n, variant=2), on_text=lambda _: None) for n in range(20)]
        mapped = gateway.map([request(n, system=system) for n in range(60)])
        return await asyncio.gather(mapped, *plain, *streams, return_exceptions=True)

    with serve(faults=faults, latency_s=0.01) as server:
        use(store, server, job, savings=Savings(parallel=parallel))
        assert min(parallel, 5) <= server.max_in_flight_seen <= parallel


# -- 5: processes that ask the same


def test_processes_that_ask_the_same_buy_it_once(store, tmp_path):
    with served(tmp_path, latency_s=0.02) as server:
        env = variables(store.home, {"base_url": server.url, "savings": {"parallel": 8}})
        processes = [start(Work(count=100, name=f"w{n}"), env) for n in range(2)]
        texts = [json.loads(one.communicate(timeout=60)[0].splitlines()[-1]) for one in processes]
        asked = server.asked()
    assert texts[0]["texts"] == texts[1]["texts"]
    assert asked == {digest(n): 1 for n in range(100)}
    assert len(ledger_of(store, "sent")) == 100


@pytest.fixture
def redis(tmp_path):
    program = require("redis", "redis-server")
    path = tmp_path / "r.sock"
    process = subprocess.Popen(
        [program, "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(tmp_path)],
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                break
        time.sleep(0.02)
    yield f"unix://{path}"
    process.kill()
    process.wait()


def test_stores_that_share_a_redis_buy_it_once(tmp_path, redis):
    with served(tmp_path, latency_s=0.02) as server:
        llm = {"base_url": server.url, "savings": {"parallel": 8}}
        processes = [
            start(Work(count=100), variables(tmp_path / name, llm, WORKBENCH_CACHE_URL=redis))
            for name in ("a", "b")
        ]
        texts = [json.loads(one.communicate(timeout=60)[0].splitlines()[-1]) for one in processes]
        asked = server.asked()
    assert texts[0]["texts"] == texts[1]["texts"]
    assert asked == {digest(n): 1 for n in range(100)}


# -- 6 and 7: keys and hostile servers


@contextmanager
def hostile(answer):
    """Serve one raw HTTP answer (bytes, or a function that writes to the socket) to everybody."""
    listener = socket.create_server(("127.0.0.1", 0))
    requests = []

    def one(connection):
        with connection:
            connection.settimeout(5)
            data = b""
            while b"\r\n\r\n" not in data:
                data += connection.recv(65536)
            if data.startswith(b"GET / "):  # whether it is a loopback server of ours
                connection.sendall(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
                return
            head, _, body = data.partition(b"\r\n\r\n")
            wanted = int(head.lower().partition(b"content-length:")[2].split()[0])
            while len(body) < wanted:
                body += connection.recv(65536)
            requests.append(head)
            try:
                answer(connection) if callable(answer) else connection.sendall(answer)
            except OSError:
                return

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()

    class Server:
        base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        heads = requests

    try:
        yield Server
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def http(body, *, status="200 OK", kind="application/json", headers=""):
    data = body if isinstance(body, bytes) else body.encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(data)}\r\n"
    return f"{head}{headers}connection: close\r\n\r\n".encode() + data


def message(text="fine", *, usage=None, **changes):
    body = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-haiku-5-5",
        "content": [{"type": "text", "text": text}], "stop_reason": "end_turn",
        "stop_sequence": None, "usage": {"input_tokens": 9, "output_tokens": 5} | (usage or {}),
    }  # fmt: skip
    return json.dumps(body | changes)


ONCE = replace(QUICK, max_attempts=1, timeout_s=5)


def ask_hostile(store, answer, rates=ONCE, **changes):
    """Return the answer, or the error, to one request."""

    async def job(gateway):
        try:
            return await gateway.ask(request(1, **changes))
        except ModelError as error:
            return error

    with hostile(answer) as server:
        return use(store, server, job, rates=rates)


LEAKS = {
    "401": http(json.dumps({"type": "error", "error": {"type": "authentication_error",
        "message": f"invalid x-api-key {KEY}"}}), status="401 Unauthorized"),
    "500": http(f"failed for {KEY}\n{KEY}", status=f"500 {KEY}", kind="text/plain"),
    "html": http(f"<html>{KEY}</html>", kind="text/html"),
    "malformed": http(f'{{"x-api-key": "{KEY}"'),
    "schema": http(message(type=KEY, stop_reason=KEY, usage={"input_tokens": KEY})),
    "headers": http(message(), headers=f"request-id: {KEY}\r\nanthropic-ratelimit-requests-limit:"
        f" {KEY}\r\nset-cookie: k={KEY}\r\nlocation: http://x/{KEY}\r\n"),
    "redirect": http("", status="302 Found", headers=f"location: http://127.0.0.1:9/{KEY}\r\n"),
    "echo": http(message(f"your key is {KEY}", model=KEY)),
    "cut": http(message())[:-20],
}  # fmt: skip


@pytest.mark.parametrize("leak", LEAKS)
def test_a_key_is_nowhere(store, caplog, capfd, leak):
    caplog.set_level(logging.DEBUG)
    outcome = ask_hostile(store, LEAKS[leak])
    store.engine.dispose()
    texts = [repr(outcome), str(outcome), caplog.text, *capfd.readouterr()]
    error = outcome if isinstance(outcome, Exception) else None
    while error:
        texts += [str(error), repr(error), repr(vars(error))]
        error = error.__cause__ or error.__context__
    assert not [text for text in texts if KEY in text]
    files = [file for file in store.home.rglob("*") if file.is_file()]
    assert files
    assert not [file for file in files if KEY.encode() in file.read_bytes()]


ABSURD = {
    "negative": {"input_tokens": -5},
    "huge": {"output_tokens": 10**12},
    "huge cache": {"cache_read_input_tokens": 10**15},
    "beyond integers": {"input_tokens": 10**400},
    "text": {"input_tokens": "many"},
    "nothing": {"input_tokens": None},
    "fraction": {"output_tokens": 0.5},
}


@pytest.mark.parametrize("usage", ABSURD.values(), ids=ABSURD)
def test_usage_that_cannot_be_is_not_booked(store, usage):
    outcome = ask_hostile(store, http(message(usage=usage)))
    assert isinstance(outcome, ModelError)
    [lost] = store.ledger.rows()
    assert lost.estimated
    assert 0 < lost.usd < 1
    assert flights_of(store) == 0


MALFORMED = {
    "nan": http(message().replace("9,", "NaN,")),
    "infinity": http(message().replace("9,", "Infinity,")),
    "deep": http("[" * 200_000),
    "deep object": http('{"a":' * 100_000),
    "null": http("null"),
    "number": http("7"),
    "list": http("[]"),
    "empty": http(""),
    "bytes": http(b"\xff\xfe\x00\x00"),
    "text kind": http("hello", kind="text/plain"),
    "image kind": http(b"\x89PNG", kind="image/png"),
    "no status": b"hello\r\n\r\n",
    "huge header": http(message(), headers="x: " + "y" * 200_000 + "\r\n"),
    "bad length": b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n{}",
    "bad gzip": http(b"hello", headers="content-encoding: gzip\r\n"),
}


@pytest.mark.parametrize("answer", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_answer_is_charged_as_lost(store, answer):
    outcome = ask_hostile(store, answer)
    assert isinstance(outcome, ModelError)
    assert "\n" not in str(outcome)
    assert len(str(outcome)) < 600
    [lost] = store.ledger.rows()
    assert lost.estimated
    assert flights_of(store) == 0


@pytest.mark.parametrize(
    "text",
    ["a \ud800 b", "\udc80", "\0 \x1b[31m \r\n", "\u202e\u2028\ufeff", "é" * 50, " ", "x" * 10**7],
    ids=["high", "low", "control", "marks", "accents", "blank", "10 MB"],
)  # fmt: skip
def test_any_text_is_kept_and_comes_back(store, text):
    async def twice(gateway):
        return [await gateway.ask(request(1)) for _ in range(2)]

    with hostile(http(message(text))) as server:
        bought, again = use(store, server, twice, rates=ONCE)
        assert len(server.heads) == 1
    assert bought.text == text
    assert (again.text, again.outcome) == (text, "hit")


def test_an_unknown_stop_reason_is_charged_as_lost(store):
    outcome = ask_hostile(store, http(message(stop_reason="invented_later")))
    assert isinstance(outcome, ModelError)
    [lost] = store.ledger.rows()
    assert lost.estimated


@pytest.mark.parametrize("wait", ["1e9", "9" * 400, "-1", "nan", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_no_wait_is_longer_than_its_cap(store, wait):
    busy = http("{}", status="429 Busy", headers=f"retry-after: {wait}\r\n")
    began = time.monotonic()
    outcome = ask_hostile(store, busy, rates=replace(QUICK, max_attempts=3))
    assert isinstance(outcome, ModelError)
    assert time.monotonic() - began < 3
    assert store.ledger.rows() == []


def slowly(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")
    for _ in range(200):
        connection.sendall(b" ")
        time.sleep(0.02)


def endlessly(connection):
    connection.sendall(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n"')
    while True:
        connection.sendall(b"x" * 2**20)


def events_endlessly(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
    event = b'event: ping\ndata: {"type": "ping"}\n\n' * 1000
    while True:
        connection.sendall(event)


def test_an_answer_that_never_ends_is_given_up(store):
    began = time.monotonic()
    outcome = ask_hostile(store, slowly, rates=replace(ONCE, timeout_s=0.5))
    assert isinstance(outcome, ModelError)
    assert "timeout" in str(outcome)
    assert time.monotonic() - began < 3
    assert len(ledger_of(store, "lost")) == 1


def test_an_answer_without_end_does_not_fill_the_memory(store):
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome = ask_hostile(store, endlessly, rates=replace(ONCE, timeout_s=20))
    assert isinstance(outcome, ModelError)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000
    assert len(ledger_of(store, "lost")) == 1


def test_a_stream_without_end_is_given_up(store):
    async def job(gateway):
        with pytest.raises(ModelError):
            await gateway.ask(request(1), on_text=lambda _: None)

    with hostile(events_endlessly) as server:
        use(store, server, job, rates=replace(ONCE, timeout_s=1))
    assert len(ledger_of(store, "lost")) == 1
    assert flights_of(store) == 0


# -- 8: bad input


BAD = {
    "empty": lambda: Request(prompt=" \n"),
    "lone surrogate": lambda: Request(prompt="a \ud800"),
    "lone surrogate in the system text": lambda: Request(prompt="a", system="\udfff"),
    "lone surrogate in the schema": lambda: Request(prompt="a", schema={"title": "\ud800"}),
    "lone surrogate in the task": lambda: Request(prompt="a", task="\ud800"),
    "lone surrogate in the namespace": lambda: Request(prompt="a", namespace="\ud800"),
    "lone surrogate in the model": lambda: Request(prompt="a", model="\ud800"),
    "10 MB": lambda: Request(prompt="word " * 2_000_000),
    "longer than the window": lambda: Request(
        prompt="w " * (MAX_PROMPT_BYTES // 2 - 10), model="claude-haiku-4-5"
    ),
    "unknown model": lambda: Request(prompt="a", model="claude-none"),
    "unknown task": lambda: Request(prompt="a", task="poetry"),
    "schema that is none": lambda: Request(prompt="a", schema={"type": object()}),
}


@pytest.mark.parametrize("make", BAD.values(), ids=BAD)
def test_bad_input_is_refused_before_anything_is_spent(store, make):
    async def job(gateway):
        await gateway.ask(make())

    with serve() as server:
        with pytest.raises(InputError) as refusal:
            use(store, server, job)
        assert server.requests == 0
    assert refusal.value.exit_code == 2
    assert "\n" not in str(refusal.value)
    str(refusal.value).encode()
    assert store.ledger.rows() == []
    assert flights_of(store) == 0


# -- batches


BATCHES = Savings(batches=True)


class Killed(BaseException):
    """As good as a kill: nothing after it happens."""


def use_and_die(store, server, count, monkeypatch):
    """Submit a batch and die before its name is noted."""

    def die(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Calls, "update_batch", die)
        with pytest.raises(BaseExceptionGroup):
            use(store, server, maps(count), savings=BATCHES)


@pytest.mark.parametrize("is_first", [True, False])
def test_another_users_batch_of_the_same_size_is_not_taken_for_ours(
    store, tmp_path, monkeypatch, is_first
):
    home = {"WORKBENCH_HOME": str(tmp_path / "other"), "WORKBENCH_USER": "another"}
    other = open_store(read_settings(home))
    with serve() as server:

        def strange():
            use(other, server, maps(5, variant=1, max_tokens=20), savings=BATCHES)

        if is_first:
            strange()
        use_and_die(store, server, 5, monkeypatch)
        if not is_first:
            strange()
        outcomes = use(store, server, maps(5), savings=BATCHES)
        assert len(answered(outcomes)) == 5
        assert len(server.ledger.rows) == 10
        both = spent(store.ledger.rows()) + spent(other.ledger.rows())
        assert both == server.ledger.total_usd()
    assert flights_of(store) == 0
    other.engine.dispose()


def test_a_batch_waits_for_who_asks_for_a_part_of_it(store, monkeypatch):
    with serve() as server:
        use_and_die(store, server, 4, monkeypatch)
        # the same work asks for other things first, then for a part of it
        use(store, server, maps(3, variant=1), savings=BATCHES)
        assert flights_of(store) == 1
        use(store, server, maps(2), savings=BATCHES)
        assert flights_of(store) == 0
        assert spent(ledger_of(store, "batch")) == server.ledger.total_usd()
        assert len(answered(use(store, server, maps(4), savings=BATCHES))) == 4
        assert len(server.ledger.rows) == 7
        assert spent(ledger_of(store, "batch")) == server.ledger.total_usd()


def test_a_rule_answers_within_batches_too(store):
    requests = [request(1), request(2, task="risk_score"), request(3)]
    with serve() as server:
        outcomes = use(
            store, server, lambda one: one.map(requests, rule=lambda _: "low"), savings=BATCHES
        )
        assert len(server.ledger.rows) == 2
    assert [one.outcome for one in outcomes] == ["batch", "rule", "batch"]


def test_faults_of_a_batch_bill_nothing(store):
    faults = Faults(rates={"errored": 0.2, "expired": 0.2})
    with serve(faults=faults, seed=3) as server:
        outcomes = use(store, server, maps(50), savings=BATCHES)
        failed = len(outcomes) - len(answered(outcomes))
        assert 0 < failed < 50
        assert spent(store.ledger.rows()) == server.ledger.total_usd()
        again = use(store, server, maps(50), savings=BATCHES)
        assert len(answered(again)) > len(answered(outcomes))
        assert spent(store.ledger.rows()) == server.ledger.total_usd()
    assert flights_of(store) == 0


# -- what the store cannot take or give


def test_a_damaged_answer_in_the_store_is_named(store):
    with serve() as server:
        use(store, server, maps(1))
        with store.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE responses SET answer = '{\"text\": 7}'")
        with pytest.raises(StoreError, match="is damaged; remove that row"):
            use(store, server, maps(1))
        assert server.requests == 1


def test_what_does_not_fit_the_store_takes_nothing_else_along(store):
    async def settle_together():
        journal = Journal(store.calls, Budgets())
        flights = [flight(id=f"f{n}") for n in range(5)]
        await asyncio.gather(*map(journal.claim, flights))
        ends = [settlement(one) for one in flights]
        ends[2] = replace(ends[2], rows=(bill("1", job="\ud800"),))
        done = await asyncio.gather(*map(journal.settle, ends), return_exceptions=True)
        journal.close()
        return done

    done = asyncio.run(settle_together())
    assert [type(one).__name__ for one in done] == ["NoneType"] * 2 + ["StoreError"] + [
        "NoneType"
    ] * 2
    assert len(store.ledger.rows()) == 4
    assert flights_of(store) == 1


def test_a_service_that_cannot_be_warmed_up_still_answers(store):
    system = "You know a lot about it. " * 400
    rates = replace(QUICK, max_attempts=2)
    with serve(faults=Faults(script=["503", "503"])) as server:
        outcomes = use(store, server, maps(5, system=system), rates=rates)
        assert server.requests == 7
    assert len(answered(outcomes)) == 5


def test_who_asks_for_many_at_once_holds_no_more_money_than_map_does(store):
    async def job(gateway):
        asks = [asyncio.create_task(gateway.ask(request(n))) for n in range(100)]
        most = 0
        while not all(one.done() for one in asks):
            most = max(most, flights_of(store))
            await asyncio.sleep(0.005)
        return most

    with serve(latency_s=0.02) as server:
        most = use(store, server, job, savings=Savings(parallel=8))
    assert 8 <= most <= 16  # a kill charges them all


# -- 9: limits


def test_a_service_that_heals_is_asked_again(store):
    rates = replace(QUICK, breaker_failures=5, breaker_rest_s=0.05, max_attempts=30)
    with serve(faults=Faults(script=["529"] * 12)) as server:
        outcomes = use(store, server, maps(40), rates=rates, savings=Savings(parallel=4))
        assert len(answered(outcomes)) == 40
        assert server.requests == 52


def test_a_service_that_stays_dead_is_left_alone(store):
    rates = replace(QUICK, breaker_failures=5, breaker_rest_s=0.02, max_attempts=3)
    with serve(faults=Faults(rates={"503": 1.0})) as server:
        outcomes = use(store, server, maps(100), rates=rates, savings=Savings(parallel=4))
        assert server.requests < 30
    assert all(isinstance(one, ModelError) for one in outcomes)
    assert "has failed for" in str(outcomes[-1])
    assert store.ledger.rows() == []
    assert flights_of(store) == 0


def test_one_dead_key_of_three_costs_one_request(store, monkeypatch):
    monkeypatch.setenv("WORKBENCH_ANTHROPIC_KEYS", f"{KEY},another,third")
    with serve(faults=Faults(script=["401"])) as server:
        outcomes = use(store, server, maps(30), savings=Savings(parallel=4))
        keys = Counter(row.key for row in server.ledger.rows)
        refused = [row.key for row in server.ledger.rows if row.status == 401]
    assert len(answered(outcomes)) == 30
    assert len(refused) == 1
    assert keys[refused[0]] <= 4  # whatever was with the service already
    assert len(keys) == 3
    assert KEY not in str(outcomes)


def test_the_services_limits_are_learned_without_a_storm(store):
    with serve(requests_per_minute=600) as server:  # 10 each second after the first 600
        rates = replace(QUICK, retry_after_cap_s=2.0)
        outcomes = use(store, server, maps(615), rates=rates, savings=Savings(parallel=32))
        refused = [row for row in server.ledger.rows if row.status == 429]
    assert len(answered(outcomes)) == 615
    assert len(refused) <= 32


def test_a_campaign_is_held_until_the_window_opens(store):
    held = []
    moment = time.gmtime(time.time() + 3600)
    window = f"{moment.tm_hour:02d}:00-{(moment.tm_hour + 1) % 24:02d}:00"

    async def run(server):
        config = GatewayConfig(base_url=server.base_url, off_peak=window)
        async with open_gateway(
            store, phase="generation", work="w", config=config, tell=held.append
        ) as gateway:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(gateway.map([request(1), request(2)]), 0.3)

    with serve() as server:
        asyncio.run(run(server))
        assert server.requests == 0
    assert len(held) == 1
    assert window in held[0]
    assert flights_of(store) == 0
    assert store.ledger.rows() == []


# -- 10: being interrupted


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_what_is_done_when_interrupted_is_kept(store, tmp_path, how):
    with served(tmp_path, latency_s=0.05) as server:
        env = variables(store.home, {"base_url": server.url, "savings": {"parallel": 4}})
        process = start(Work(count=200), env)
        deadline = time.monotonic() + 30
        while len(server.rows()) < 20 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(how)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 130, err
        assert err == "error: interrupted; what is done is kept, run again to go on\n"
        assert flights_of(store) == 0
        sent, lost = len(ledger_of(store, "sent")), len(ledger_of(store, "lost"))
        assert sent >= 16
        assert lost <= 4
        process = start(Work(count=200), env)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        asked = server.asked()
    assert json.loads(out.splitlines()[-1])["kinds"] == {"hit": sent, "sent": 200 - sent}
    assert asked.total() <= 200 + lost
    assert spent(ledger_of(store, "sent")) <= server.total_usd()
    assert server.total_usd() <= spent(ledger_of(store, "sent", "lost"))
