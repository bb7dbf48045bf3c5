"""Runs an experiment: skips what is unchanged, fans the rest out, keeps the run table truthful."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from workbench.core.cluster import check_executor
from workbench.core.errors import (
    BudgetError,
    ConfigError,
    InputError,
    WorkbenchError,
    WorkerLost,
)
from workbench.core.identity import new_id
from workbench.cost.alerts import Threshold
from workbench.cost.usage import compute_rows
from workbench.notebook.dealing import Dealer, open_dealer
from workbench.notebook.executor import kill_kernel
from workbench.notebook.experiment import Experiment, Member
from workbench.notebook.holding import hold_experiment, refuse_lost
from workbench.notebook.member import budget_reached, costs_of, newest_of
from workbench.notebook.plan import Eta, Prepared, check_costs, check_inputs, find_finished, prepare
from workbench.notebook.profiling import Profile
from workbench.store.database import Store
from workbench.store.leases import Lease
from workbench.store.records import Run, now

__all__ = ["Event", "EventKind", "Runner", "plan"]

EventKind = Literal["started", "succeeded", "skipped", "failed", "blocked", "waiting", "due"]
"""``waiting`` and ``due`` occur in dry runs: due to run, or waiting for what is due."""

_log = logging.getLogger(__name__)
_TRIES = 5
"""How often a member is given to workers that go away; Dask itself tried several for each."""
_LOOK_S = 1.0
_BLOCKED = "a step it needs did not succeed"


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to one member of an experiment."""

    kind: EventKind
    member: Member
    done: int
    """Members that are over, this one included."""
    total: int
    wall_s: float = 0.0
    cpu_s: float = 0.0
    eta_s: float | None = None
    """Estimated seconds to the end of the experiment; None while nothing is known."""
    run_id: str = ""
    text: str = ""
    """Reason of a failure or block."""


def plan(experiment: Experiment, store: Store, *, force: bool = False) -> list[Event]:
    """Return what a run would do, member by member, without starting anything.

    Raises:
        ConfigError: As running it would, for what can be known beforehand.
    """
    check_inputs(experiment)
    total = sum(len(step.members()) for step in experiment.steps.values())
    finished: dict[str, list[Run]] = {}
    events: list[Event] = []
    for step in experiment.steps.values():
        can_start = all(need in finished for need in step.needs)
        found = []
        for member in step.members():
            run = None
            if can_start and not force:
                prepared = prepare(experiment, member, finished)
                run = find_finished(store.runs, experiment.name, prepared)
            kind: EventKind = "skipped" if run else "due" if can_start else "waiting"
            done, run_id = len(events) + 1, run.id if run else ""
            events.append(Event(kind=kind, member=member, done=done, total=total, run_id=run_id))
            found += [run] if run else []
        if len(found) == len(step.members()):
            finished[step.name] = found
    return events


@dataclass(frozen=True, kw_only=True)
class _Dealt:
    """A member that runs, as far as is known."""

    prepared: Prepared
    run: Run
    threads: int
    tries: int = 1


