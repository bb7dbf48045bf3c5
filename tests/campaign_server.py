"""A target in a process of its own that logs what it is sent, and a campaign that may be killed.

A case is known by the first message of its conversation.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import yaml

from campaign_fakes import make_case, make_control
from workbench.campaign import testsets
from workbench.campaign.analysis import analyze
from workbench.campaign.executions import Execution, load_execution
from workbench.core.settings import read_settings
from workbench.store import schema
from workbench.store.database import Store, open_store
from workbench.store.events import events
from workbench.store.records import TestSet

WORKBENCH = str(Path(sys.executable).parent / "workbench")
IN_FLIGHT = 32
LOST = 64 + 64 + IN_FLIGHT
"""Most tries that a kill may lose: those that wait for judges, are being judged and stored, and are
in flight."""
PRICE = Decimal("0.001")
OPEN_S = 60
SERVER = """\
import asyncio, hashlib, json, os, sys, time
from aiohttp import web

now = {}  # path → in flight
asked, answered = (os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for path in sys.argv[1:])

async def handle(request):
    said = [one["content"] for one in (await request.json())["messages"] if one["role"] == "user"]
    now[request.path] = now.get(request.path, 0) + 1
    line = [request.path, said, now[request.path], request.remote, time.time()]
    os.write(asked, (json.dumps(line) + "\\n").encode())
    await asyncio.sleep(0.005)
    now[request.path] -= 1
    is_refused = hashlib.sha256(said[-1].encode()).digest()[0] % 3
    os.write(answered, b".")
    text = "I'm sorry, but I can't help with that." if is_refused else f"Sure, here it is: {said}"
    return web.json_response({"text": text})

