"""An execution over several worker processes: what one process promises holds over all of them.

The target is a server in a process of its own, which logs what it is
sent and how much of it is in flight. Workers are real processes, killed by SIGKILL.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import psutil
import pytest
from sqlalchemy import select

from campaign_server import (
    IN_FLIGHT,
    LOST,
    OPEN_S,
    PRICE,
    WORKBENCH,
    Campaign,
    Server,
    figures,
    paid,
    serve,
    test_set_of,
)
from workbench.store import schema
from workbench.store.campaigns import attempted, has_workers, unfinished

pytestmark = pytest.mark.slow

KILLS = 10
"""Per kind of executor, so 20 in all."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serve(tmp_path) as running:
        yield running


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the processes that a coordinator started for work."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for one in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if "spawn_main" in " ".join(one.cmdline()):
                    found.append(one)
    return found


def pids_at_work(campaign: Campaign) -> list[int]:
    """Return the processes that have a shard in hand."""
    table = schema.leases
    with campaign.store() as store, store.engine.connect() as connection:
        query = select(table.c.process).where(table.c.name.startswith("shard "))
        return [int(one.split(":")[1]) for one in connection.execute(query).scalars()]


def over(campaign: Campaign, executor: str, *, workers: int = 2) -> None:
    """Have a campaign made by workers from now on."""
    campaign.arguments += ["--executor", executor, "--workers", str(workers)]


def rows_of(campaign: Campaign) -> set[tuple[str, str]]:
    """Return (target, case) of the attempts that are rows now."""
    with campaign.store() as store:
        return {
            (name, case)
            for execution in unfinished(store.engine)
            for name in ("one", "two")
            for case, _ in attempted(store.engine, execution, target=name)
        }


def begun(campaign: Campaign) -> list[tuple[str, str]]:
    """Return each (target, case) as often as it was begun, in order."""
    return [(target, campaign.first[said]) for target, said in campaign.server.log()]


def wait_for(process: subprocess.Popen[str], target: Server, answers: int) -> bool:
    """Wait until so many answers were given; return whether it still runs."""
    deadline = time.monotonic() + OPEN_S
    while target.count < answers and process.poll() is None:
        assert time.monotonic() < deadline, "it never came so far"
        time.sleep(0.001)
    return process.poll() is None


def ended(process: subprocess.Popen[str], *, code: int = 0) -> str:
    out, error = process.communicate(timeout=2 * OPEN_S)
    assert process.returncode == code, error
    assert "Traceback" not in error, error
    return out + error


@pytest.fixture
def tidy() -> Iterator[list[psutil.Process]]:
    """Processes that must be gone in the end, and are."""
    started: list[psutil.Process] = []
    yield started
    _, alive = psutil.wait_procs(started, timeout=20)
    for one in alive:
        one.kill()
    assert not alive, f"{len(alive)} workers outlived their coordinator"


