"""Runs one member of an experiment, here or on a worker, and closes its row in the run table.

A worker is given plain values alone and opens the store itself. It runs a member only while it
holds the lease of its run, and while whoever asked for it still waits. Home and project are on a
file system that all machines have at the same place: results travel as rows of the run table, and
as files of the run's folder.
"""

from __future__ import annotations

import platform
import re
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from workbench.core.errors import ConfigError, LeaseHeld, StoreError, WorkbenchError, WorkerLost
from workbench.core.identity import file_sha256, new_id
from workbench.core.settings import Settings, read_settings
from workbench.cost.usage import compute_rows
from workbench.notebook.executor import KernelUsage, Outcome, execute_notebook, kill_kernel
from workbench.store.database import Store, open_store, or_another_worker, refuse_other_disk
from workbench.store.leases import Lease, hold, is_held
from workbench.store.owners import this_process
from workbench.store.records import LedgerRow, Phase, Run, now

__all__ = ["Task", "budget_reached", "costs_of", "newest_of", "run_member", "run_task"]

_HEARTBEAT_S = 2.0
_LEASE_S = 30.0
"""How long a worker may be out of reach of the store before another takes its work over."""
_PATIENCE_S = 5.0
"""How long to wait for the lease of a run before looking at the run again."""
_RETRY_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Task:
    """All that a worker is told of a member; the rest is in the row of its run."""

    environment: Mapping[str, str]
    """Settings, as ``to_environment`` gives them."""
    run_id: str
    folder: str
    """Of that run. It is there already: a worker that does not see it has another home."""
    root: str
    """Folder of the project."""
    notebook: str
    """Path below the root."""
    notebook_sha256: str
    threads: int
    timeout_s: int
    asked_by: tuple[str, str]
    """Name and token of the lease of whoever waits for it."""
    host: str = ""
    """Machine of whoever waits for it."""


def run_task(task: Task) -> str:
    """Run a member on a worker, unless that was done meanwhile; return the id of the run it is.

    What a worker that went away had begun is closed as ``lost``, and charged; then it is run once
    more, as another run.

    Raises:
        ConfigError: If this worker lacks the home, the notebook, or a database it could share.
        StoreError: If the store cannot be written.
        WorkerLost: If the store cannot be reached from here, the lease was lost, or nobody waits
            for the run any more.
    """
    settings = read_settings(task.environment)
    _check_place(task, settings)
    with or_another_worker():
        store = open_store(settings)
    try:
        while (run := _waited_for(store, task)).state == "running":
            # if another works on it: look again at what becomes of it
            with suppress(LeaseHeld), ExitStack() as stack:
                holding = hold(
                    store.engine, f"run:{task.run_id}", holder=this_process(), seconds=_LEASE_S,
                    patience_s=_PATIENCE_S,
                )  # fmt: skip
                with or_another_worker():
                    lease = stack.enter_context(holding)
                return _run_held(store, task, lease)
        return run.id
    finally:
        store.engine.dispose()


def _waited_for(store: Store, task: Task) -> Run:
    """Return the run of a task as it is now, if somebody waits for it while it runs."""
    with or_another_worker():
        run = newest_of(store, task.run_id)
        if run.state == "running" and not is_held(store.engine, *task.asked_by):
            raise WorkerLost(f"nobody waits for run {run.id} any more; run the experiment again")
        return run


def _run_held(store: Store, task: Task, lease: Lease) -> str:
    run = newest_of(store, task.run_id)
    if run.state == "running" and run.kernel_pid:
        run = _begin_again(store, run)
    if run.state != "running":
        return run.id
    notebook = Path(task.root) / task.notebook
    return run_member(
        store, run, notebook=notebook, root=Path(task.root), llm=store.settings.llm,
        threads=task.threads, timeout_s=task.timeout_s, cancelled=_Stop(lease), lease=lease,
        asked_by=task.asked_by,
    ).id  # fmt: skip


def run_member(
    store: Store,
    run: Run,
    *,
    notebook: Path,
    root: Path,
    llm: str,
    threads: int,
    timeout_s: int,
    cancelled: threading.Event,
    lease: Lease | None = None,
    asked_by: tuple[str, str] | None = None,
) -> Run:
    """Execute the notebook of a run, close its row, and return it as it is then.

    Args:
        store: Where the row is.
        run: In state ``running``.
        notebook: Its file.
        root: Folder of the project, where the kernel works.
        llm: Settings of model calls, JSON.
        threads: See :func:`~workbench.notebook.executor.execute_notebook`.
        timeout_s: Same.
        cancelled: Same; set here too if ``asked_by`` ends.
        lease: Of the run, on a worker.
        asked_by: Name and token of the lease of whoever waits, on a worker.

    Raises:
        StoreError: If the row cannot be written.
        WorkerLost: If the lease was lost; nothing was written since.
    """
    settings = replace(
        store.settings, run_folder=Path(run.folder), run_id=run.id, experiment=run.experiment,
        fingerprint=run.fingerprint, llm=llm,
    )  # fmt: skip
    with _Beats(store, run, cancelled, asked_by) as beats:
        try:
            outcome = execute_notebook(
                notebook, parameters=run.parameters, settings=settings, folder=Path(run.folder),
                cwd=root, threads=threads, timeout_s=timeout_s, heartbeat=beats,
                cancelled=cancelled,
            )  # fmt: skip
        except Exception as error:  # noqa: BLE001 - a run must be closed whatever the libraries raise
            text = f"{type(error).__name__}: " if not isinstance(error, WorkbenchError) else ""
            text += " ".join(str(error).split())
            outcome = Outcome(error=text, result={}, usage=beats.usage, wall_s=0.0)
    return _settle(store, run, outcome, lease)


