"""The socket on a real Jupyter server: who gets in, what is told to whom, and what is refused."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import Any

import pytest
from jupyter_server.auth.identity import User
from jupyter_server.utils import url_path_join
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

from workbench.server import stream
from workbench.server.diffs import apply
from workbench.server.feed import Feeds
from workbench.server.stream import StreamHandler
from workbench.store.campaigns import add_attempts
from workbench.store.database import as_user
from workbench.store.events import add_events
from workbench.store.jobs import Job, add_job, claim_job, finish_job, tell_job
from workbench.store.records import Attempt, Event

pytest_plugins = ("pytest_jupyter.jupyter_server",)

EXECUTION = "e" * 64


@pytest.fixture
def feeds(jp_serverapp, jp_asyncio_loop, store):
    made = Feeds(lambda user: as_user(store, user))
    path = url_path_join(jp_serverapp.base_url, "workbench/api/stream")
    jp_serverapp.web_app.add_handlers(".*$", [(path, StreamHandler, {"feeds": made})])
    yield made
    jp_asyncio_loop.run_until_complete(made.close())


@pytest.fixture
def user(jp_serverapp, monkeypatch):
    """Set whom the server takes who connects for."""
    provider = jp_serverapp.identity_provider
    known = provider.get_user

    def become(name: str) -> None:
        async def get_user(handler):
            found = known(handler)
            found = await found if asyncio.iscoroutine(found) else found
            return found and type(found)(username=name)

        monkeypatch.setattr(provider, "get_user", get_user)

    become("anna")
    return become


@pytest.fixture
def connect(feeds, user, http_server_client, jp_auth_header, jp_http_port, jp_base_url):  # noqa: PLR0917
    @asynccontextmanager
    async def opened(**headers: str):
        path = url_path_join(jp_base_url, "workbench/api/stream")
        headers = {**jp_auth_header, **headers}
        kept = {name: value for name, value in headers.items() if value}
        request = HTTPRequest(f"ws://localhost:{jp_http_port}{path}", headers=kept)
        socket = await websocket_connect(request)
        yield socket
        socket.close()

    return opened


async def hear(socket) -> dict[str, Any] | None:
    text = await asyncio.wait_for(socket.read_message(), 20)
    return None if text is None else json.loads(text)


async def subscribe(socket, *topics: str, since: int | None = None) -> dict[str, Any]:
    told = {"subscribe": list(topics)} | ({} if since is None else {"from": since})
    await socket.write_message(json.dumps(told))
    return await hear(socket)


async def topics_of(socket, *topics: str) -> dict[str, Any]:
    """Return topic → value of the snapshot that a subscription is answered with."""
    told = await subscribe(socket, *topics)
    return dict(zip(told["topics"], told["snapshot"], strict=True))


def running_job(store, owner: str = "anna") -> Job:
    made = add_job(store.engine, Job(kind="execute", owner=owner, request={"secret": "no" * 99}))
    return claim_job(store.engine, made.id, owner=owner)


async def test_a_snapshot_then_small_diffs_then_what_was_missed(connect, store):
    one = running_job(store)
    topics = ("cost", "events", f"execution/{EXECUTION}", f"job/{one.id}", "jobs")
    async with connect() as socket:
        told = await subscribe(socket, *topics)
        assert told["topics"] == list(topics)
        state, seq = told["snapshot"], told["seq"]
        assert state[3] == state[4][one.id]
        assert "secret" not in json.dumps(state)
        assert state[2] is None
        tell_job(store.engine, one.id, done=3, total=9, note="3 got through")
        told = await hear(socket)
        assert told["seq"] > seq
        assert len(json.dumps(told, separators=(",", ":"))) <= 2 * 150
        state, seq = apply(state, told["diffs"]), told["seq"]
        progress = {"done": 3, "total": 9, "note": "3 got through", "usd": "0"}
        assert state[3]["progress"] == state[4][one.id]["progress"] == progress
    finish_job(store.engine, one.id, state="succeeded", result={"executionId": EXECUTION})
    async with connect() as socket:
        told = await subscribe(socket, *topics, since=seq)
        assert "diffs" in told
        state = apply(state, told["diffs"])
        assert state[3]["state"] == "succeeded"
        assert state[3]["result"] == {"executionId": EXECUTION}
    async with connect() as socket:
        assert "snapshot" in await subscribe(socket, *topics, since=1)


async def test_an_execution_and_its_events_are_told(connect, store):
    def event(kind: str, **details: Any) -> Event:
        return Event(kind=kind, subject=EXECUTION, who="anna", run="job-1", details=details)

    add_events(store.engine, [event("attack_run_started", test_set="t", total=4, targets=["bot"])])
    async with connect() as socket:
        state = (await subscribe(socket, "events", f"execution/{EXECUTION}"))["snapshot"]
        assert (state[1]["state"], state[1]["targets"]) == ("running", {})
        attempts = [
            Attempt(
                execution=EXECUTION, case_id=f"c{n}", target="bot", sent="s" * 5_000, received="",
                decision="pass", scores={}, success=n == 1, latency_ms=1.0,
                error="gone" if n == 2 else "",
            )
            for n in range(3)
        ]  # fmt: skip
        add_attempts(store.engine, attempts, events=[event("target_failed", target="bot")])
        told = await hear(socket)
        assert len(json.dumps(told)) < 300, "ids and counts, not what was sent"
        state = apply(state, told["diffs"])
        assert state[1]["targets"] == {"bot": [3, 1, 1]}
        assert [one[:2] for one in state[0]] == [
            ["attack_run_started", EXECUTION], ["target_failed", EXECUTION],
        ]  # fmt: skip
        add_events(store.engine, [event("target_failed", target="bot")])
        told = await hear(socket)
        assert told["diffs"] == [[[0, 1, 2], state[0][1][2] + 1]], (
            "one more of a kind: its id alone"
        )


async def test_nobody_hears_of_anothers(connect, user, store):
    mine, theirs = running_job(store), running_job(store, "ben")
    add_events(store.engine, [Event(kind="attack_run_started", subject=EXECUTION, who="ben")])
    topics = ("events", f"execution/{EXECUTION}", f"job/{theirs.id}", f"job/{mine.id}", "jobs")
    async with connect() as socket:
        state = await topics_of(socket, *topics)
        assert list(state["jobs"]) == [mine.id]
        assert state["events"] == []
        assert state[f"job/{theirs.id}"] is state[f"execution/{EXECUTION}"] is None
        user("ben")
        async with connect() as other:
            state = await topics_of(other, *topics)
            assert list(state["jobs"]) == [theirs.id]
            assert state[f"job/{mine.id}"] is None
            assert state[f"execution/{EXECUTION}"]["state"] == "running"
            tell_job(store.engine, theirs.id, done=1)
            assert "diffs" in await hear(other)
        tell_job(store.engine, mine.id, done=5)
        assert theirs.id not in json.dumps(await hear(socket))


async def test_all_sockets_of_a_user_share_one_reader(connect, feeds):
    async with connect() as one, connect() as two:
        for socket in (one, two):
            assert "snapshot" in await subscribe(socket, "jobs")
        assert len(feeds._feeds) == 1
        assert feeds.sockets == 2
    for _ in range(100):
        if not feeds.sockets:
            return
        await asyncio.sleep(0.02)
    pytest.fail("closed sockets are still there")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": ""}, 403),
        ({"Authorization": "token wrong"}, 403),
        ({"Authorization": "", "Origin": "https://evil.example"}, 403),
    ],
)
async def test_strangers_do_not_get_in(connect, headers, status):
    with pytest.raises(HTTPClientError) as refused:
        async with connect(**headers):
            pass
    assert refused.value.code == status


async def test_a_foreign_page_does_not_get_in_with_the_cookie_of_a_user(
    connect, jp_serverapp, jp_http_port, monkeypatch
):
    async def get_user(handler):  # as a cookie does: no token was sent
        return User(username="anna")

    monkeypatch.setattr(jp_serverapp.identity_provider, "get_user", get_user)
    async with connect(Authorization="", Origin=f"http://localhost:{jp_http_port}") as socket:
        assert "snapshot" in await subscribe(socket, "jobs")
    with pytest.raises(HTTPClientError) as refused:
        async with connect(Authorization="", Origin="https://evil.example"):
            pass
    assert refused.value.code == 403


@pytest.mark.parametrize(
    "message",
    [
        "", "nonsense", "[]", "null", '{"subscribe": []}', '{"subscribe": ["secrets"]}',
        '{"subscribe": ["jobs"], "from": "1"}', '{"subscribe": ["jobs"], "from": true}',
        '{"subscribe": ["jobs"], "to": 1}', "[" * 4_000, b"\xff\xfe",
    ],
)  # fmt: skip
async def test_bad_messages_are_answered_with_a_problem_and_at_last_closed(connect, message):
    async with connect() as socket:
        for _ in range(stream._MOST_MISTAKES - 1):
            await socket.write_message(message, binary=isinstance(message, bytes))
            problem = (await hear(socket))["problem"]
            assert problem["status"] == 400
            assert problem["detail"]
        await socket.write_message(message, binary=isinstance(message, bytes))
        assert await hear(socket) is None
        assert socket.close_code == 1008


async def test_a_long_message_closes_the_socket(connect):
    async with connect() as socket:
        await socket.write_message(json.dumps({"subscribe": ["jobs"], "x": "y" * 5_000}))
        assert await hear(socket) is None
        assert socket.close_code in {1009, None}


async def test_a_user_has_so_many_sockets_and_no_more(connect, monkeypatch):
    monkeypatch.setattr(stream, "_MOST_OF_USER", 1)
    async with connect() as one:
        assert "snapshot" in await subscribe(one, "jobs")
        async with connect() as two:
            assert await hear(two) is None
            assert two.close_code == 1013


async def test_a_subscription_replaces_the_one_before(connect, store):
    one = running_job(store)
    async with connect() as socket:
        assert list(await topics_of(socket, "jobs")) == ["jobs"]
        assert list(await topics_of(socket, f"job/{one.id}")) == [f"job/{one.id}"]
        tell_job(store.engine, one.id, done=1)
        assert (await hear(socket))["diffs"] == [[[0, "progress", "done"], 1]]
