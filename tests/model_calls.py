"""Flights, rows and settlements for tests of the store."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

from workbench.core.identity import new_id
from workbench.core.settings import read_settings
from workbench.store.budgets import Budgets
from workbench.store.calls import Calls, Flight, Settlement, StoredAnswer
from workbench.store.database import open_store
from workbench.store.journal import Journal
from workbench.store.owners import this_process
from workbench.store.records import LedgerRow, now

NUMBERS = itertools.count()
OWNER = this_process()
WHOSE = {"who": "tester", "job": "job", "experiment": "trial", "phase": "generation"}


def flight(worst="1", **fields):
    number = next(NUMBERS)
    facts = {
        "id": f"flight-{number}",
        "key": f"key-{number}",
        "work": "work",
        "provider": "scripted",
        "model": "m",
        "owner": OWNER,
        "at": now(),
        **WHOSE,
    }
    return Flight(worst_usd=Decimal(worst), **{**facts, **fields})


def bill(usd="1", **fields):
    facts = {
        "resource": "m",
        "quantity": 10.0,
        "unit": "token",
        "price_version": "p",
        "work": "work",
        "details": {"calls": 1, "outcome": "sent"},
        **WHOSE,
    }
    return LedgerRow(usd=Decimal(usd), **{**facts, **fields})


def answer(key, text="hello", **fields):
    facts = {"work": "work", "namespace": "n", "expires_at": None, **fields}
    return StoredAnswer(key=key, answer={"text": text}, **facts)


def settlement(of, usd="1", text="hello"):
    whose = {"who": of.who, "job": of.job, "experiment": of.experiment, "phase": of.phase}
    return Settlement(flight=of.id, rows=(bill(usd, **whose),), answer=answer(of.key, text))


def spend_in_a_process(variables, number, limit, barrier):
    """Spend through a journal with 64 callers until the budget is used up; runs in a process."""
    store = open_store(read_settings(variables))
    journal = Journal(store.calls, Budgets(experiment=Decimal(limit)))
    owner = this_process()
    barrier.wait(60)

    async def spend():
        state = "granted"
        while state != "denied":
            one = flight("0.50", id=new_id(f"p{number}"), key=new_id("k"), owner=owner)
            while (state := (await journal.claim(one)).state) == "waiting":
                await asyncio.sleep(0.01)
            if state == "granted":
                await journal.settle(settlement(one, "0.50"))

    async def all_of_them():
        await asyncio.gather(*(spend() for _ in range(64)))

    asyncio.run(all_of_them())
    journal.close()
    store.engine.dispose()


def fly_and_hang(variables, count):
    """Start flights, say so, and never end; killed by the test."""
    store = open_store(read_settings(variables))
    flights = [flight("0.5", id=new_id("f"), owner=this_process()) for _ in range(count)]
    store.calls.commit(budgets=Budgets(), claims=flights)
    store.calls.commit(budgets=Budgets(), settlements=[settlement(flights[0], "0.1")])
    sys.stdout.write("flying\n")
    sys.stdout.flush()
    threading.Event().wait()


def check_two_processes_share_a_budget(variables, store):
    """Spend from two processes at once; the budget is used up and not exceeded."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    processes = [
        context.Process(target=spend_in_a_process, args=(variables, number, "200", barrier))
        for number in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    rows = store.ledger.rows()
    billed = sum(row.usd for row in rows)
    assert billed == 200
    assert store.calls.recover() == []


def check_a_killed_process_is_charged_once(variables, store):
    """Kill a process with five of six flights open; two recover at once, one charges."""
    command = f"import model_calls; model_calls.fly_and_hang({variables!r}, 6)"
    process = subprocess.Popen(
        [sys.executable, "-c", command],
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "flying\n"
        assert store.calls.recover() == []
        process.kill()
        process.wait(30)
    others = [Calls(store.engine) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        lost = [one for found in pool.map(Calls.recover, others) for one in found]
    assert len(lost) == 5
    usd = sorted(row.usd for row in store.ledger.rows())
    assert usd == [Decimal("0.1"), *[Decimal("0.5")] * 5]
    assert [row.estimated for row in store.ledger.rows()] == [False, *[True] * 5]