def newest_of(store: Store, run_id: str) -> Run:
    """Return a run, or the last of those that took its place when a worker was lost."""
    run = store.runs.get(run_id)
    while again := run.result.get("again", "") if run.state == "lost" else "":
        run = store.runs.get(again)
    return run


def costs_of(run: Run, cpu_s: float) -> list[LedgerRow]:
    """Return the ledger rows of a run that used some CPU seconds."""
    return compute_rows(
        cpu_s=cpu_s, who=run.owner, job=run.id, experiment=run.experiment,
        phase=cast("Phase", run.phase),
    )  # fmt: skip


def budget_reached(error: str) -> str:
    """Return what a ``BudgetError`` that ended a notebook said; empty where none did."""
    found = re.fullmatch(r"cell \w+: BudgetError: (.*)", error)
    return found[1] if found else ""


def _check_place(task: Task, settings: Settings) -> None:
    """Refuse work that this machine cannot do as the one that asked for it would."""
    here = platform.node()
    refuse_other_disk(settings, host=task.host)
    notebook = Path(task.root) / task.notebook
    for path in (Path(task.folder), notebook):
        if not path.exists():
            raise ConfigError(
                f"worker {here} has no {path}; mount home and project of {task.host} there, at the"
                " same place"
            )
    if file_sha256(notebook) != task.notebook_sha256:
        raise ConfigError(f"worker {here} has another {notebook} than {task.host}; copy it there")


def _begin_again(store: Store, run: Run) -> Run:
    """Close a run that a worker left behind; return the one that takes its place."""
    kill_kernel(run.kernel_pid, run.id)  # where that was on this machine
    run_id = new_id("run")
    folder = Path(run.folder).with_name(run_id)
    again = Run(
        id=run_id, experiment=run.experiment, step=run.step, member=run.member,
        notebook=run.notebook, phase=run.phase, fingerprint=run.fingerprint,
        parameters=run.parameters, state="running", owner=run.owner, folder=str(folder),
        started_at=now(),
    )  # fmt: skip
    store.runs.settle(
        run.id, costs_of(run, run.cpu_s), again=again, state="lost", finished_at=now(),
        error=f"its worker was lost; went on as {run_id}", result={"again": run_id},
    )  # fmt: skip
    return newest_of(store, run.id)  # not this one, if its runner closed it meanwhile


def _settle(store: Store, run: Run, outcome: Outcome, lease: Lease | None) -> Run:
    values: dict[str, Any] = {
        "state": "failed" if outcome.error else "succeeded",
        "finished_at": now(),
        "wall_s": outcome.wall_s,
        "cpu_s": outcome.usage.cpu_s,
        "peak_rss_mb": outcome.usage.peak_rss_mb,
        "error": outcome.error,
        "result": outcome.result,
    }
    costs = costs_of(run, outcome.usage.cpu_s)
    while True:
        if lease and lease.lost.is_set():
            raise WorkerLost(f"the store was out of reach while run {run.id} ran; run it again")
        try:
            store.runs.settle(run.id, costs, **values)
        except StoreError:
            if not lease:
                raise
            time.sleep(_RETRY_S)  # it may be started again just now: the lease says how long to try
        else:
            return replace(run, **values)


class _Stop(threading.Event):
    """Is set when it was set, or a lease was lost."""

    def __init__(self, lease: Lease) -> None:
        super().__init__()
        self._lease = lease

    def is_set(self) -> bool:
        return super().is_set() or self._lease.lost.is_set()


class _Beats:
    """Writes what a kernel used so far to its run, now and then, from a thread of its own.

    Who watches the kernel never waits for the store: on a network that was cut, that would be long.
    """

    def __init__(
        self, store: Store, run: Run, cancelled: threading.Event, asked_by: tuple[str, str] | None
    ) -> None:
        self.usage = KernelUsage()
        self._store = store
        self._run_id = run.id
        self._cancelled = cancelled
        self._asked_by = asked_by
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._go_on, daemon=True)

    def __call__(self, usage: KernelUsage) -> None:
        is_first = usage.pid and not self.usage.pid
        self.usage = usage
        if is_first:
            self._beat()  # whoever takes the run over must know that it began
            self._thread.start()

    def __enter__(self) -> _Beats:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(_RETRY_S)  # not longer: it may hang on a network that was cut

    def _go_on(self) -> None:
        while not self._ended.wait(_HEARTBEAT_S):
            self._beat()

    def _beat(self) -> None:
        used = {"cpu_s": self.usage.cpu_s, "peak_rss_mb": self.usage.peak_rss_mb}
        # a missed beat is no harm; the end of the run says it if the store stays out of reach
        with suppress(StoreError):
            is_running = self._store.runs.beat(self._run_id, kernel_pid=self.usage.pid, **used)
            asked_by = None if self._ended.is_set() else self._asked_by
            if asked_by and not (is_running and is_held(self._store.engine, *asked_by)):
                self._cancelled.set()