@pytest.mark.parametrize("executor", ["processes", "dask"])
def test_workers_killed_at_random_repeat_and_lose_nothing(tmp_path, server, executor) -> None:
    dice = random.Random(f"kill workers {executor}")
    tests = test_set_of(2_000, 200)
    campaign = Campaign(tmp_path / "killed", server, tests)
    over(campaign, executor)
    messages = sum(len(case.turns) + 1 for case in tests)
    process = campaign.start()
    kills = 0
    while kills < KILLS:
        left = len(tests) - len(rows_of(campaign))
        strike_at = server.count + dice.randrange(1, max(2, left // (KILLS + 1 - kills)))
        if not wait_for(process, server, strike_at):
            break
        stored, log = rows_of(campaign), len(server.log())
        if at_work := pids_at_work(campaign):
            with suppress(ProcessLookupError):  # it ended meanwhile
                os.kill(dice.choice(at_work), signal.SIGKILL)
                kills += 1
        wait_for(process, server, server.count + 20)  # somebody works again
        again = set(begun(campaign)[log:])
        assert not stored & again  # what was stored is not sent again
    ended(process)
    assert kills >= KILLS - 2
    sent = Counter(begun(campaign))
    repeats = sent.total() - len(sent)
    assert campaign.stored() == Counter(dict.fromkeys(sent, 1))  # each once, none lost
    assert len(sent) == len(tests)
    assert repeats <= kills * LOST  # calls whose answers a kill took
    assert server.most() <= IN_FLIGHT
    dollars, calls = paid(campaign)
    assert dollars == PRICE * Decimal(calls)
    assert messages <= calls <= server.count

    killed = figures(campaign)
    assert set(killed["hits"].values()) == {1}
    whole = Campaign(tmp_path / "whole", server, tests)
    whole.finish()
    assert figures(whole) == killed  # the same id, the same verdicts and rates


def test_a_coordinator_killed_is_followed_by_any_number_of_workers(tmp_path, server, tidy) -> None:
    tests = test_set_of(2_000, 100)  # enough for a machine that sends many before a kill arrives
    campaign = Campaign(tmp_path / "killed", server, tests, targets=("one", "two"))
    alone = [*campaign.arguments]
    messages = 2 * sum(len(case.turns) + 1 for case in tests)
    for executor, workers in (("processes", 3), ("dask", 2), ("processes", 2), ("", 1)):
        campaign.arguments = [*alone]
        if executor:
            over(campaign, executor, workers=workers)
        log = len(server.log())
        stored = rows_of(campaign)
        process = campaign.start()
        assert wait_for(process, server, server.count + messages // 10)
        tidy += workers_of(process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not stored & set(begun(campaign)[log:])
    log, stored = len(server.log()), rows_of(campaign)
    campaign.arguments = [*alone]
    over(campaign, "processes")
    began = time.monotonic()
    process = campaign.start()
    wait_for(process, server, server.count + 1)
    assert time.monotonic() - began < 30  # nobody waits for the lease of a process that died here
    ended(process)
    assert not stored & set(begun(campaign)[log:])
    sent = Counter(begun(campaign))
    assert campaign.stored() == Counter(dict.fromkeys(sent, 1))
    assert len(sent) == 2 * len(tests)
    assert server.most() <= IN_FLIGHT
    figures(campaign)


def test_an_abort_and_a_signal_reach_all_workers(tmp_path, server, tidy) -> None:
    tests = test_set_of(4_000, 0)
    campaign = Campaign(tmp_path / "aborted", server, tests)
    over(campaign, "processes")
    process = campaign.start()
    assert wait_for(process, server, 300)
    tidy += workers_of(process)
    with campaign.store() as store:
        (execution,) = unfinished(store.engine)
    subprocess.run(
        [WORKBENCH, "campaign", "abort", execution],
        cwd=campaign.folder, env=campaign.variables, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    assert "aborted; what is done is kept" in ended(process, code=1)
    sent = len(server.log())
    assert len(rows_of(campaign)) == sent < len(tests)  # calls in flight ended and are kept
    with campaign.store() as store:
        assert not has_workers(store.engine, execution)

    process = campaign.start()
    assert wait_for(process, server, server.count + 300)
    tidy += workers_of(process)
    process.send_signal(signal.SIGTERM)
    assert "interrupted; answers are kept" in ended(process, code=1)
    assert len(rows_of(campaign)) == len(server.log()) < len(tests)

    ended(campaign.start())
    assert len(server.log()) == len(tests)


def test_a_budget_holds_over_all_workers(tmp_path, server) -> None:
    tests = test_set_of(600, 0)
    campaign = Campaign(tmp_path / "priced", server, tests)
    over(campaign, "processes")
    arguments = [*campaign.arguments]
    messages = sum(len(case.turns) + 1 for case in tests)
    for share in (0.3, 0.6):
        budget = (PRICE * messages * Decimal(str(share))).quantize(PRICE)
        campaign.arguments = [*arguments, "--budget", str(budget)]
        assert "leaves too little" in ended(campaign.start(), code=3)
        assert budget - 3 * PRICE < PRICE * server.count <= budget  # and not much less
        assert paid(campaign)[0] == PRICE * server.count
    campaign.arguments = [*arguments, "--budget", str(PRICE * messages)]  # exactly enough
    ended(campaign.start())
    assert server.count == messages
    assert paid(campaign)[0] == PRICE * messages


def test_failed_attempts_alone_are_made_again(tmp_path, server) -> None:
    tests = test_set_of(300, 0)
    campaign = Campaign(tmp_path / "errors", server, tests)
    whole = (campaign.folder / "one.yaml").read_text()
    over(campaign, "processes")
    # The same answers count, but most of them are longer than what is let in at first.
    (campaign.folder / "one.yaml").write_text(f"{whole}max_response_bytes: 60\n")
    process = campaign.start()
    process.communicate(timeout=2 * OPEN_S)
    first = Counter(begun(campaign))
    assert set(first.values()) == {1}
    (campaign.folder / "one.yaml").write_text(whole)
    campaign.arguments += ["--retry-errors"]
    done = ended(campaign.start())
    assert "300 attempts" in done
    assert ", 0 errors" in done
    again = Counter(begun(campaign)) - first
    assert 0 < again.total() < 300
    assert set(again.values()) == {1}
