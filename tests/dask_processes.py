"""Schedulers with workers: processes of their own, which tests may kill, or threads."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

import workbench

_PACKAGE = Path(workbench.__file__).parent


def wait_until(said: Callable[[], Any], *, seconds: float = 120, what: str = "") -> Any:
    """Return what a call says as soon as it is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := said():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what or said}")


@contextmanager
def scheduler(workers: int = 1) -> Iterator[str]:
    """Give the executor of a scheduler whose workers are threads of this process."""
    with pytest.importorskip("distributed").LocalCluster(
        n_workers=workers, threads_per_worker=1, processes=False, protocol="tcp",
        host="127.0.0.1", dashboard_address="127.0.0.1:0",
    ) as local:  # fmt: skip
        yield local.scheduler_address.replace("tcp:", "dask:")


class Site:
    """A project's machines: one scheduler, workers, and a copy of the code that nobody edits."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workers: list[subprocess.Popen[bytes]] = []
        self.code = self.copy_code("code")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.spec = f"dask://127.0.0.1:{self.port}"
        self._others: list[subprocess.Popen[bytes]] = []
        self.scheduler = self.start_scheduler()

    def copy_code(self, name: str) -> Path:
        """Return a folder with a copy of the package, for ``PYTHONPATH``."""
        ignored = shutil.ignore_patterns("__pycache__")
        code = self.folder / name
        shutil.copytree(_PACKAGE, code / "workbench", ignore=ignored)
        seeds = _PACKAGE.parents[1] / "data" / "seeds"  # beside the sources, as in a checkout
        shutil.copytree(seeds, code / "workbench" / "seeds")
        return code

    def start(
        self, *command: str, code: Path | None = None, **options: Any
    ) -> subprocess.Popen[bytes]:
        """Start a process in the project with the copy of the code."""
        variables = {"PYTHONPATH": str(code or self.code), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, *command], cwd=self.folder, env={**os.environ, **variables}, **options
        )
        self._others.append(process)
        return process

    def start_scheduler(self) -> subprocess.Popen[bytes]:
        """Start the scheduler, always at the same address."""
        log = (self.folder / "scheduler.log").open("ab")
        with log:
            self.scheduler = self.start(
                "-m", "dask", "scheduler", "--host", "127.0.0.1", "--port", str(self.port),
                "--no-dashboard", "--dashboard-address", "127.0.0.1:0", stdout=log, stderr=log,
            )  # fmt: skip
        wait_until(self._listens, what="the scheduler listens")
        return self.scheduler

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def start_worker(self, *, code: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a worker of one thread."""
        log = (self.folder / f"worker-{len(self._others)}.log").open("wb")
        with log:
            worker = self.start(
                "-m", "dask", "worker", f"tcp://127.0.0.1:{self.port}", "--nthreads", "1",
                "--no-nanny", "--no-dashboard", "--host", "127.0.0.1", "--memory-limit", "0",
                "--local-directory", str(self.folder), code=code, stdout=log, stderr=log,
            )  # fmt: skip
        self.workers.append(worker)
        return worker

    def kill_worker(self, worker: subprocess.Popen[bytes]) -> None:
        """Kill a worker as the system does when memory is short."""
        worker.kill()
        worker.wait()
        self.workers.remove(worker)

    def workbench(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start a command of the product."""
        return self.start("-c", "from workbench.cli import main; main()", *arguments, **options)

    def close(self) -> None:
        """End everything that was started here."""
        for process in self._others:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe:
                    pipe.close()


@contextmanager
def open_site(folder: Path, *, workers: int) -> Iterator[Site]:
    """Give a site with workers."""
    site = Site(folder)
    try:
        for _ in range(workers):
            site.start_worker()
        yield site
    finally:
        site.close()


def kernels(home: Path) -> list[psutil.Process]:
    """Return the kernels of runs in a home that are alive."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        try:
            is_kernel = "ipykernel" in " ".join(process.info["cmdline"] or ())
            if is_kernel and process.environ().get("WORKBENCH_HOME") == str(home):
                found.append(process)
        except psutil.Error:
            continue
    return found
