"""The shared cache on a real Redis that the test starts, fills with rubbish, and kills."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import time
from contextlib import asynccontextmanager

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as trials
from hypothesis import strategies as st

from machine import require
from workbench.llm.cache import RedisCache

KEY = "ab" * 32
ANSWER = {"text": "é \ud83d \u2028 <b>", "usage": {"output_tokens": 3}, "usd": "0.01", "none": None}


class Server:
    """One redis-server on a socket of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.program = require("redis", "redis-server")
        self.url = f"unix://{folder / 'redis.sock'}"
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            [self.program, "--port", "0", "--unixsocket", str(self.folder / "redis.sock"),
             "--save", "", "--appendonly", "no", "--dir", str(self.folder)],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip

        async def answers():
            async with opened(self) as cache:
                return await cache.is_reachable()

        logging.disable(logging.WARNING)
        deadline = time.monotonic() + 10
        while not asyncio.run(answers()):
            assert time.monotonic() < deadline, "redis-server did not start"
            time.sleep(0.01)
        logging.disable(logging.NOTSET)

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@asynccontextmanager
async def opened(server, **options):
    cache = RedisCache(server.url, **options)
    try:
        yield cache
    finally:
        await cache.close()


def run(server, use, **options):
    async def whole():
        async with opened(server, **options) as cache:
            await cache._redis.flushall()
            return await use(cache)

    return asyncio.run(whole())


def test_an_answer_comes_back_to_another_process_of_the_same_key_alone(server):
    async def use(cache):
        await cache.put(KEY, ANSWER, ttl_s=None)
        async with opened(server) as other:
            assert await other.get(KEY) == ANSWER
            assert await other.get("cd" * 32) is None
        assert await cache._redis.keys("*") == [b"workbench:answer:" + KEY.encode()]
        assert await cache._redis.ttl("workbench:answer:" + KEY) == -1

    run(server, use)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)  # fmt: skip


@given(st.dictionaries(st.text(), json_values))
@trials(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_json_answer_survives(server, answer):
    async def use(cache):
        await cache.put(KEY, answer, ttl_s=60)
        assert await cache.get(KEY) == answer

    run(server, use)


def test_answers_expire_and_those_that_are_old_already_are_not_kept(server):
    async def use(cache):
        await cache.put("long", ANSWER, ttl_s=3600)
        assert 3_590_000 < await cache._redis.pttl("workbench:answer:long") <= 3_600_000
        for ttl_s in (0, -1):
            await cache.put("old", ANSWER, ttl_s=ttl_s)
        await cache.put("short", ANSWER, ttl_s=0.0001)  # one millisecond at least
        await asyncio.sleep(0.01)
        assert await cache._redis.keys("*") == [b"workbench:answer:long"]

    run(server, use)


@pytest.mark.parametrize(
    "value",
    [b"", b"null", b"[]", b"3", b'"text"', b"{", b"\xff\xfe", b'{"a": NaN}', b'{"a": 1e999999',
     b"[" * 200_000, b'{"a":' * 200_000, b'{"n": ' + b"9" * 5_000 + b"}", b"{}" + b" " * 4_000_000,
     b"\x80\x04K\x01."],
    ids=lambda value: repr(value[:12]),
)  # fmt: skip
def test_what_is_no_answer_is_a_miss(server, value):
    async def use(cache):
        await cache._redis.set("workbench:answer:" + KEY, value)
        assert await cache.get(KEY) is None
        await cache.put(KEY, ANSWER, ttl_s=60)  # and is mended by the next answer
        assert await cache.get(KEY) == ANSWER

    run(server, use)


def test_a_key_of_another_type_is_a_miss_and_stops_nothing_else(server, caplog):
    async def use(cache):
        await cache._redis.lpush("workbench:answer:" + KEY, "x")
        for _ in range(3):
            assert await cache.get(KEY) is None
        await cache.put("other", ANSWER, ttl_s=60)
        assert await cache.get("other") == ANSWER

    run(server, use)
    assert len(caplog.records) == 1


def test_an_overlong_answer_is_not_kept(server):
    async def use(cache):
        await cache.put(KEY, {"text": "x" * 4_000_000}, ttl_s=60)
        assert await cache._redis.dbsize() == 0

    run(server, use)


def test_of_many_who_want_a_lease_one_gets_it_until_it_is_given_back(server):
    async def use(cache):
        async with opened(server) as other:
            both = [cache, other]
            got = await asyncio.gather(*(both[n % 2].lease(KEY, ttl_s=60) for n in range(40)))
            assert sum(got) == 1
            owner, loser = (cache, other) if got.index(True) % 2 == 0 else (other, cache)
            await loser.release(KEY)  # not its own: stays
            assert not await loser.lease(KEY, ttl_s=60)
            await owner.release(KEY)
            assert await loser.lease(KEY, ttl_s=60)

    run(server, use)


def test_a_lease_that_ran_out_is_not_taken_from_its_next_owner(server):
    async def use(cache):
        async with opened(server) as other:
            assert await cache.lease(KEY, ttl_s=0.001)
            await asyncio.sleep(0.01)
            assert await other.lease(KEY, ttl_s=60)
            await cache.release(KEY)
            assert not await cache.lease(KEY, ttl_s=60)

    run(server, use)


def test_a_lease_is_short_and_lasts_as_long_as_it_is_renewed(server):
    async def use(cache):
        async with opened(server) as other:
            assert await cache.lease(KEY)
            # a buyer that is killed holds up the others no longer than this
            assert 14_000 < await cache._redis.pttl("workbench:lease:" + KEY) <= 15_000
            assert not await other.renew(KEY)  # is not its own
            assert await cache.renew(KEY, ttl_s=60)
            assert 59_000 < await cache._redis.pttl("workbench:lease:" + KEY) <= 60_000
            assert await cache.renew(KEY, ttl_s=0.001)
            await asyncio.sleep(0.01)
            assert not await cache.renew(KEY)  # too late: nobody's by now
            assert await other.lease(KEY)
            assert not await cache.renew(KEY)

    run(server, use)


def test_more_callers_than_connections_all_get_their_answer(server, caplog):
    async def use(cache):
        await cache.put(KEY, ANSWER, ttl_s=60)
        assert await asyncio.gather(*(cache.get(KEY) for _ in range(500))) == [ANSWER] * 500
        assert (await cache._redis.info("clients"))["connected_clients"] <= 33

    run(server, use)
    assert not caplog.records


def test_killed_in_the_middle_it_is_a_miss_and_comes_back(server, caplog):
    now = [0.0]

    async def use(cache):
        await cache.put(KEY, ANSWER, ttl_s=60)
        asking = [asyncio.create_task(cache.get(KEY)) for _ in range(200)]
        await asyncio.sleep(0)
        server.kill()
        assert {json.dumps(answer) for answer in await asyncio.gather(*asking)} <= {
            "null", json.dumps(ANSWER)
        }  # fmt: skip
        assert await cache.get(KEY) is None
        await cache.put(KEY, ANSWER, ttl_s=60)
        assert await cache.lease(KEY, ttl_s=60)
        await asyncio.to_thread(server.start)
        now[0] = 31.0  # the rest is over
        await cache.put(KEY, ANSWER, ttl_s=60)
        assert await cache.get(KEY) == ANSWER

    run(server, use, clock=lambda: now[0])
    assert len([record for record in caplog.records if "no response cache" in record.message]) == 1
