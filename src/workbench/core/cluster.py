"""Where work runs: threads, processes or a Dask cluster, behind ``concurrent.futures``.

What is submitted to processes or a cluster is a module-level function with plain arguments. Its
worker takes the rest from settings and store, and does it only with the very code that asked for
it. What a worker took with it when it went away is done by another one, a few times.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from workbench.core.errors import ConfigError, WorkerLost
from workbench.core.provenance import code_version, library_versions

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Cluster", "check_executor", "open_executor"]

_PORT = 8786
_RECONNECT_S = 60.0
"""How long a scheduler that went away is waited for."""
_LOOK_S = 0.2
_MEND_S = 2.0
"""Between looks whether a local cluster has lost workers for good."""
_LIVES = 4
"""Workers that may be lost to one call, as with Dask."""
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
        with _Processes(jobs) as processes:
            yield processes
    elif spec == "dask":
        with (
            _local_cluster(jobs) as cluster,
            Cluster(cluster, seconds=60) as workers,
            _kept_whole(cluster, jobs),
        ):
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


@contextmanager
def _kept_whole(cluster: Any, jobs: int) -> Iterator[None]:
    """Start workers anew that Dask has given up, e.g. because they died while they started."""
    ended = threading.Event()

    def mend() -> None:
        for name, worker in list(cluster.workers.items()):
            if worker.status.name in {"closed", "failed"}:
                del cluster.workers[name]
        cluster.scale(jobs)

    def look() -> None:
        while not ended.wait(_MEND_S):
            cluster.loop.add_callback(mend)

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield
    finally:
        ended.set()
        looking.join()


class _Processes(Executor):
    """Processes of this machine, each a pool of its own: a broken pool loses all that it has.

    They leave Ctrl-C to this process, and end with it.
    """

    def __init__(self, jobs: int) -> None:
        self._pools = [_one_process() for _ in range(jobs)]
        self._loads = [0] * jobs
        self._lock = threading.Lock()
        self._is_open = True

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        outer: Future[Any] = Future()
        self._start(outer, (fn, args, kwargs), lives=_LIVES)
        return outer

    def _start(self, outer: Future[Any], call: tuple[Any, ...], *, lives: int) -> None:
        """Have the process do it that has least to do."""
        with self._lock:
            if not self._is_open:
                raise RuntimeError("cannot begin after shutdown")
            at = min(range(len(self._pools)), key=self._loads.__getitem__)
            try:
                inner = self._pools[at].submit(_in_hand, *call)
            except BrokenProcessPool:
                self._pools[at] = _one_process()
                inner = self._pools[at].submit(_in_hand, *call)
            self._loads[at] += 1

        def settle(inner: Future[Any]) -> None:
            with self._lock:
                self._loads[at] -= 1
            is_lost = not inner.cancelled() and isinstance(inner.exception(), BrokenProcessPool)
            if is_lost and lives > 1 and not outer.cancelled():
                with suppress(RuntimeError):  # the pools are closed
                    self._start(outer, call, lives=lives - 1)
                    return
            _pass_on(inner, outer, (BrokenProcessPool,))

        outer.add_done_callback(lambda done: done.cancelled() and inner.cancel())
        inner.add_done_callback(settle)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        with self._lock:  # nothing begins again from here on
            self._is_open = False
        for pool in self._pools:
            pool.shutdown(wait=wait, cancel_futures=cancel_futures)


def _one_process() -> ProcessPoolExecutor:
    # spawned, not forked: this process may have threads, of torch for one
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_serve)


_HAND = threading.Lock()
"""Of a worker process: held while it has work in hand."""


def _serve() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process once its parent is gone, which closes no queue if it was killed."""
    if parent := parent_process():
        parent.join()
        with _HAND:
            os._exit(1)


def _in_hand(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    with _HAND:
        return fn(*args, **kwargs)


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
            inner = pool.submit(_Call(_versions(), fn, args, kwargs))
        except self._gone as error:
            raise WorkerLost(_gone_text(error)) from None
        outer: Future[Any] = Future()
        outer.add_done_callback(lambda done: done.cancelled() and inner.cancel())
        inner.add_done_callback(lambda inner: _pass_on(inner, outer, self._gone))
        return outer

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
        found = self._client.run(_versions, on_error="return")
        for worker, versions in found.items():
            if not isinstance(versions, dict):
                text = " ".join(str(versions).split())[:200]
                raise ConfigError(f"worker {worker} has no such workbench ({text}); {_FIX}")
            _refuse_others(worker, theirs=versions, ours=_versions())


@dataclass(frozen=True, repr=False)
class _Call:
    """A call on a worker, if that has the code of whoever asks; else it raises ``ConfigError``."""

    versions: dict[str, str]
    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __call__(self) -> Any:
        from distributed import get_worker

        _refuse_others(get_worker().address, theirs=_versions(), ours=self.versions)
        return self.fn(*self.args, **self.kwargs)

    def __repr__(self) -> str:
        """Keep arguments out of the logs and pages of Dask: prompts, addresses with passwords."""
        return self.fn.__name__


def _versions() -> dict[str, str]:
    """Return what figures depend on, and whether work can be told at all; no builds or patches."""
    libraries = {name: text.partition("+")[0] for name, text in library_versions().items()}
    python = libraries["python"].rpartition(".")[0]
    found = {"workbench code": code_version(), **libraries, "python": python}
    return {name: text for name, text in found.items() if text != "absent"}


def _refuse_others(worker: str, *, theirs: dict[str, str], ours: dict[str, str]) -> None:
    for name, text in ours.items():
        if (their := theirs.get(name, text)) != text:
            raise ConfigError(f"worker {worker} has {name} {their}, this is {text}; {_FIX}")


def _pass_on(inner: Future[Any], outer: Future[Any], gone: tuple[type[Exception], ...]) -> None:
    """Give a future the outcome of another, with ``WorkerLost`` in the place of some errors."""
    if not outer.set_running_or_notify_cancel():
        return
    if inner.cancelled():  # not by us: Dask's client lost the scheduler, or the pool was closed
        outer.set_exception(WorkerLost(_gone_text("whoever dealt it out went away")))
    elif error := inner.exception():
        outer.set_exception(WorkerLost(_gone_text(error)) if isinstance(error, gone) else error)
    else:
        outer.set_result(inner.result())


def _gone_text(reason: object) -> str:
    text = " ".join(str(reason).split())[:300]
    return f"the work was lost with its worker ({text}); run again, what has finished is kept"
