"""Faults of a network of several hosts: cables pulled, short and long, and a host that restarts.

Each host has a cable of its own; campaigns and sweeps are asked for at one, and made at two others.
"""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from sqlalchemy import select

from campaign_server import LOST, PRICE, SERVER, Campaign, Server, figures, paid, test_set_of
from dask_processes import wait_until
from hosts import ADDRESS, BASE, DESK, HEAD, NODES, Hosts, open_hosts
from notebook_projects import write_experiment, write_notebook
from workbench.core.settings import read_settings
from workbench.store import schema
from workbench.store.database import Store, open_store
from workbench.store.leases import database_seconds, hold
from workbench.store.records import TestSet

pytest.importorskip("distributed")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SHORT_S = 8.0
SOME = 40
LEASE_S = 30.0
"""Of a run of a notebook."""
PARALLEL = 8
PORT = 8080
BODY = """\
import pathlib, socket, time
log = pathlib.Path({log!r})
def say(what):
    words = (what, n, session.folder.name, socket.gethostname(), time.time())
    with log.open("a") as out: out.write(" ".join(map(str, words)) + "\\n")
say("begun")
for _ in range({seconds}):
    time.sleep(1)
    say("works")
say("done")
"""


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    with open_hosts(tmp_path) as running:
        yield running


