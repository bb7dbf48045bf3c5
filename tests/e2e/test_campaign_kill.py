"""kill -9 in the middle of an execution: the next process goes on and sends nothing twice.

The target is a server in a process of its own that logs every request. A case is known by the first
message of its conversation.
"""

from __future__ import annotations

import json
import os
import random
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

import pytest
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

pytestmark = pytest.mark.slow

WORKBENCH = str(Path(sys.executable).parent / "workbench")
CASES, CONTROLS, KILLS = 2_000, 200, 20
IN_FLIGHT = 32
LOST = 64 + 64 + IN_FLIGHT
"""Most tries that a kill may lose: those that wait for judges, are being judged and stored, and are
in flight."""
PRICE = Decimal("0.001")
OPEN_S = 60
SERVER = """\
import asyncio, hashlib, json, os, sys
from aiohttp import web

asked, answered = (os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for path in sys.argv[1:])

async def handle(request):
    said = [one["content"] for one in (await request.json())["messages"] if one["role"] == "user"]
    os.write(asked, (json.dumps([request.path, said]) + "\\n").encode())
    await asyncio.sleep(0.005)
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
        lines = self.asked.read_bytes().split(b"\n")[:-1]
        asked = [json.loads(line) for line in lines]
        return [(path.strip("/"), said[0]) for path, said in asked if len(said) == 1]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    logs = [tmp_path / name for name in ("asked", "answered")]
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


def price_of(done: Execution) -> Decimal:
    """Return what the attempts that count were billed."""
    return sum((one.usd for one in done.attempts()), Decimal(0))


def check_kill(campaign: Campaign, before: Counter[tuple[str, str]]) -> Counter[tuple[str, str]]:
    """Check what a kill left; return what is stored now."""
    now, sent = campaign.stored(), campaign.sent()
    assert not before - now  # nothing that was stored is lost
    assert not now - sent  # and nothing made up
    return now


def test_one_execution_killed_twenty_times_ends_as_if_it_never_was(tmp_path, server) -> None:
    dice = random.Random("twenty kills")
    tests = test_set_of(CASES, CONTROLS)
    campaign = Campaign(tmp_path / "killed", server, tests)
    messages = sum(len(case.turns) + 1 for case in tests)
    stored: Counter[tuple[str, str]] = Counter()
    struck = losses = 0
    for number in range(KILLS):
        sent = campaign.sent()
        begun, left = server.count, len(tests) - stored.total()
        if number < KILLS - 4:  # in the middle of what is left, whatever the machine's speed
            share = max(1, left // (KILLS - number))
            strike_at = begun + dice.randrange(1, 2 * share + 1)
            struck += campaign.kill(lambda at=strike_at: server.count >= at)
        elif number < KILLS - 2:  # all is answered, the last of it is not stored
            whole = begun + sum(
                len(case.turns) + 1 for case in tests if ("one", case.id) not in stored
            )
            struck += campaign.kill(lambda at=whole: server.count >= at)
        else:  # the artifact is being made
            struck += campaign.kill(lambda: campaign.is_compacting)
        again = campaign.sent() - sent
        assert not stored.keys() & again.keys()  # what was stored is not sent again
        assert len(again) == again.total()  # nor anything twice by one process
        stored = check_kill(campaign, stored)
        lost = campaign.sent().keys() - stored.keys()
        assert len(lost) <= LOST
        losses += len(lost)
    assert struck >= KILLS - 4  # the last four may come too late

    done, _ = campaign.finish()
    sent = campaign.sent()
    assert stored.total() <= done.count == len(sent) == len(tests)
    assert sent.total() - len(tests) <= losses  # each repeat was lost by a kill
    assert (done.errors, price_of(done)) == (0, PRICE * messages)
    dollars, calls = paid(campaign)
    assert done.usd == dollars == PRICE * Decimal(calls)
    # Each message once, and those again whose answers a kill lost: they were paid for.
    assert messages <= calls <= server.count <= messages + 3 * losses
    assert campaign.stored() == Counter(dict.fromkeys(sent, 1))
    killed = figures(campaign)
    assert set(killed["hits"].values()) == {1}

    seen = server.count
    whole = Campaign(tmp_path / "whole", server, tests)
    whole.finish()
    assert server.count - seen == messages
    assert figures(whole) == killed
    assert paid(whole) == (PRICE * messages, messages)

    seen = server.count
    assert f"{done.count} of them from before" in campaign.finish()[1]
    assert server.count == seen
    with campaign.store() as store, store.engine.connect() as connection:
        assert connection.execute(schema.attempts.select()).first() is None


@pytest.mark.parametrize("seed", range(3))
def test_killed_once_with_several_targets_and_trials(tmp_path, server, seed) -> None:
    dice = random.Random(f"several {seed}")
    tests = test_set_of(150, 20)
    campaign = Campaign(tmp_path / "killed", server, tests, targets=("one", "two"))
    campaign.arguments += ["--trials", "2"]
    messages = 4 * sum(len(case.turns) + 1 for case in tests)
    strike_at = dice.randrange(1, messages)
    assert campaign.kill(lambda: server.count >= strike_at)
    before, stored = campaign.sent(), check_kill(campaign, Counter())
    assert (before - stored).total() <= LOST + IN_FLIGHT  # of each target so many in flight
    done, _ = campaign.finish()
    again = campaign.sent() - before
    want = Counter({(target, case.id): 2 for target in ("one", "two") for case in tests})
    assert again == want - stored
    assert campaign.stored() == want
    assert (done.count, done.errors, price_of(done)) == (want.total(), 0, PRICE * messages)
    dollars, calls = paid(campaign)
    assert done.usd == dollars == PRICE * Decimal(calls)
    assert messages <= calls <= server.count
    figures(campaign)


@pytest.mark.parametrize("delay_ms", [0, 5, 40])
def test_killed_while_it_is_compacted_it_sends_nothing_more(tmp_path, server, delay_ms) -> None:
    tests = test_set_of(300, 0)
    campaign = Campaign(tmp_path / "killed", server, tests)

    def when() -> bool:
        is_so_far = campaign.is_compacting
        if is_so_far:
            time.sleep(delay_ms / 1000)
        return is_so_far

    campaign.kill(when)
    sent = campaign.sent()
    assert campaign.stored() == sent == Counter(dict.fromkeys(sent, 1))
    done, printed = campaign.finish()
    assert "300 of them from before" in printed
    assert campaign.sent() == sent
    assert (done.count, done.errors) == (300, 0)
    figures(campaign)
