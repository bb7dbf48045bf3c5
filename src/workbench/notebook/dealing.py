"""Deals the members of an experiment out, to threads of this process or to workers elsewhere."""

from __future__ import annotations

import platform
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, Future, wait
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from workbench.core.cluster import Cluster, open_executor
from workbench.core.errors import StoreError
from workbench.core.identity import canonical_json, file_sha256, text_id
from workbench.notebook.experiment import Experiment
from workbench.notebook.member import Task, run_member, run_task
from workbench.store.database import Store
from workbench.store.leases import Lease, hold
from workbench.store.owners import this_process
from workbench.store.records import Run

__all__ = ["Dealer", "open_dealer"]

_LEASE_S = 60.0
"""How long whoever waits may be out of reach of the store before workers stop."""
_STOP_S = 15.0
"""How long workers have to stop when nobody waits for them any more."""


@contextmanager
def open_dealer(
    experiment: Experiment, store: Store, *, spec: str, jobs: int, cancelled: threading.Event
) -> Iterator[Dealer]:
    """Give what starts members; at the end all of them have stopped, or lost their store.

    Args:
        experiment: Of the members.
        store: Where their runs are.
        spec: Of the executor, see :func:`~workbench.core.cluster.open_executor`.
        jobs: Most members at a time.
        cancelled: Ends members that run in threads; workers end when this block does.

    Raises:
        ConfigError: If there is no such executor.
    """
    with open_executor(spec, jobs=jobs) as executor:
        if spec == "threads":
            yield Dealer(experiment, store, executor, width=jobs, cancelled=cancelled)
            return
        name = f"asked {text_id(store.settings.user, experiment.name)[:32]}"
        dealer = _Elsewhere(experiment, store, executor, width=jobs, cancelled=cancelled)
        dealer.is_remote = spec.startswith("dask:")
        try:
            with hold(
                store.engine, name, holder=this_process(), seconds=_LEASE_S, patience_s=_LEASE_S
            ) as dealer.lease:
                yield dealer
        finally:  # they see that nobody waits for them
            wait(dealer.futures, timeout=_STOP_S)


class Dealer:
    """Starts members in threads."""

    def __init__(
        self,
        experiment: Experiment,
        store: Store,
        executor: Executor,
        *,
        width: int,
        cancelled: threading.Event,
    ) -> None:
        self.futures: set[Future[str]] = set()
        """Of what was started and has not ended."""
        self._experiment = experiment
        self._store = store
        self._executor = executor
        self._width = width
        self._cancelled = cancelled

    @property
    def width(self) -> int:
        """Most members at a time, as of now."""
        return self._width

    def start(self, run: Run, *, threads: int) -> Future[str]:
        """Return the future of a run's end; the outcome itself is in the store.

        Raises:
            WorkerLost: If there are no workers any more.
            StoreError: If the store was out of reach for too long.
        """
        future = self._start(run, threads)
        self.futures.add(future)
        future.add_done_callback(self.futures.discard)
        return future

    def _start(self, run: Run, threads: int) -> Future[str]:
        step = self._experiment.steps[run.step]
        return self._executor.submit(
            lambda: run_member(
                self._store, run, notebook=step.notebook.path, root=self._experiment.root,
                llm=self._llm, threads=threads, timeout_s=step.timeout_s, cancelled=self._cancelled,
            ).id
        )  # fmt: skip

    @property
    def _llm(self) -> str:
        return canonical_json(self._experiment.llm.to_json())


class _Elsewhere(Dealer):
    """Starts members on workers that are told plain values alone."""

    lease: Lease
    is_remote: bool

    @property
    def width(self) -> int:
        if isinstance(self._executor, Cluster):
            return min(self._width, self._executor.width)
        return self._width

    def _start(self, run: Run, threads: int) -> Future[str]:
        if self.lease.lost.is_set():
            raise StoreError(
                f"the store was out of reach for {_LEASE_S:.0f} s, so all workers stopped; run the"
                " experiment again, what has finished is kept"
            )
        step = self._experiment.steps[run.step]
        root, notebook = self._experiment.root, step.notebook.path
        Path(run.folder).mkdir(parents=True, exist_ok=True)
        settings = replace(self._store.settings, llm=self._llm)
        task = Task(
            environment=settings.to_environment(),
            run_id=run.id,
            folder=run.folder,
            root=str(root),
            notebook=str(notebook.relative_to(root)),
            notebook_sha256=file_sha256(notebook),
            threads=0 if self.is_remote else threads,
            timeout_s=step.timeout_s,
            asked_by=(self.lease.name, self.lease.token),
            host=platform.node(),
        )
        return self._executor.submit(run_task, task)