class Runner:
    """One run of one experiment.

    ``jobs`` notebooks run at a time and share the ``cores``; one that runs alone gets all. With
    ``force`` unchanged members run too. ``tell`` gets every event, in the caller's thread.
    ``executor`` says where they run, see :func:`~workbench.core.cluster.open_executor`.
    """

    def __init__(
        self,
        experiment: Experiment,
        *,
        store: Store,
        jobs: int,
        cores: int,
        force: bool = False,
        tell: Callable[[Event], None],
        executor: str = "threads",
    ) -> None:
        self._experiment = experiment
        self._store = store
        self._jobs = jobs
        self._cores = cores
        self._force = force
        self._tell = tell
        self._executor = check_executor(executor)
        self._members = [member for step in experiment.steps.values() for member in step.members()]
        self._runs: dict[tuple[str, str], Run] = {}
        self._over: set[tuple[str, str]] = set()
        self._unfinished = Counter(member.step for member in self._members)
        self._cancelled = threading.Event()
        self._folder = store.home / experiment.name
        self._stopped: WorkbenchError | None = None
        """Why nothing new is started, e.g. for lack of money."""
        self._warned: set[Threshold] = set()

    def run(self) -> bool:
        """Run the experiment and return whether every member succeeded.

        Writes runs, results and ledger rows; keeps whatever finished.

        Raises:
            ConfigError: If it is running already, an input is missing, there is no such executor,
                or a worker was refused; nothing new was started since.
            BudgetError: If a limit on spending was reached; nothing new was started since.
            StoreError: If the store cannot be written.
            WorkerLost: If there are no workers any more.
        """
        check_inputs(self._experiment)
        profile = Profile() if self._store.settings.profile else None
        with hold_experiment(self._store, self._experiment.name) as lease:
            started = time.process_time()
            self._settle_lost()
            self._write_state("running")
            state = "failed"
            try:
                self._run_all(lease)
                if len(self._runs) == len(self._members):
                    state = "succeeded"
            finally:
                if self._executor != "threads" and not lease.lost.is_set():
                    self._settle_lost()  # whoever could not be stopped writes nothing more
                self._write_state(state)
                self._charge_own(time.process_time() - started)
                if profile:
                    profile.write(self._folder)
        return state == "succeeded"

    def profiles(self) -> list[Path]:
        """Return the readable profiles there are, that of this process first."""
        folders = [self._folder, *(Path(run.folder) for run in self._runs.values())]
        return [file for folder in folders if (file := folder / "profile.txt").is_file()]

    def _settle_lost(self) -> None:
        """Close runs that a killed runner left open, and charge what was last seen of them."""
        for run in self._store.runs.find(experiment=self._experiment.name, state="running"):
            if run.owner != self._store.settings.user:  # another user's lives
                continue
            kill_kernel(run.kernel_pid, run.id)
            self._close(run, state="lost", error="its runner was killed")

    def _close(self, run: Run, *, state: str, error: str) -> None:
        """Close a run that nobody else will, and charge what was last seen of it."""
        costs = costs_of(run, run.cpu_s)
        self._store.runs.settle(run.id, costs, state=state, finished_at=now(), error=error)

    def _run_all(self, lease: Lease) -> None:
        running: dict[Future[str], _Dealt] = {}
        with open_dealer(
            self._experiment, self._store, spec=self._executor, jobs=self._jobs,
            cancelled=self._cancelled,
        ) as dealer:  # fmt: skip
            self._eta = Eta(self._store, self._experiment, dealer.width)
            try:
                while True:
                    for member in self._ready():
                        if len(running) >= dealer.width or self._stopped:
                            break
                        self._start(member, dealer, running)
                    if not running:
                        break
                    done, _ = wait(running, timeout=_LOOK_S, return_when=FIRST_COMPLETED)
                    refuse_lost(lease)
                    for future in done:
                        self._look(future, running.pop(future), dealer, running)
            except BaseException:  # also an interrupt: kernels must not outlive their runner
                self._cancelled.set()
                raise
        for member in self._members:
            if self._key(member) not in self._over:
                self._end(member, "blocked", text=str(self._stopped or _BLOCKED))
        if self._stopped:
            raise self._stopped

    def _ready(self) -> Iterator[Member]:
        """Yield members that are not over and whose needs have all succeeded."""
        for member in self._members:
            needs = self._experiment.steps[member.step].needs
            if self._key(member) not in self._over and not any(map(self._unfinished.get, needs)):
                yield member

    def _start(self, member: Member, dealer: Dealer, running: dict[Future[str], _Dealt]) -> None:
        if any(dealt.prepared.member == member for dealt in running.values()):
            return
        try:
            prepared = prepare(self._experiment, member, self._finished())
        except InputError as error:  # known only now: what a step gave does not fit
            self._end(member, "failed", text=str(error))
            return
        old = find_finished(self._store.runs, self._experiment.name, prepared)
        if old and not self._force:
            self._succeed(member, old)
            self._end(member, "skipped", run=old)
            return
        if self._is_spent_out():
            return
        self._write_state("running")  # what a notebook reads of its experiment is as of now
        run = self._new_run(prepared)
        self._store.runs.add(run)
        self._tell(self._event("started", member, run=run))
        is_alone = sum(1 for _ in self._ready()) == 1
        threads = self._cores if is_alone else max(1, self._cores // self._jobs)
        dealt = _Dealt(prepared=prepared, run=run, threads=threads)
        self._deal(dealt, dealer, running)

    def _deal(self, dealt: _Dealt, dealer: Dealer, running: dict[Future[str], _Dealt]) -> None:
        """Have a member run; where nobody can, its run is closed and nothing new is started."""
        try:
            running[dealer.start(dealt.run, threads=dealt.threads)] = dealt
        except (ConfigError, WorkerLost) as error:
            self._stopped = error
            self._give_up(dealt, "lost", error)

    def _look(
        self,
        future: Future[str],
        dealt: _Dealt,
        dealer: Dealer,
        running: dict[Future[str], _Dealt],
    ) -> None:
        """Look in the store how a member ended; have it run again if its worker went away."""
        try:
            future.result()
        except WorkerLost as error:
            run = newest_of(self._store, dealt.run.id)
            if run.state == "running":  # else it had finished all the same
                if dealt.tries < _TRIES and not self._stopped:
                    self._deal(replace(dealt, tries=dealt.tries + 1), dealer, running)
                else:
                    self._give_up(dealt, "lost", error)
                return
        except ConfigError as error:  # the worker was refused
            self._stopped = error
            self._give_up(dealt, "failed", error)
            return
        self._finish(dealt.prepared, newest_of(self._store, dealt.run.id))

    def _give_up(self, dealt: _Dealt, state: str, error: WorkbenchError) -> None:
        self._close(newest_of(self._store, dealt.run.id), state=state, error=str(error))
        self._finish(dealt.prepared, newest_of(self._store, dealt.run.id))

    def _finish(self, prepared: Prepared, run: Run) -> None:
        if run.state == "succeeded":
            self._succeed(prepared.member, run)
            self._eta.learn(run)
        if reached := budget_reached(run.error):
            self._stopped = self._stopped or BudgetError(reached)
        self._write_state("running")
        self._end(prepared.member, "succeeded" if run.state == "succeeded" else "failed", run=run)

    def _succeed(self, member: Member, run: Run) -> None:
        self._runs[self._key(member)] = run
        self._unfinished[member.step] -= 1

    def _end(
        self, member: Member, kind: EventKind, *, run: Run | None = None, text: str = ""
    ) -> None:
        self._over.add(self._key(member))
        self._tell(self._event(kind, member, run=run, text=text))

    def _event(self, kind: EventKind, member: Member, *, run: Run | None, text: str = "") -> Event:
        left = [m.step for m in self._members if self._key(m) not in self._over]
        return Event(
            kind=kind,
            member=member,
            done=len(self._over),
            total=len(self._members),
            wall_s=run.wall_s if run else 0.0,
            cpu_s=run.cpu_s if run else 0.0,
            eta_s=self._eta.seconds(left),
            run_id=run.id if run else "",
            text=text or (run.error if run else ""),
        )

    def _is_spent_out(self) -> bool:
        try:
            alerts = check_costs(self._experiment, self._store)
        except BudgetError as error:
            self._stopped = error
            return True
        for alert in alerts:
            if alert.threshold not in self._warned:
                self._warned.add(alert.threshold)
                _log.warning("%s", alert)
        return False

    def _new_run(self, prepared: Prepared) -> Run:
        step = self._experiment.steps[prepared.member.step]
        run_id = new_id("run")
        return Run(
            id=run_id,
            experiment=self._experiment.name,
            step=step.name,
            member=prepared.member.label,
            notebook=step.notebook.path.stem,
            phase=step.notebook.phase,
            fingerprint=prepared.fingerprint,
            parameters=prepared.parameters,
            state="running",
            owner=self._store.settings.user,
            folder=str(self._folder / step.name / run_id),
            started_at=now(),
        )

    def _charge_own(self, cpu_s: float) -> None:
        """Charge what the runner itself used."""
        who, experiment = self._store.settings.user, self._experiment.name
        own = compute_rows(
            cpu_s=cpu_s, who=who, job=new_id("job"), experiment=experiment, phase="assessment"
        )
        self._store.ledger.add(own)

    def _finished(self) -> dict[str, list[Run]]:
        finished: dict[str, list[Run]] = {}
        for member in self._members:
            if run := self._runs.get(self._key(member)):
                finished.setdefault(member.step, []).append(run)
        return finished

    def _write_state(self, state: str) -> None:
        members: dict[str, list[str | None]] = {}
        for member in self._members:
            run = self._runs.get(self._key(member))
            members.setdefault(member.step, []).append(run.id if run else None)
        self._store.runs.set_experiment(
            self._experiment.name,
            file=str(self._experiment.file),
            members=members,
            state=state,
            owner=self._store.settings.user,
        )

    @staticmethod
    def _key(member: Member) -> tuple[str, str]:
        return member.step, member.label
