"""Several hosts on one switch: network namespaces with a cable each, which tests may pull.

A host has a name, an address and processes of its own; it ends as at a power cut. The file system
is the machine's, as if all had mounted the same share. Nothing of it outlives the test.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from dask_processes import Site, wait_until
from machine import require

__all__ = ["Hosts", "open_hosts"]

BASE, DESK, HEAD, NODES = "base", "desk", "head", ("node1", "node2")
"""PostgreSQL; who asks for work, and the target; the scheduler; the workers."""
PORT, PG_PORT = 8786, 5432
ADDRESS = {name: f"10.99.0.{at}" for at, name in enumerate((BASE, DESK, HEAD, *NODES), start=1)}
_UNSHARED = ("unshare", "--net", "--uts", "--pid", "--fork", "--mount-proc")
_NOBODY = "02:00:00:00:00:99"
"""A link address that no host has."""


class Host:
    """A host: namespaces that live as long as their first process."""

    def __init__(self, name: str, *, switch: Host | None) -> None:
        self.name = name
        self._switch = switch
        self._own = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *_UNSHARED, "--kill-child",
             "sh", "-c", f"hostname {name} && exec sleep infinity"],
            stderr=subprocess.PIPE,
        )  # fmt: skip
        self._first = psutil.Process(self._own.pid)
        try:
            self._first = wait_until(self._sleeper, seconds=20, what=f"{name} is up")
            self.ip("link", "set", "lo", "up")
            if switch:
                self._plug_in(switch)
            else:
                self.ip("link", "add", "bridge0", "type", "bridge")
                self.ip("link", "set", "bridge0", "up")
        except BaseException:
            self.crash()
            raise

    def _sleeper(self) -> psutil.Process | None:
        assert self._own.poll() is None, self._own.stderr.read().decode()
        children = psutil.Process(self._own.pid).children()
        return next((one for one in children if one.name() == "sleep"), None)

    def _plug_in(self, switch: Host) -> None:
        cable, pid = f"to-{self.name}", str(self._first.pid)
        switch.ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", pid)
        switch.ip("link", "set", cable, "master", "bridge0", "up")
        self.ip("address", "add", f"{ADDRESS[self.name]}/24", "dev", "eth0")
        self.ip("link", "set", "eth0", "up")

    def command(self, *command: str) -> list[str]:
        """Return a command that runs another one on this host."""
        return ["nsenter", "-t", str(self._first.pid), "-n", "-u", "-p", "-m", "--", *command]

    def call(self, *command: str) -> None:
        """Run a command here."""
        _call(self.command(*command))

    def ip(self, *words: str) -> None:
        """Set something of the network here; processes have the numbers that the machine gives."""
        _call(["nsenter", "-t", str(self._first.pid), "-n", "ip", *words])

    def cut(self) -> None:
        """Pull the cable, at the switch."""
        assert self._switch
        self._switch.ip("link", "set", f"to-{self.name}", "down")

    def mend(self) -> None:
        """Put the cable back."""
        assert self._switch
        self._switch.ip("link", "set", f"to-{self.name}", "up")

    def cut_from(self, other: str) -> None:
        """Have all that is sent to one other host vanish."""
        to = ADDRESS[other]
        self.ip("neigh", "replace", to, "lladdr", _NOBODY, "nud", "permanent", "dev", "eth0")

    def mend_to(self, other: str) -> None:
        """Let it come through again."""
        self.ip("neigh", "del", ADDRESS[other], "dev", "eth0")

    def crash(self) -> None:
        """End everything that runs here."""
        if self._first.is_running():
            self._first.kill()  # the first process of a host: all others end with it
        self._own.wait()
        self._own.stderr.close()


class Hosts(Site):
    """A site over several hosts: workers on two, scheduler, database and desk on one each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workers = []
        self._others: list[subprocess.Popen[Any]] = []
        self.code = self.copy_code("code")
        self.spec = f"dask://{ADDRESS[HEAD]}:{PORT}"
        self.hosts: dict[str, Host] = {}
        try:
            self.switch = Host("switch", switch=None)
            for name in ADDRESS:
                self.hosts[name] = Host(name, switch=self.switch)
            self._start_database()
            self.start_scheduler()
            for name in NODES:
                self.start_worker(host=name)
        except BaseException:
            self.close()
            raise

    @property
    def variables(self) -> dict[str, str]:
        """What all hosts have in their environment."""
        url = f"postgresql+psycopg://tester@{ADDRESS[BASE]}:{PG_PORT}/postgres"
        own = {"WORKBENCH_DATABASE_URL": url, "WORKBENCH_OFFLINE": "0"}
        return {**os.environ, **own, "PYTHONPATH": str(self.code), "OMP_NUM_THREADS": "1"}

    @property
    def url(self) -> str:
        """Of the database for the test itself, which has no cable."""
        return f"postgresql+psycopg://tester@/postgres?host={self._data.parent}"

    def start(self, *command: str, host: str = DESK, **options: Any) -> subprocess.Popen[Any]:
        """Start a Python command on a host."""
        # a namespace of mounts is entered at its root
        cwd = str(options.pop("cwd", self.folder))
        command = self.hosts[host].command("env", "-C", cwd, sys.executable, *command)
        process = subprocess.Popen(command, **{"env": self.variables, **options})
        self._others.append(process)
        return process

    def start_scheduler(self) -> subprocess.Popen[Any]:
        """Start the scheduler on its host."""
        with (self.folder / "scheduler.log").open("ab") as log:
            self.scheduler = self.start(
                "-m", "dask", "scheduler", "--host", ADDRESS[HEAD], "--port", str(PORT),
                "--no-dashboard", host=HEAD, stdout=log, stderr=log,
            )  # fmt: skip
        return self.scheduler

    def start_worker(self, *, host: str = "", **_: Any) -> subprocess.Popen[Any]:
        """Start a worker of one thread, with the nanny that starts it again."""
        with (self.folder / f"{host}.log").open("ab") as log:
            worker = self.start(
                "-m", "dask", "worker", f"tcp://{ADDRESS[HEAD]}:{PORT}", "--nthreads", "1",
                "--no-dashboard", "--host", ADDRESS[host], "--memory-limit", "0", "--name", host,
                "--local-directory", str(self.folder / host), host=host, stdout=log, stderr=log,
            )  # fmt: skip
        self.workers.append(worker)
        return worker

    def restart(self, name: str) -> None:
        """End a host as a power cut does, and start it again, with nothing running."""
        self.hosts[name].cut()  # so that it says goodbye to nobody
        self.hosts[name].crash()
        self.switch.ip("link", "del", f"to-{name}")
        self.hosts[name] = Host(name, switch=self.switch)

    def _start_database(self) -> None:
        programs = Path(require("postgresql", "initdb")).resolve().parent
        place = Path(f"/tmp/pg-{os.getpid()}")  # short, and open to the server's user
        place.mkdir()
        shutil.chown(place, "postgres")
        self._data = place / "data"
        self._as_postgres(programs / "initdb", "-D", self._data, "-A", "trust", "-U", "tester",
                          "-E", "UTF8", "--no-sync")  # fmt: skip
        with (self._data / "pg_hba.conf").open("a") as file:
            file.write("host all all 10.99.0.0/24 trust\n")
        listens = f"-c listen_addresses={ADDRESS[BASE]} -c port={PG_PORT} -c fsync=off"
        listens += f" -c unix_socket_directories={place}"
        self._as_postgres(programs / "pg_ctl", "-D", self._data, "-w", "-l", place / "log",
                          "-o", listens, "start")  # fmt: skip

    def _as_postgres(self, *command: object) -> None:
        self.hosts[BASE].call("runuser", "-u", "postgres", "--", *map(str, command))

    def close(self) -> None:
        """End all hosts, and what ran there."""
        for host in (*self.hosts.values(), getattr(self, "switch", None)):
            if host:
                host.crash()
        super().close()
        if hasattr(self, "_data"):
            shutil.rmtree(self._data.parent, ignore_errors=True)


@contextmanager
def open_hosts(folder: Path) -> Iterator[Hosts]:
    """Give five hosts on one switch; skip the test where the system makes none."""
    for program in ("unshare", "nsenter", "ip", "runuser", "setpriv"):
        require("namespaces", program)
    try:
        devices = "ip link add one type bridge && ip link add two type veth peer name three"
        _call([*_UNSHARED, "sh", "-c", devices])
    except AssertionError as error:
        pytest.skip(f"no network namespaces here: {error}")
    hosts = Hosts(folder)
    try:
        yield hosts
    finally:
        hosts.close()


def _call(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
