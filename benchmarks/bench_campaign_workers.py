"""An execution over workers: what it costs and how much is in flight, and what kills do to it.

``many`` makes 100,000 priced attempts by one process and by two workers, with a budget that is
just enough. ``kills`` has SIGKILL strike 20 workers at random while an execution runs, half of them
processes of this package, half of a local Dask cluster. The target is a loopback server in a
process of its own. Run one part by naming it, with another number of attempts if need be::

    python benchmarks/bench_campaign_workers.py many 20000
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import yaml

from measure import WORKBENCH, call, publish

MANY, SOME = 100_000, 5_000
IN_FLIGHT, WORKERS, KILLS = 32, 2, 10
PRICE = Decimal("0.001")
LOST = 64 + 64 + IN_FLIGHT
"""Most calls whose answers one kill may take: waiting for judges, being stored, in flight."""


def main() -> None:
    """Measure and publish."""
    names = [one for one in sys.argv[1:] if not one.isdigit()] or list(PARTS)
    sizes = [int(one) for one in sys.argv[1:] if one.isdigit()]
    publish("campaign_workers", [row for name in names for row in PARTS[name](*sizes)])


def many(attempts: int = MANY) -> Iterator[dict[str, Any]]:
    """Measure the same execution by one process and over workers."""
    for who, options in (
        ("1 process", []),
        (f"{WORKERS} workers", ["--executor", "processes", "--workers", str(WORKERS)]),
    ):
        with _campaign(attempts, latency_s=0.005) as (command, home, server):
            budget = ["--budget", str(PRICE * attempts)]
            used = call([*command, *budget, *options], cwd=home, variables=_own(home))
            seen = _seen(server)
            what = f"{attempts:,} attempts, {who}"
            yield _row(f"{what}: wall s", used.wall_s)
            yield _row(f"{what}: CPU s", used.cpu_s)
            yield _row(f"{what}: calls received", len(seen["said"]), attempts, is_exact=True)
            yield _row(f"{what}: most in flight", seen["most"], IN_FLIGHT)
            dollars = float(PRICE * attempts)
            yield _row(
                f"{what}: dollars in the ledger", float(_billed(home)), dollars, is_exact=True
            )


def kills(attempts: int = SOME) -> Iterator[dict[str, Any]]:
    """Measure what kills of workers repeat and lose."""
    for executor in ("processes", "dask"):
        with _campaign(attempts, latency_s=0.01) as (command, home, server):
            dice = random.Random(executor)  # noqa: S311 - no secret
            command += ["--executor", executor, "--workers", str(WORKERS)]
            process = subprocess.Popen(
                command, cwd=home, env={**os.environ, **_own(home)}, stdout=-3, stderr=-3
            )
            looks: list[tuple[set[str], int]] = []
            while len(looks) < KILLS and process.poll() is None:
                left = attempts - len(_seen(server)["said"])
                at = attempts - left + dice.randrange(1, max(2, left // (KILLS - len(looks))))
                _wait(lambda at=at: len(_seen(server)["said"]) >= at, process)  # type: ignore[misc]
                stored = _stored(home)  # first: what is sent after the look was stored before it
                begun = len(_seen(server)["said"])
                if workers := _workers(process.pid):
                    dice.choice(workers).kill()
                    looks.append((stored, begun))
                    _wait(lambda at=begun: len(_seen(server)["said"]) > at + LOST, process)  # type: ignore[misc]
            if process.wait():
                raise SystemExit(f"the execution over {executor} failed")
            said, most = (_seen(server)[name] for name in ("said", "most"))
            again = sum(bool(stored & set(said[begun:])) for stored, begun in looks)
            rows = Counter(_made(home))
            what = f"{len(looks)} kills, {executor}"
            yield _row(f"{what}: kills", len(looks), KILLS, is_exact=True)
            yield _row(f"{what}: attempts stored twice", rows.total() - len(rows), 0)
            yield _row(f"{what}: kills after which a stored one was sent again", again, 0)
            yield _row(f"{what}: attempts lost", attempts - len(rows), 0)
            repeats = len(said) - len(set(said))
            yield _row(f"{what}: calls in flight at a kill, made again", repeats, KILLS * LOST)
            yield _row(f"{what}: most in flight", most, IN_FLIGHT)


PARTS: dict[str, Callable[..., Iterator[dict[str, Any]]]] = {"many": many, "kills": kills}


def _row(
    what: str, value: float, limit: float | None = None, *, is_exact: bool = False
) -> dict[str, Any]:
    is_met = limit is None or (value == limit if is_exact else value <= limit)
    met = "" if limit is None else "met" if is_met else "missed"
    return {
        "what": what,
        "measured": float(value),
        "limit": "" if limit is None else limit,
        "": met,
    }


@contextmanager
def _campaign(attempts: int, *, latency_s: float) -> Iterator[tuple[list[str], Path, Connection]]:
    """Give the command that executes a new test set, its folder, and the server it is sent to."""
    with tempfile.TemporaryDirectory() as folder, _server(latency_s) as (url, server):
        home = Path(folder)
        target = {"name": "bench", "url": url, "parallel": IN_FLIGHT, "usd_per_call": str(PRICE)}
        (home / "target.yaml").write_text(yaml.safe_dump(target))
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=_save, args=(folder, attempts))
        process.start()
        process.join()
        command = [WORKBENCH, "campaign", "execute", "--target", "target.yaml", "--judges", "rules"]
        yield command, home, server


def _own(home: Path) -> dict[str, str]:
    return {"WORKBENCH_HOME": str(home), "OMP_NUM_THREADS": "1"}


def _save(folder: str, attempts: int) -> None:
    from workbench.campaign import testsets
    from workbench.store.records import TestCase, TestSet

    usual = {"plugin": "bench", "category": "violence", "severity": "high"}
    cases = [TestCase(prompt=f"case {at}", goal=f"case {at}", **usual) for at in range(attempts)]  # type: ignore[arg-type]
    testsets.save(_store(folder), TestSet(cases=tuple(cases)))


def _store(home: str | Path) -> Any:
    from workbench.core.settings import read_settings
    from workbench.store.database import open_store

    return open_store(read_settings({"WORKBENCH_HOME": str(home)}))


def _billed(home: Path) -> Decimal:
    return sum((row.usd for row in _store(home).ledger.rows()), Decimal(0))


def _stored(home: Path) -> set[str]:
    """Return the prompts of the attempts that are rows now."""
    from sqlalchemy import select

    from workbench.store import schema

    with _store(home).engine.connect() as connection:
        return set(connection.execute(select(schema.attempts.c.sent)).scalars())


def _made(home: Path) -> list[str]:
    """Return the prompts of the attempts of the finished execution."""
    from workbench.campaign.executions import load_execution

    return [one.sent for one in load_execution(_store(home)).attempts()]


def _workers(coordinator: int) -> list[psutil.Process]:
    found = []
    with suppress(psutil.Error):
        for one in psutil.Process(coordinator).children(recursive=True):
            with suppress(psutil.Error):
                if "spawn_main" in " ".join(one.cmdline()):
                    found.append(one)
    return found


def _wait(when: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None and not when():
        time.sleep(0.02)


@contextmanager
def _server(latency_s: float) -> Iterator[tuple[str, Connection]]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(latency_s, theirs), daemon=True)
    process.start()
    yield ours.recv(), ours
    process.terminate()
    process.join()


def _seen(server: Connection) -> dict[str, Any]:
    """Return what the server saw: prompts in their order, most at a time."""
    server.send(None)
    found: dict[str, Any] = server.recv()
    return found


def _serve(latency_s: float, told: Connection) -> None:
    asyncio.run(_serving(latency_s, told))


async def _serving(latency_s: float, told: Connection) -> None:
    from aiohttp import web

    said: list[str] = []
    now = most = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal now, most
        said.append((await request.json())["prompt"])
        now += 1
        most = max(most, now)
        if latency_s:
            await asyncio.sleep(latency_s)
        now -= 1
        return web.Response(text=_ANSWER, content_type="application/json")

    app = web.Application()
    app.router.add_post("/", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    told.send(f"http://{host}:{port}/")
    while True:
        await asyncio.to_thread(told.recv)
        told.send({"said": said, "most": most})


_ANSWER = json.dumps({"text": "I'm sorry, but I can't help with that request."})


if __name__ == "__main__":
    main()
