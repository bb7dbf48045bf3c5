"""Executors: what names one, who may work for it, and how lost work is told."""

from __future__ import annotations

import operator
import os
import time
from concurrent.futures import CancelledError
from contextlib import contextmanager

import pytest

from workbench.core import cluster
from workbench.core.cluster import Cluster, check_executor, open_executor
from workbench.core.errors import ConfigError, WorkerLost

distributed = pytest.importorskip("distributed")


@contextmanager
def scheduler(workers: int = 1):
    """Give the executor of a scheduler whose workers are threads of this process."""
    with distributed.LocalCluster(
        n_workers=workers, threads_per_worker=1, processes=False, protocol="tcp",
        host="127.0.0.1", dashboard_address="127.0.0.1:0",
    ) as local:  # fmt: skip
        yield local.scheduler_address.replace("tcp:", "dask:")


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


def test_a_process_that_is_killed_is_told_as_lost_work():
    with open_executor("processes", jobs=1) as executor:
        with pytest.raises(WorkerLost, match="the work was lost with its worker"):
            executor.submit(os._exit, 3).result()
        with pytest.raises(WorkerLost):
            executor.submit(operator.add, 1, 1).result()


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
