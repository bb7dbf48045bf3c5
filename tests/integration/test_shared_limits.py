"""Rates that processes share: in SQLite, PostgreSQL and Redis, alike; also over restarts."""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as trials
from hypothesis import strategies as st
from test_llm_redis import Server as RedisServer
from test_llm_redis import opened

from llm_workloads import Work, flights_of, served, spent, start, variables
from workbench.core.errors import StoreError
from workbench.core.settings import Secret
from workbench.llm.config import Rates
from workbench.llm.limits import KeyPool
from workbench.llm.shared_limits import RedisRates
from workbench.store.database import open_store
from workbench.store.rates import Ask, Row, StoreRates, draw, settle

pytest_plugins = ["postgres_server"]

amounts = st.integers(0, 40).map(float)
asked = st.tuples(amounts, amounts, amounts, st.sampled_from([math.inf, 5.0]))
steps = st.lists(
    st.tuples(asked, asked, st.sampled_from([0.0, 0.0, 7.0]), st.sampled_from([math.inf, 0.0])),
    min_size=1, max_size=6,
)  # fmt: skip


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    own = RedisServer(tmp_path_factory.mktemp("redis"))
    own.start()
    yield own
    own.kill()


def asks_of(one, two, *, name, per_minute):
    return [
        Ask(f"{name} {what}", per_minute, 30.0, *some)
        for what, some in (("requests", one), ("tokens", two))
    ]


def same(given, expected):
    # the clock goes on between two draws: some seconds at 0.01 per minute
    assert [*given.taken, given.wait_s] == pytest.approx(
        [*expected.taken, expected.wait_s], abs=5, rel=1e-3
    )
    assert given.rests_s == pytest.approx(expected.rests_s, abs=5)


