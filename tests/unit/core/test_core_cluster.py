"""Executors: what names one, who may work for it, and how lost work is told."""

from __future__ import annotations

import logging
import operator
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import CancelledError
from contextlib import suppress

import psutil
import pytest

from dask_processes import scheduler
from workbench.core import cluster
from workbench.core.cluster import Cluster, check_executor, open_executor
from workbench.core.errors import ConfigError, WorkerLost

distributed = pytest.importorskip("distributed")


@pytest.mark.parametrize(
    "spec", ["threads", "processes", "dask", "dask://h", "dask://[::1]:8786", "dask://h:1/"]
)
def test_what_names_an_executor(spec):
    assert check_executor(spec) == spec


@pytest.mark.parametrize(
    "spec", ["", "thread", "ray", "dask:", "dask://", "dask//h", "dask://h:x", "dask://h:99999",
             "dask://h/x", "dask://a@h", "tcp://h:1", "http://h"],
)  # fmt: skip
def test_what_names_none(spec):
    with pytest.raises(ConfigError, match=r"no executor .*dask://host:8786"):
        check_executor(spec)


def test_each_executor_gives_results_and_errors():
    with scheduler(workers=2) as address:
        for spec in ("threads", address):
            with open_executor(spec, jobs=2) as executor:
                assert [executor.submit(operator.add, 1, n).result() for n in range(3)] == [1, 2, 3]
                assert list(executor.map(operator.neg, [1, 2])) == [-1, -2]
                with pytest.raises(ZeroDivisionError):
                    executor.submit(operator.truediv, 1, 0).result()
                assert not isinstance(executor, Cluster) or executor.width == 2


def die_so_often(folder, times):
    """Kill this process so many times, then tell who is alive."""
    for number in range(times):
        with suppress(FileExistsError):
            (folder / str(number)).touch(exist_ok=False)
            os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def test_what_a_killed_process_had_another_does_and_others_lose_nothing(tmp_path):
    with open_executor("processes", jobs=2) as executor:
        others = executor.submit(time.sleep, 3)
        assert executor.submit(die_so_often, tmp_path, 3).result(60) != os.getpid()
        assert others.result(10) is None
        assert [executor.submit(operator.add, 1, n).result() for n in range(3)] == [1, 2, 3]


def test_what_kills_every_process_is_told_as_lost_work(tmp_path):
    with open_executor("processes", jobs=1) as executor:
        with pytest.raises(WorkerLost, match="the work was lost with its worker"):
            executor.submit(die_so_often, tmp_path, 9).result(60)
        assert len(list(tmp_path.iterdir())) == cluster._LIVES
        assert executor.submit(operator.add, 1, 1).result() == 2


def test_processes_leave_an_interrupt_to_whoever_started_them():
    with open_executor("processes", jobs=1) as executor:
        pid = executor.submit(os.getpid).result()
        os.kill(pid, signal.SIGINT)
        assert executor.submit(os.getpid).result(10) == pid


@pytest.mark.slow
def test_a_process_does_not_outlive_a_killed_parent(tmp_path):
    code = (
        "import os, signal, time\nfrom workbench.core.cluster import open_executor\n"
        "if __name__ == '__main__':\n"
        "    with open_executor('processes', jobs=1) as executor:\n"
        "        print(executor.submit(os.getpid).result(), flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    file = tmp_path / "parent.py"
    file.write_text(code)
    done = subprocess.run(
        [sys.executable, str(file)], stdout=subprocess.PIPE, check=False, timeout=60
    )
    with suppress(psutil.NoSuchProcess):
        psutil.Process(int(done.stdout)).wait(timeout=10)


@pytest.mark.slow
def test_a_local_cluster_gets_new_workers_where_dask_gives_them_up():
    import dask

    soon = {"distributed.deploy.lost-worker-timeout": "2s"}
    with dask.config.set(soon), open_executor("dask", jobs=1) as executor:
        assert executor.submit(operator.add, 1, 1).result(60) == 2
        (first,) = executor._scheduler.workers.values()
        deadline = time.monotonic() + 60
        while first.status.name != "closed" and time.monotonic() < deadline:
            for child in psutil.Process().children():  # also while they start
                with suppress(psutil.Error):
                    if "spawn_main" in " ".join(child.cmdline()):
                        child.kill()
                        child.wait(5)
            time.sleep(0.05)
        assert first.status.name == "closed"
        assert executor.submit(operator.add, 1, 2).result(60) == 3


def fail(_secret):
    raise ValueError("no")


def test_no_argument_of_a_failed_call_is_in_the_logs(caplog):
    with (
        scheduler() as address,
        open_executor(address, jobs=1) as executor,
        caplog.at_level(logging.DEBUG, "distributed"),
        pytest.raises(ValueError, match="no"),
    ):
        executor.submit(fail, "hunter2").result(10)
    assert "Compute Failed" in caplog.text
    assert "hunter2" not in caplog.text


SAID: list[str] = []


def version_said() -> str:
    """Return what is next in the list: of one worker first its own, when connected, then ours."""
    return SAID.pop(0)


def test_a_worker_of_other_code_is_refused_when_connected_and_later(monkeypatch):
    monkeypatch.setattr(cluster, "code_version", version_said)
    refused = r"worker tcp://127.0.0.1:\d+ has workbench code 1\+old, this is 2\+new; install"
    with scheduler() as address:
        SAID[:] = ["1+old", "2+new"]
        with pytest.raises(ConfigError, match=refused), open_executor(address, jobs=1):
            pass
        SAID[:] = ["2+new", "2+new"]
        with open_executor(address, jobs=1) as executor:
            SAID[:] = ["2+new", "1+old"]  # as asked for, then as found there
            with pytest.raises(ConfigError, match=refused):
                executor.submit(operator.add, 1, 1).result(10)
    assert SAID == []


TORCH: list[str] = []


def libraries_said() -> dict[str, str]:
    return {"python": "3.11.7", "torch": TORCH.pop(0), "scipy": "absent"}


def test_a_worker_of_other_libraries_is_refused_and_of_another_build_is_not(monkeypatch):
    monkeypatch.setattr(cluster, "library_versions", libraries_said)
    with scheduler() as address:
        TORCH[:] = ["2.5.0", "2.6.0"]
        refused = pytest.raises(ConfigError, match=r"has torch 2\.5\.0, this is 2\.6\.0; install")
        with refused, open_executor(address, jobs=1):
            pass
        TORCH[:] = ["2.6.0+cu126", "2.6.0", "2.6.0", "absent"]
        with open_executor(address, jobs=1) as executor:
            assert executor.submit(operator.add, 1, 1).result(10) == 2
    assert TORCH == []


def test_a_scheduler_that_nobody_started_or_works_for_is_told():
    with (
        pytest.raises(ConfigError, match=r"no scheduler answers at tcp://127\.0\.0\.1:1 .*start"),
        open_executor("dask://127.0.0.1:1", jobs=1, seconds=0.5),
    ):
        pass
    with (
        scheduler(workers=0) as address,
        pytest.raises(ConfigError, match="has no worker; start one with `dask worker`"),
        open_executor(address, jobs=1, seconds=0.5),
    ):
        pass


def test_a_future_that_has_not_begun_can_be_cancelled():
    with scheduler() as address, open_executor(address, jobs=1) as executor:
        first, second = (executor.submit(time.sleep, seconds) for seconds in (0.5, 60))
        assert second.cancel()
        with pytest.raises(CancelledError):
            second.result(5)
        assert first.result(10) is None
