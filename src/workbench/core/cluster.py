"""Where work runs: threads, processes or a Dask cluster, behind ``concurrent.futures``.

What is submitted to a cluster is a module-level function with plain arguments. Its worker takes
the rest from settings and store, and does it only with the very code that asked for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from workbench.core.errors import ConfigError, WorkerLost
from workbench.core.provenance import code_version

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Cluster", "check_executor", "open_executor"]

_PORT = 8786
_RECONNECT_S = 60.0
"""How long a scheduler that went away is waited for."""
_LOOK_S = 0.2
_FIX = "install the same version on both and start that worker again"


def check_executor(spec: str) -> str:
    """Return what names an executor, if it does.

    Raises:
        ConfigError: If it is none of ``threads``, ``processes``, ``dask``, ``dask://host:port``.
    """
    with suppress(ValueError):
        parts = urlsplit(spec)
        is_address = parts.scheme == "dask" and parts.hostname and (parts.port or _PORT)
        rest = parts.path.strip("/") or parts.query or parts.fragment or parts.username
        if spec in {"threads", "processes", "dask"} or (is_address and not rest):
            return spec
    raise ConfigError(
        f"no executor {spec!r}; give threads, processes, dask (workers of this machine) or the"
        f" address of a scheduler, e.g. dask://host:{_PORT}"
    )


@contextmanager
def open_executor(spec: str, *, jobs: int, seconds: float = 10) -> Iterator[Executor]:
    """Give the executor that a spec names; it is closed, and what it runs awaited, at the end.

    Args:
        spec: See :func:`check_executor`.
        jobs: Tasks at a time; a scheduler that is running already has workers of its own.
        seconds: To wait for a scheduler, and for its first worker.

    Raises:
        ConfigError: If the spec names none, Dask is not installed, nobody answers at the address,
            nobody works for it, or a worker has other code.
    """
    if check_executor(spec) == "threads":
        with ThreadPoolExecutor(jobs) as threads:
            yield threads
    elif spec == "processes":
        with _Processes(jobs, mp_context=get_context("spawn")) as processes:
            yield processes
    elif spec == "dask":
        with _local_cluster(jobs) as cluster, Cluster(cluster, seconds=60) as workers:
            yield workers
    else:
        parts = urlsplit(spec)
        address = f"tcp://{parts.netloc if parts.port else f'{parts.netloc}:{_PORT}'}"
        with Cluster(address, seconds=seconds) as workers:
            yield workers


def _local_cluster(jobs: int) -> Any:
    with _dask_asked_for():
        from distributed import LocalCluster

    return LocalCluster(
        n_workers=jobs, threads_per_worker=1, host="127.0.0.1",
        dashboard_address="127.0.0.1:0", scheduler_kwargs={"dashboard": False},
        memory_limit=0,  # work is in processes of its own, which no worker would be killed for
        silence_logs=logging.CRITICAL,
    )  # fmt: skip


@contextmanager
def _dask_asked_for() -> Iterator[None]:
    try:
        yield
    except ImportError:
        raise ConfigError(
            "--executor needs Dask; run: pip install 'prompt-safety-workbench[dask]'"
        ) from None


class _Processes(ProcessPoolExecutor):
    """Processes of this machine; when one is killed all that was submitted is lost."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        try:
            return _told(super().submit(fn, *args, **kwargs), (BrokenProcessPool,))
        except BrokenProcessPool as error:
            raise WorkerLost(_gone_text(error)) from None