@given(steps)
@trials(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_redis_and_the_store_keep_the_same_books(redis, store, steps):
    async def main():
        async with opened(redis) as cache:
            await cache._redis.flushall()
            for name in ("requests", "tokens"):  # the server runs for long: buckets are full
                fresh = {"level": 30, "at": time.time(), "rests_until": 0}
                await cache._redis.hset(f"workbench:rate:{number} {name}", mapping=fresh)
            rates = RedisRates(cache, service="")
            rows = [Row(30, 0, 0)] * 2
            for one, two, rest_s, patience_s in steps:
                asks = asks_of(one, two, name=number, per_minute=0.01)
                options = {"rest_s": rest_s, "patience_s": patience_s}
                rows, expected = settle(asks, rows, now=100.0, **options)
                same(await rates.draw(asks, **options), expected)
                same(draw(store.engine, asks, **options), expected)

    number = f"{time.time_ns()}"
    asyncio.run(main())


def check_threads_share(engine):
    """Eight threads draw from one bucket no more than it holds."""
    taken = []

    def work():
        for _ in range(10):
            ask = Ask("b", 1.0, 50.0, 1.0, 2.0)
            taken.append(draw(engine, [ask], rest_s=0, patience_s=0).taken[0])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 80
    assert 49 < sum(taken) < 51.5


def test_threads_share_a_bucket_in_sqlite(store):
    check_threads_share(store.engine)


def test_threads_share_a_bucket_in_postgresql(postgres):
    store = open_store(postgres)
    check_threads_share(store.engine)
    store.engine.dispose()


def test_a_redis_that_lost_its_memory_does_not_fill_the_buckets(tmp_path):
    redis = RedisServer(tmp_path)
    redis.start()

    async def one(needed, patience_s):
        ask = Ask("b", 60.0, 60.0, needed)
        async with opened(redis) as cache:
            return await RedisRates(cache, service="").draw([ask], rest_s=0, patience_s=patience_s)

    assert asyncio.run(one(60.0, math.inf)).wait_s > 45  # nobody knows what was sent before
    redis.kill()
    with pytest.raises(StoreError, match=r"no answer about rate limits .*unset WORKBENCH_CACHE"):
        asyncio.run(one(1.0, 0))
    redis.start()
    assert asyncio.run(one(50.0, 0)).taken == (0,)
    redis.kill()


async def check_restart(rates, *, stop, start):
    """Calls wait while whoever keeps the rates is away, and go on at the same rate."""
    keys = KeyPool([Secret("sk")], variable="K", rates=Rates(requests_per_minute=600), shared=rates)
    sent = []

    async def send():
        for _ in range(40):
            await keys.acquire("m", tokens=0)
            sent.append(time.monotonic())
            await asyncio.sleep(0.02)

    task = asyncio.create_task(send())
    while len(sent) < 10:
        await asyncio.sleep(0.01)
    await asyncio.to_thread(stop)
    await asyncio.sleep(1)  # what was drawn ahead is used, or too old
    held = len(sent)
    await asyncio.sleep(0.5)
    assert len(sent) == held < 40
    await asyncio.to_thread(start)
    await task
    await keys.close()


def test_a_redis_restarted_in_the_middle_is_waited_for(tmp_path):
    redis = RedisServer(tmp_path)
    redis.start()

    async def main():
        async with opened(redis) as cache:
            rates = RedisRates(cache, service="s")
            await check_restart(rates, stop=redis.kill, start=redis.start)

    asyncio.run(main())
    redis.kill()


def test_a_postgresql_restarted_in_the_middle_is_waited_for(postgres, server):
    store = open_store(postgres)
    rates = StoreRates(store.engine, service="s")
    asyncio.run(check_restart(rates, stop=server.stop, start=server.start))
    store.engine.dispose()


# -- processes


def run_all(home, llm, *, count, processes, **more):
    works = [Work(count=count, first=count * n, name=f"w{n}") for n in range(processes)]
    started = [
        start(work, variables(home, llm, run=f"run-{n}", **more)) for n, work in enumerate(works)
    ]
    return [(*one.communicate(timeout=240), one.returncode) for one in started]


@pytest.mark.slow
@pytest.mark.parametrize("where", ["sqlite", "postgresql", "redis"])
def test_four_processes_send_at_one_rate(where, request, tmp_path):
    more = {}
    if where == "postgresql":
        more["WORKBENCH_DATABASE_URL"] = request.getfixturevalue("postgres").database_url
    if where == "redis":
        more["WORKBENCH_CACHE_URL"] = request.getfixturevalue("redis").url
    with served(tmp_path, latency_s=0.005, requests_per_minute=240) as loopback:
        llm = {
            "base_url": loopback.url, "rates": {"requests_per_minute": 240},
            "budgets": {"experiment": 1}, "savings": {"parallel": 32},
        }  # fmt: skip
        ended = run_all(tmp_path / "home", llm, count=70, processes=4, **more)
        statuses = [row["status"] for row in loopback.rows()]
        asked = loopback.asked()
    assert [code for *_, code in ended] == [0] * 4, ended
    assert all(json.loads(out.splitlines()[-1])["kinds"] == {"sent": 70} for out, *_ in ended)
    assert set(asked.values()) == {1}
    assert statuses.count(429) == 0


@pytest.mark.slow
def test_four_processes_share_one_budget_in_postgresql(postgres, tmp_path):
    limit = Decimal("0.002")
    store = open_store(postgres)
    with served(tmp_path, latency_s=0.005) as loopback:
        llm = {
            "base_url": loopback.url, "budgets": {"experiment": str(limit)},
            "savings": {"parallel": 64},
        }  # fmt: skip
        more = {"WORKBENCH_DATABASE_URL": postgres.database_url}
        ended = run_all(postgres.home, llm, count=256, processes=4, **more)
        billed = loopback.total_usd()
    assert [code for *_, code in ended] == [3] * 4, ended
    assert limit * Decimal("0.9") < billed <= limit
    assert spent(store.ledger.rows()) <= limit
    assert flights_of(store) == 0
    store.engine.dispose()