async def main():
    app = web.Application()
    app.router.add_post("/{target}", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@dataclass
class Server:
    """The target, and what it saw."""

    url: str
    asked: Path
    answered: Path

    @property
    def count(self) -> int:
        """Answers given."""
        return self.answered.stat().st_size

    def log(self) -> list[tuple[str, str]]:
        """Return (target, first message) of each conversation, once for each time it began."""
        return [(path.strip("/"), said[0]) for path, said, *_ in self._lines() if len(said) == 1]

    def times(self, host: str) -> list[float]:
        """Return when each message of a host came, in seconds since 1970."""
        return [at for *_, remote, at in self._lines() if remote == host]

    def most(self) -> int:
        """Return the most requests that were in flight at once to one target."""
        return max(in_flight for _, _, in_flight, *_ in self._lines())

    def _lines(self) -> list[tuple[str, list[str], int, str, float]]:
        return [json.loads(line) for line in self.asked.read_bytes().split(b"\n")[:-1]]


@contextmanager
def serve(folder: Path) -> Iterator[Server]:
    """Run the target in a process of its own; its logs are in a folder."""
    logs = [folder / name for name in ("asked", "answered")]
    command = [sys.executable, "-c", SERVER, *map(str, logs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        port = int(process.stdout.readline())
        yield Server(f"http://127.0.0.1:{port}", *logs)
        process.kill()


def test_set_of(cases: int, controls: int) -> TestSet:
    """Return cases of which every tenth is a conversation of three messages."""
    talks = [
        make_case(number, turns=(f"hello {number}", "and now"), prompt=f"last {number}")
        if number % 10 == 0
        else make_case(number)
        for number in range(cases)
    ]
    return TestSet(cases=(*talks, *map(make_control, range(controls))))


test_set_of.__test__ = False


class Campaign:
    """One execution that is started, killed and started again."""

    def __init__(self, folder: Path, server: Server, tests: TestSet, *, targets=("one",)) -> None:
        folder.mkdir()
        self.folder, self.server, self.tests = folder, server, tests
        self.first = {(*case.turns, case.prompt)[0]: case.id for case in tests}
        self.arguments = ["--judges", "rules"]
        for name in targets:
            told = {
                "name": name, "url": f"{server.url}/{name}", "parallel": IN_FLIGHT,
                "defends": True, "body": {"messages": "{{messages}}"}, "usd_per_call": str(PRICE),
            }  # fmt: skip
            (folder / f"{name}.yaml").write_text(yaml.safe_dump(told))
            self.arguments += ["--target", f"{name}.yaml"]
        with self.store() as store:
            testsets.save(store, tests)

    @property
    def variables(self) -> dict[str, str]:
        own = {"WORKBENCH_HOME": str(self.folder / "home"), "OMP_NUM_THREADS": "1"}
        return {**os.environ, **own, "WORKBENCH_USER": "tester"}

    @contextmanager
    def store(self) -> Iterator[Store]:
        store = open_store(read_settings(self.variables))
        try:
            yield store
        finally:
            store.engine.dispose()

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [WORKBENCH, "campaign", "execute", *self.arguments], cwd=self.folder, text=True,
            env=self.variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def kill(self, when: Callable[[], bool]) -> bool:
        """Start it and kill it once the condition holds; return whether it was still running."""
        process = self.start()
        deadline = time.monotonic() + OPEN_S
        while not when() and process.poll() is None:
            assert time.monotonic() < deadline, "it never came so far"
            time.sleep(0.0005)
        process.send_signal(signal.SIGKILL)
        _, error = process.communicate(timeout=OPEN_S)
        assert process.returncode in {0, -signal.SIGKILL}, error
        return process.returncode != 0

    def finish(self) -> tuple[Execution, str]:
        process = self.start()
        printed, error = process.communicate(timeout=OPEN_S)
        assert process.returncode == 0, error
        with self.store() as store:
            return load_execution(store), printed

    def stored(self) -> Counter[tuple[str, str]]:
        """Return how often (target, case) was tried, as rows or in the artifact tell."""
        with self.store() as store:
            table = schema.attempts
            with store.engine.connect() as connection:
                rows = list(connection.execute(table.select()).mappings())
            found = {(row["target"], row["case_id"], row["trial"]) for row in rows}
            assert len(found) == len(rows)
            if store.artifacts.rows("execution"):
                done = load_execution(store)
                found |= {(one.target, one.case_id, one.trial) for one in done.attempts()}
            billed = sum((row.usd for row in store.ledger.rows()), Decimal(0))
            # What was answered is entered before it is stored, and nothing that was not.
            assert sum((Decimal(row["usd"]) for row in rows), Decimal(0)) <= billed
            assert billed <= PRICE * self.server.count
        return Counter((target, case) for target, case, _ in found)

    def sent(self) -> Counter[tuple[str, str]]:
        """Return how often each (target, case) was begun."""
        return Counter((target, self.first[said]) for target, said in self.server.log())

    @property
    def is_compacting(self) -> bool:
        """Whether something of the artifact is there already."""
        return any((self.folder / "home" / "artifacts" / "execution").glob("*"))


def figures(campaign: Campaign) -> dict[str, object]:
    """Return what must not depend on kills, of a finished execution."""
    with campaign.store() as store:
        done = load_execution(store)
        told = analyze(store, done.id)
        hits = Counter(
            one.details["case"]
            for one in events(store.engine, kind="vulnerable_prompt_detected", limit=100_000)
        )
        names = ("totals", "by_plugin", "by_strategy", "controls", "attempts", "errors", "usd")
        return {
            "id": done.id,
            "attempts": {
                (one.target, one.case_id, one.trial, one.sent, one.received, one.success, one.usd)
                for one in done.attempts()
            },
            "count": (done.count, done.errors),
            "told": {name: told[name] for name in names},
            "findings": told["findings"],
            "hits": hits,
        }


def paid(campaign: Campaign) -> tuple[Decimal, float]:
    """Return what the ledger says: dollars and calls."""
    with campaign.store() as store:
        rows = store.ledger.rows()
    return sum((row.usd for row in rows), Decimal(0)), sum(row.quantity for row in rows)
