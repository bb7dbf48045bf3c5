"""Sockets of live panels: processor time of the server, bytes of diffs, and how late they come.

Server, producer and clients are processes of their own; the server's processor time alone counts.
The producer writes what campaigns write: attempts with events, some at a time, and progress of jobs
twice a second.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from measure import publish

WARM_S = 3.0
TICK_S = 0.25
START_S = 90
KINDS = ("target_failed", "vulnerable_prompt_detected")
PROVIDER = "workbench.server.identity"


def execution_of(user: str) -> str:
    """Return the id of the execution that a user watches."""
    return hashlib.sha256(user.encode()).hexdigest()


def produce(users: Sequence[str], *, per_s: float, seconds: float) -> None:
    """Write like campaigns of all users, so many events a second in all."""
    from workbench.core.settings import read_settings
    from workbench.store.database import as_user, open_store
    from workbench.store.events import add_events
    from workbench.store.jobs import Job, add_job, claim_job
    from workbench.store.records import Event

    store = open_store(read_settings())
    stores = {user: as_user(store, user) for user in users}
    jobs = {}
    for user, own in stores.items():
        made = add_job(own.engine, Job(kind="execute", owner=user))
        claim_job(own.engine, made.id, owner=user)
        details = {"test_set": "0" * 64, "total": 100_000, "targets": ["bare", "sanitizer@4"]}
        started = Event(
            kind="attack_run_started", subject=execution_of(user), who=user, run=made.id,
            details=details,
        )  # fmt: skip
        add_events(own.engine, [started])
        jobs[user] = made.id
    print(json.dumps(jobs), flush=True)
    sys.stdin.readline()
    _write(stores, jobs, per_s=per_s, seconds=seconds)


def _write(stores: dict[str, Any], jobs: dict[str, str], *, per_s: float, seconds: float) -> None:
    from workbench.store.campaigns import add_attempts
    from workbench.store.jobs import tell_job
    from workbench.store.records import Attempt, Event

    written, began = 0, time.monotonic()
    done = dict.fromkeys(stores, 0)
    for tick in itertools.count(1):
        if (pause := began + tick * TICK_S - time.monotonic()) > 0:
            time.sleep(pause)
        if tick * TICK_S > seconds:
            return
        due = int(tick * TICK_S * per_s)
        turn: dict[str, list[int]] = {}
        for number in range(written, due):
            turn.setdefault(list(stores)[number % len(stores)], []).append(number)
        written = due
        for user, numbers in turn.items():
            execution = execution_of(user)
            attempts = [
                Attempt(
                    execution=execution, case_id=f"c{number}", sent="s" * 600, scores={},
                    target="bare" if number // len(stores) % 2 else "sanitizer@4",
                    received="r" * 600, decision="pass", success=number % 3 == 0, latency_ms=1.0,
                )
                for number in numbers
            ]  # fmt: skip
            told = [
                Event(kind=KINDS[number % 10 == 0], subject=execution, who=user, details={})
                for number in numbers
            ]
            add_attempts(stores[user].engine, attempts, events=told)
            done[user] += len(numbers)
        if tick % 2 == 0:
            for user, own in stores.items():
                tell_job(own.engine, jobs[user], done=done[user], note=f"{time.time():.3f}")


@dataclass
class Heard:
    """What the clients were told while it was measured."""

    is_on: bool = False
    sizes: list[int] = field(default_factory=list)
    changes: list[int] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)
    snapshots: int = 0


async def listen(url: str, token: str, *, topics: Sequence[str], heard: Heard) -> None:
    """Follow topics until canceled."""
    from tornado.httpclient import HTTPRequest
    from tornado.websocket import websocket_connect

    request = HTTPRequest(url, headers={"Authorization": f"token {token}"}, connect_timeout=60)
    connection = await websocket_connect(request)
    await connection.write_message(json.dumps({"subscribe": list(topics)}))
    while (text := await connection.read_message()) is not None:
        told = json.loads(text)
        if not heard.is_on:
            continue
        if "diffs" not in told:
            heard.snapshots += 1
            continue
        heard.sizes.append(len(text))
        heard.changes += [len(json.dumps(one, separators=(",", ":"))) for one in told["diffs"]]
        for path, *value in told["diffs"]:
            note = value[0].get("note") if path[-1] == "progress" else value[0]
            if path[-1] in {"progress", "note"}:
                heard.late_ms.append((time.time() - float(note)) * 1_000)


@contextmanager
def served(root: Path, users: Sequence[str]) -> Iterator[tuple[str, int, dict[str, str]]]:
    """Give the address of a Jupyter server with the extension, its process, its environment."""
    from workbench.core.settings import read_settings

    settings = replace(read_settings(), home=root / "home", user="owner")
    settings = replace(settings, database_url=f"sqlite:///{root / 'home' / 'workbench.db'}")
    (root / "home").mkdir()
    (root / "tokens.json").write_text(json.dumps({f"token-of-{user}": user for user in users}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folders = {f"JUPYTER_{n}_DIR": str(root / n.lower()) for n in ("CONFIG", "DATA", "RUNTIME")}
    variables = {**os.environ, **settings.to_environment(), **folders, "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable, "-m", "jupyter_server", f"--ServerApp.port={port}", "--allow-root",
        "--ServerApp.ip=127.0.0.1", "--ServerApp.open_browser=False",
        f"--ServerApp.root_dir={root}", "--ServerApp.jpserver_extensions=workbench.server=True",
        f"--ServerApp.identity_provider_class={PROVIDER}.WorkbenchIdentity",
        f"--WorkbenchIdentity.tokens_file={root / 'tokens.json'}",
    ]  # fmt: skip
    with (root / "server.log").open("w") as log:
        process = subprocess.Popen(command, cwd=root, env=variables, stdout=log, stderr=log)
    try:
        _wait(port, process, root / "server.log")
        yield f"ws://127.0.0.1:{port}/workbench/api/stream", process.pid, variables
    finally:
        process.terminate()
        process.wait()


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit(f"the server does not answer:\n{log.read_text()[-3000:]}")


async def measure(
    users: int, sockets: int, *, with_events: bool, per_s: float, seconds: float
) -> dict[str, Any]:
    """Return the figures of so many sockets while so many events a second are written."""
    names = [f"user{number}" for number in range(users)]
    with tempfile.TemporaryDirectory() as folder, served(Path(folder), names) as found:
        url, pid, variables = found
        lasting = seconds + 2 * WARM_S + 5
        command = [sys.executable, __file__, "--produce", ",".join(names), str(per_s), str(lasting)]
        producer = subprocess.Popen(
            command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert producer.stdin
        assert producer.stdout
        jobs = json.loads(producer.stdout.readline())
        heard = Heard()
        owners = [names[number % users] for number in range(sockets)]
        also = ("events",) if with_events else ()
        clients = [
            asyncio.create_task(
                listen(
                    url, f"token-of-{one}", heard=heard,
                    topics=("cost", f"execution/{execution_of(one)}", f"job/{jobs[one]}", *also),
                )
            )
            for one in owners
        ]  # fmt: skip
        await asyncio.sleep(WARM_S)
        producer.stdin.write("go\n")
        producer.stdin.flush()
        await asyncio.sleep(WARM_S)
        server = psutil.Process(pid)
        heard.is_on = True
        before, began = server.cpu_times(), time.monotonic()
        await asyncio.sleep(seconds)
        after, took = server.cpu_times(), time.monotonic() - began
        heard.is_on = False
        if ended := [one for one in clients if one.done()]:
            raise SystemExit(f"{len(ended)} sockets were closed: {ended[0].exception()}")
        for one in clients:
            one.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        producer.terminate()
        producer.wait()
    used = after.user + after.system - before.user - before.system
    return {
        "users": users,
        "sockets": sockets,
        "topics": "cost, execution, job" + ", events" * with_events,
        "events_per_s": per_s,
        "cpu_share": used / took,
        "messages_per_s": len(heard.sizes) / took,
        "message_bytes_median": statistics.median(heard.sizes),
        "message_bytes_p95": _p95(heard.sizes),
        "change_bytes_median": statistics.median(heard.changes),
        "change_bytes_p95": _p95(heard.changes),
        "late_ms_median": statistics.median(heard.late_ms),
        "late_ms_p95": _p95(heard.late_ms),
        "snapshots": heard.snapshots,
    }


def _p95(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]


def main() -> None:
    """Measure one live panel, then many sockets of many users."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--events", type=float, default=100.0, help="Per second, of all users.")
    parser.add_argument("--produce", nargs=3, metavar=("USERS", "PER_S", "SECONDS"))
    options = parser.parse_args()
    if options.produce:
        users, per_s, seconds = options.produce
        produce(users.split(","), per_s=float(per_s), seconds=float(seconds))
        return
    cases = ((1, 1, False), (1, 1, True), (20, 200, True))
    rows = [
        asyncio.run(
            measure(users, sockets, with_events=also, per_s=options.events, seconds=options.seconds)
        )
        for users, sockets, also in cases
    ]
    publish("stream", rows)


if __name__ == "__main__":
    main()
