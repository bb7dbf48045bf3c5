"""kill -9 in the middle of model calls: the next process goes on and buys nothing twice."""

from __future__ import annotations

import json
import random
import time
from collections import Counter

import pytest

from llm_workloads import (
    Work,
    digest,
    flights_of,
    key_of,
    ledger_of,
    served,
    spent,
    start,
    stored_keys,
    variables,
)
from workbench.core.settings import read_settings
from workbench.store.database import open_store

pytestmark = pytest.mark.slow

COUNT, KILLS, PARALLEL, LATENCY_S = 300, 20, 8, 0.1
WORKERS = 16
"""Calls that one process may have begun: those in flight, and those about to be or just back."""


def finish(env, work):
    """Run to the end; return what was printed."""
    process = start(work, env)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def kill_at(moment_s, env, work):
    """Run until some seconds after the calls began; return False if it ended before."""
    process = start(work, env)
    with process:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        time.sleep(moment_s)
        process.kill()
        process.wait(30)
    return process.returncode != 0


def settled(server):
    """Return the server's rows once it has noticed that nobody is there any more."""
    time.sleep(2 * LATENCY_S)
    return server.rows()


@pytest.mark.parametrize("response_cache", [True, False])
def test_nothing_that_reached_the_store_is_bought_again(tmp_path, response_cache):
    chance = random.Random(3)
    home, work = tmp_path / "home", Work(count=COUNT)
    with served(tmp_path, latency_s=LATENCY_S) as server:
        savings = {"parallel": PARALLEL, "response_cache": response_cache}
        env = variables(home, {"base_url": server.url, "savings": savings})
        store = open_store(read_settings(env))
        names = {key_of(number, url=server.url): digest(number) for number in range(COUNT)}
        kills, seen, kept = 0, 0, set()
        for moment in range(KILLS + 1):
            if moment < KILLS:
                kills += kill_at(chance.uniform(0, 0.4), env, work)
            else:
                done = finish(env, work)
            rows = settled(server)
            assert kept.isdisjoint(row["prompt_sha256"] for row in rows[seen:])
            seen, kept = len(rows), {names[key] for key in stored_keys(store)}
        billed = server.total_usd()
    assert kills == KILLS
    assert all(done["texts"])
    assert set(done["kinds"]) <= {"sent", "hit"}
    sent, lost = ledger_of(store, "sent"), ledger_of(store, "lost")
    assert len(sent) == COUNT  # each call once
    assert len(lost) <= KILLS * WORKERS
    twice = Counter(row["prompt_sha256"] for row in rows)
    assert set(twice) == set(names.values())
    assert twice.total() - COUNT <= len(lost)
    assert spent(sent) <= billed <= spent(sent) + spent(lost)
    assert flights_of(store) == 0
    store.engine.dispose()


def test_a_batch_in_flight_is_taken_up_again(tmp_path):
    chance = random.Random(4)
    home, work = tmp_path / "home", Work(count=COUNT)
    with served(tmp_path, batch_delay_s=3) as server:
        env = variables(home, {"base_url": server.url, "savings": {"batches": True}})
        store = open_store(read_settings(env))
        kills = 0
        for _ in range(KILLS):
            kills += kill_at(chance.uniform(0, 0.3), env, work)
        done = finish(env, work)
        rows = server.rows()
    assert kills > 2
    assert all(done["texts"])
    assert len(rows) == COUNT  # submitted once
    assert ledger_of(store, "lost") == []
    bought = ledger_of(store, "batch")
    assert len(bought) == COUNT
    assert spent(bought) == server.total_usd()
    assert {row["custom_id"] for row in rows} == {
        key_of(number, url=server.url) for number in range(COUNT)
    }
    assert flights_of(store) == 0
    store.engine.dispose()