class Spread(Campaign):
    """A campaign that is asked for at one host and made at others, of a target at a third."""

    def __init__(self, hosts: Hosts, tests: TestSet) -> None:
        self.hosts = hosts
        logs = [hosts.folder / name for name in ("asked", "answered")]
        code = SERVER.replace('"127.0.0.1", 0', f'"{ADDRESS[DESK]}", {PORT}').replace(
            "0.005", "0.2"
        )
        self._target = hosts.start("-c", code, *map(str, logs), stdout=subprocess.PIPE, text=True)
        assert self._target.stdout.readline()
        server = Server(f"http://{ADDRESS[DESK]}:{PORT}", *logs)
        super().__init__(hosts.folder / "campaign", server, tests)
        told = yaml.safe_load((self.folder / "one.yaml").read_text())
        told |= {"parallel": PARALLEL, "staging": True}
        (self.folder / "one.yaml").write_text(yaml.safe_dump(told))
        self.arguments += [
            "--allow-host",
            ADDRESS[DESK],
            "--executor",
            hosts.spec,
            "--workers",
            "2",
        ]

    @property
    def variables(self) -> dict[str, str]:
        own = {"WORKBENCH_HOME": str(self.folder / "home"), "WORKBENCH_USER": "tester"}
        return {**self.hosts.variables, **own}

    @contextmanager
    def store(self) -> Iterator[Store]:
        with store_of(self.hosts, self.folder / "home") as store:
            yield store

    def start(self) -> subprocess.Popen[str]:
        return self.hosts.start(
            "-c", "from workbench.cli import main; main()", "campaign", "execute", *self.arguments,
            cwd=self.folder, env=self.variables, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip

    def under_way(self) -> subprocess.Popen[str]:
        """Start it; return once both workers have sent some."""
        process = self.start()

        def both() -> bool:
            assert process.poll() is None, process.communicate()
            return all(len(self.server.times(ADDRESS[name])) > SOME for name in NODES)

        wait_until(both, what="both workers send")
        return process

    def shards(self) -> dict[str, float]:
        """Return host → seconds that its lease of a shard has left."""
        table = schema.leases
        with self.store() as store, store.engine.connect() as connection:
            left = table.c.until - database_seconds(store.engine)
            query = select(table.c.process, left).where(table.c.name.startswith("shard "))
            return {who.split(":")[0].split("/")[0]: s for who, s in connection.execute(query)}

    def check_truth(self, *, most_repeats: int) -> None:
        """Every case is stored, told and judged once, and paid as often as it was answered."""
        sent = self.sent()
        assert sum(sent.values()) - len(sent) <= most_repeats
        assert self.stored() == Counter(dict.fromkeys(sent, 1))
        assert len(sent) == len(self.tests)
        told = figures(self)
        assert told["count"] == (len(self.tests), 0)
        assert set(told["hits"].values()) == {1}
        assert paid(self)[0] <= PRICE * self.server.count
        assert self.server.most() <= PARALLEL


@contextmanager
def store_of(hosts: Hosts, home: Path) -> Iterator[Store]:
    variables = {"WORKBENCH_HOME": str(home), "WORKBENCH_USER": "tester"}
    store = open_store(read_settings({**variables, "WORKBENCH_DATABASE_URL": hosts.url}))
    try:
        yield store
    finally:
        store.engine.dispose()


def ended(process: subprocess.Popen[str], *, seconds: float = 300, code: int = 0) -> str:
    printed, error = process.communicate(timeout=seconds)
    assert process.returncode == code, printed + error
    return printed + error


class Sweep:
    """Notebooks that say in a file what they do, where and when, once a second."""

    def __init__(self, hosts: Hosts, *, members: int, seconds: int) -> None:
        self.hosts, self.members = hosts, members
        self.folder = hosts.folder / "sweep"
        self._log = self.folder / "log"
        write_notebook(
            self.folder, "work", parameters="n: int = 0  # which",
            body=BODY.format(log=str(self._log), seconds=seconds),
            result="{'kind': 'x', 'n': n}",
        )  # fmt: skip
        step = {"notebook": "work", "matrix": {"n": list(range(members))}}
        write_experiment(self.folder, {"work": step})

    def start(self) -> subprocess.Popen[str]:
        own = {"WORKBENCH_HOME": str(self.folder / "home"), "WORKBENCH_USER": "tester"}
        return self.hosts.start(
            "-c", "from workbench.cli import main; main()", "run", "experiments/trial.yaml",
            "--executor", self.hosts.spec, "--no-report", "--jobs", "2", cwd=self.folder,
            env={**self.hosts.variables, **own, "WORKBENCH_OFFLINE": "1"},
            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def said(self, what: str, host: str = "") -> list[tuple[int, str, float]]:
        """Return (member, run, when) of what was said, by one host or all."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        told = [line.split() for line in lines]
        return [
            (int(n), run, float(at))
            for said, n, run, where, at in told
            if said == what and where == (host or where)
        ]

    def check_truth(self, *, lost: int) -> None:
        """Every member finished once; what was lost on the way is told, and all charged once."""
        with store_of(self.hosts, self.folder / "home") as store:
            rows, ledger = store.runs.find(experiment="trial"), store.ledger.rows()
        finished = [run for run in rows if run.state == "succeeded"]
        assert sorted(run.result["n"] for run in finished) == list(range(self.members))
        states = Counter(run.state for run in rows)
        assert states == Counter(succeeded=self.members, lost=lost) + Counter(), states
        begun = Counter(run for _, run, _ in self.said("begun"))
        assert set(begun.values()) == {1}  # no run was ever executed twice
        assert {run.id for run in finished} <= {run for _, run, _ in self.said("done")}
        charged = Counter((row.job, row.resource) for row in ledger if row.phase == "training")
        assert set(charged.values()) == {1}
        assert {run.id for run in finished} <= {job for job, _ in charged}


def test_a_campaign_and_a_sweep_go_through(hosts):
    campaign = Spread(hosts, test_set_of(200, 20))
    ended(campaign.start())
    campaign.check_truth(most_repeats=0)
    assert all(campaign.server.times(ADDRESS[node]) for node in NODES)
    sweep = Sweep(hosts, members=4, seconds=2)
    ended(sweep.start())
    sweep.check_truth(lost=0)
    assert all(sweep.said("done", node) for node in NODES)


def test_a_short_cut_costs_a_sweep_nothing(hosts):
    sweep = Sweep(hosts, members=2, seconds=30)
    process = sweep.start()
    wait_until(lambda: all(sweep.said("works", node) for node in NODES))
    for name in ("node1", BASE):
        hosts.hosts[name].cut()
        time.sleep(SHORT_S)
        hosts.hosts[name].mend()
        time.sleep(3)
    ended(process)
    sweep.check_truth(lost=0)


def test_a_cut_longer_than_the_lease_of_a_run(hosts):
    sweep = Sweep(hosts, members=3, seconds=25)
    process = sweep.start()
    wait_until(lambda: all(sweep.said("works", node) for node in NODES))
    ((member, run, _),) = sweep.said("begun", "node1")
    hosts.hosts["node1"].cut()
    cut_at = time.time()
    wait_until(
        lambda: member in {n for n, _, _ in sweep.said("begun", "node2")},
        seconds=200, what="node2 begins it again",
    )  # fmt: skip
    last = max(at for _, one, at in sweep.said("works") if one == run)
    assert last < cut_at + LEASE_S
    hosts.hosts["node1"].mend()
    ended(process)
    sweep.check_truth(lost=1)


def test_a_short_cut_costs_a_campaign_nothing(hosts):
    campaign = Spread(hosts, test_set_of(1_000, 100))
    process = campaign.under_way()
    for name in ("node1", "node2", BASE):
        hosts.hosts[name].cut()
        time.sleep(SHORT_S)
        hosts.hosts[name].mend()
        time.sleep(3)
    ended(process)
    campaign.check_truth(most_repeats=0)


def test_a_cut_longer_than_the_lease_of_a_campaign(hosts):
    campaign = Spread(hosts, test_set_of(1_500, 100))
    process = campaign.under_way()
    hosts.hosts["node1"].cut()
    wait_until(lambda: set(campaign.shards()) == {"node2"}, seconds=150, what="node2 has all")
    hosts.hosts["node1"].mend()
    ended(process)
    campaign.check_truth(most_repeats=LOST)


def test_who_cannot_reach_the_database_sends_nothing_more(hosts):
    campaign = Spread(hosts, test_set_of(3_000, 0))
    process = campaign.under_way()
    hosts.hosts["node1"].cut_from(BASE)
    left = campaign.shards()["node1"]
    cut_at = time.time()
    wait_until(lambda: campaign.shards().get("node1", -1) < 0, what="its lease has run out")
    time.sleep(5)
    last = max(campaign.server.times(ADDRESS["node1"]))
    assert last < cut_at + left
    hosts.hosts["node1"].mend_to(BASE)
    ended(process)
    campaign.check_truth(most_repeats=LOST)


HALF = """\
import os, sys, time
from workbench.core.settings import read_settings
from workbench.store.database import open_store
from workbench.store.leases import hold
from workbench.store.transaction import transaction
store = open_store(read_settings(os.environ))
with hold(store.engine, "piece", holder="node1", seconds=3) as lease:
    with transaction(store.engine) as connection:
        lease.fence(connection)
        print("fenced", flush=True)
        time.sleep(600)
"""


def test_locks_of_a_host_that_was_cut_off_in_a_transaction_end(hosts):
    variables = {**hosts.variables, "WORKBENCH_HOME": str(hosts.folder / "home")}
    half = hosts.start("-c", HALF, host="node1", env=variables, stdout=subprocess.PIPE, text=True)
    assert half.stdout.readline() == "fenced\n"
    hosts.hosts["node1"].cut()
    began = time.monotonic()
    with (
        store_of(hosts, hosts.folder / "home") as store,
        hold(store.engine, "piece", holder="node2", seconds=3, patience_s=60),
    ):
        pass  # its locks were given up
    assert time.monotonic() - began < 60


def test_the_host_of_the_scheduler_restarts(hosts):
    campaign = Spread(hosts, test_set_of(1_000, 100))
    process = campaign.under_way()
    hosts.restart(HEAD)
    time.sleep(5)
    hosts.start_scheduler()
    for name, worker in zip(NODES, [*hosts.workers], strict=True):
        wait_until(lambda one=worker: one.poll() is not None, what="a worker ends with it")
        hosts.start_worker(host=name)  # as whoever keeps it running would
    ended(process)
    campaign.check_truth(most_repeats=2 * LOST)
