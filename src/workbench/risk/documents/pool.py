"""Files read in processes of their own: one that crashes or hangs costs its file, nothing else."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType

from workbench.core.errors import DataError, WorkbenchError
from workbench.core.plain import one_line
from workbench.risk.documents.chunks import chunks_of
from workbench.risk.documents.readers import LIMITS, Limits, read_document
from workbench.risk.documents.records import Document

__all__ = ["Job", "cut_document", "read_all"]

_MEMORY_BYTES = 4 << 30
"""That a worker may address: what unpacks to more is a broken file, not a full machine."""
_AHEAD = 2  # jobs handed out per worker; the rest wait, so that results do not pile up


@dataclass(frozen=True, slots=True)
class Job:
    """A file to read."""

    path: Path
    name: str
    limits: Limits = LIMITS


def cut_document(job: Job) -> Document | str:
    """Return a file's document, or what is wrong with it; runs anywhere, keeps nothing.

    Raises:
        ConfigError: If the package that reads it is not installed.
    """
    try:
        found = read_document(job.path, name=job.name, limits=job.limits)
    except DataError as error:
        return str(error)
    chunks = chunks_of(found.blocks)
    if not chunks:
        return f"{job.name}: holds headings only; leave it out"
    return Document(
        file=job.name,
        sha256=found.sha256,
        kind=found.kind,
        title=found.title,
        date=found.date,
        asset=found.asset,
        tags=found.tags,
        chunks=chunks,
    )


def read_all(
    jobs: Iterable[Job], *, workers: int, timeout_s: float, executor: Executor | None = None
) -> Iterator[tuple[Job, Document | str]]:
    """Give each job with its document or problem, in order; starts processes, and ends them.

    Args:
        jobs: Files to read.
        workers: Files read at once, >= 1.
        timeout_s: Seconds after which a file is given up and its process killed.
        executor: Reads the files instead (threads, Dask). It cannot be made to stop: a file that
            hangs is given up, but keeps one of its workers.

    Raises:
        ConfigError: If a package that reads one of the files is not installed.
    """
    waiting: deque[tuple[Job, Future[Document | str]]] = deque()
    with ExitStack() as stack:
        submit: Callable[[Job], Future[Document | str]]
        if executor is None:
            submit = stack.enter_context(_Lanes(workers, timeout_s)).submit
        else:
            submit = partial(_submit_to, executor)
        patience = None if executor is None else timeout_s
        stack.callback(lambda: [future.cancel() for _, future in waiting])
        for job in jobs:
            waiting.append((job, submit(job)))
            if len(waiting) >= _AHEAD * workers:
                yield _outcome(*waiting.popleft(), timeout_s=patience)
        while waiting:
            yield _outcome(*waiting.popleft(), timeout_s=patience)


def _submit_to(executor: Executor, job: Job) -> Future[Document | str]:
    return executor.submit(cut_document, job)


def _outcome(
    job: Job, future: Future[Document | str], *, timeout_s: float | None
) -> tuple[Job, Document | str]:
    try:
        return job, future.result(timeout_s)
    except WorkbenchError:
        raise
    except TimeoutError:
        return job, _too_slow(job, timeout_s or 0)
    except Exception as error:  # noqa: BLE001 - an executor of others raises what it likes
        reason = one_line(f"{type(error).__name__}: {error}")[:200]
        return job, f"{job.name}: its worker failed ({reason}); run again, or leave it out"


def _too_slow(job: Job, timeout_s: float) -> str:
    return f"{job.name}: not read within {timeout_s:g} s; split it or raise timeout_s"


class _Lanes:
    """Threads that each have one process read one file after the other, and renew it if it dies.

    A pool of several processes would break as a whole when one of them dies.
    """

    def __init__(self, workers: int, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(workers)
        self._own = threading.local()
        self._pools: list[ProcessPoolExecutor] = []

    def __enter__(self) -> _Lanes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        # Who gives up waits for the files being read, at most as long as one may take.
        self._threads.shutdown(cancel_futures=kind is not None)
        for pool in self._pools:
            pool.shutdown()

    def submit(self, job: Job) -> Future[Document | str]:
        """Have a job read."""
        return self._threads.submit(self._read, job)

    def _read(self, job: Job) -> Document | str:
        started = time.monotonic()
        try:
            return self._pool().submit(_cut_within, job, self._timeout_s).result()
        except BrokenProcessPool:
            self._own.pool = None
            if time.monotonic() - started >= self._timeout_s:
                return _too_slow(job, self._timeout_s)
            return f"{job.name}: its reader died, perhaps out of memory; split it or leave it out"

    def _pool(self) -> ProcessPoolExecutor:
        pool: ProcessPoolExecutor | None = getattr(self._own, "pool", None)
        if pool is None:
            # Not forked: a copy of this process may hold locks of threads that it does not have.
            context = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(1, mp_context=context, initializer=_prepare)
            self._own.pool = pool
            self._pools.append(pool)
        return pool


def _prepare() -> None:
    """Bound what this process, a worker, may use; runs once in each."""
    warnings.simplefilter("ignore")  # of libraries, about files that are odd but readable
    with suppress(ImportError, ValueError, OSError):  # where the system has no such bound
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))


def _cut_within(job: Job, timeout_s: float) -> Document | str:
    """Return what :func:`cut_document` does; the system ends this process when time is up."""
    if not hasattr(signal, "setitimer"):
        return cut_document(job)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    try:
        return cut_document(job)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