class Cluster(Executor):
    """The workers of a Dask scheduler, connected to again should that be started again.

    What a worker took with it when it went away is done by another one, by Dask itself; futures
    that have no more hope raise :class:`~workbench.core.errors.WorkerLost`.

    Args:
        scheduler: Address, or a local cluster.
        seconds: To wait for it, and for its first worker.

    Raises:
        ConfigError: See :func:`open_executor`.
    """

    def __init__(self, scheduler: Any, *, seconds: float = 10) -> None:
        self._scheduler = scheduler
        self._seconds = seconds
        self._width = 1
        self._lock = threading.Lock()
        with _dask_asked_for():
            from distributed import KilledWorker
            from distributed.client import ClosedClientError
            from distributed.comm import CommClosedError
        self._gone = (KilledWorker, CommClosedError, ClosedClientError)
        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # futures say what happened
        try:
            self._client = self._connect(seconds)
        except (OSError, TimeoutError, ValueError) as error:
            raise ConfigError(
                f"no scheduler answers at {scheduler} ({type(error).__name__}); start one with"
                " `dask scheduler`"
            ) from None
        try:
            self._check_workers(seconds)
        except BaseException:
            self.shutdown(wait=False)
            raise

    @property
    def width(self) -> int:
        """How many tasks run at a time, at least 1."""
        if self._client.status == "running":
            with suppress(OSError, TimeoutError):  # it goes away just now: as before
                self._width = max(1, sum(self._client.nthreads().values()))
        return self._width

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Return the future of a call on a worker.

        Raises:
            WorkerLost: If the scheduler went away and stays away.
            ConfigError: If it is back with a worker of other code.
        """
        pool = self._connected().get_executor(pure=False)
        try:
            inner = pool.submit(_run_checked, code_version(), fn, args, kwargs)
        except self._gone as error:
            raise WorkerLost(_gone_text(error)) from None
        return _told(inner, self._gone)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        """Leave the cluster; what was submitted and has not ended is given up."""
        self._client.close(timeout=5)

    def _connect(self, seconds: float) -> Client:
        from distributed import Client

        return Client(self._scheduler, timeout=seconds, set_as_default=False)

    def _connected(self) -> Client:
        """Return the client; if the scheduler went away, once it is back and has a worker."""
        with self._lock:
            if self._client.status == "running":
                return self._client
            deadline = time.monotonic() + _RECONNECT_S
            while (left_s := deadline - time.monotonic()) > 0:
                with suppress(OSError, TimeoutError):  # not yet, or gone again
                    if self._client.status == "closed":  # it has given up
                        self._client = self._connect(self._seconds)
                    if self._client.status == "running":
                        self._check_workers(left_s)
                        return self._client
                time.sleep(_LOOK_S)
            raise WorkerLost(
                f"the scheduler at {self._scheduler} went away and was not back within"
                f" {_RECONNECT_S:.0f} s; start it and run again, what has finished is kept"
            )

    def _check_workers(self, seconds: float) -> None:
        try:
            self._client.wait_for_workers(1, timeout=seconds)
        except TimeoutError:
            raise ConfigError(
                f"the scheduler at {self._scheduler} has no worker; start one with `dask worker`"
            ) from None
        found = self._client.run(code_version, on_error="return")
        for worker, version in found.items():
            if not isinstance(version, str):
                text = " ".join(str(version).split())[:200]
                raise ConfigError(f"worker {worker} has no such workbench ({text}); {_FIX}")
            _refuse_other_code(worker, theirs=version, ours=code_version())


def _run_checked(
    version: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Call a function on a worker, if the worker has the code of whoever asks.

    Raises:
        ConfigError: If it has other code.
    """
    from distributed import get_worker

    _refuse_other_code(get_worker().address, theirs=code_version(), ours=version)
    return fn(*args, **kwargs)


def _refuse_other_code(worker: str, *, theirs: str, ours: str) -> None:
    if theirs != ours:
        raise ConfigError(f"worker {worker} has workbench code {theirs}, this is {ours}; {_FIX}")


def _told(inner: Future[Any], gone: tuple[type[Exception], ...]) -> Future[Any]:
    """Return a future of the same outcome, with ``WorkerLost`` in the place of some errors."""
    outer: Future[Any] = Future()

    def pass_on(inner: Future[Any]) -> None:
        if not outer.set_running_or_notify_cancel():
            return
        if inner.cancelled():  # by Dask's client, when it lost the scheduler
            outer.set_exception(WorkerLost(_gone_text("the scheduler went away")))
        elif error := inner.exception():
            lost = isinstance(error, gone)
            outer.set_exception(WorkerLost(_gone_text(error)) if lost else error)
        else:
            outer.set_result(inner.result())

    outer.add_done_callback(lambda done: done.cancelled() and inner.cancel())
    inner.add_done_callback(pass_on)
    return outer


def _gone_text(reason: object) -> str:
    text = " ".join(str(reason).split())[:300]
    return f"the work was lost with its worker ({text}); run again, what has finished is kept"
