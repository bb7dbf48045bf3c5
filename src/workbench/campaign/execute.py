"""Phase 2: a test set against any targets, each case once, whatever is killed in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from workbench.campaign.executions import Execution, compact, finished, load_execution
from workbench.campaign.grading import Grader
from workbench.campaign.recorder import Progress, Recorder
from workbench.campaign.runner import Runner, missing, refuse_lost
from workbench.campaign.targets.base import Kind, Target
from workbench.core.errors import ConfigError, LeaseHeld, StoreError
from workbench.core.identity import content_id
from workbench.store.campaigns import (
    ask_to_stop,
    attempted,
    forget_stop,
    has_workers,
    remove_attempts,
    remove_errors,
    spent,
    why_stop,
)
from workbench.store.database import Store
from workbench.store.events import tell
from workbench.store.leases import Lease, hold
from workbench.store.records import TestSet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from workbench.campaign.testsets import StoredTestSet

__all__ = [
    "Making", "Progress", "Task", "abort", "execute", "execution_id_of", "look", "take",
]  # fmt: skip

_RULE = "executions/2"
"""Name of how an execution is made; a change of what verdicts depend on is another one."""
_MOST_NAME = 200
"""Characters that the store keeps of a name."""
_POLL_S = 0.2
"""Between looks at a lease that another process holds."""
_LEASE_S = 60.0
"""After which another machine may go on where one vanished; on the same machine that is at once.
Longer than SQLite may keep a renewal waiting."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is left of an execution, for whoever makes it."""

    store: Store
    execution: str
    targets: Sequence[Target]
    graders: Mapping[Kind, Grader]
    cases: TestSet | StoredTestSet
    trials: int
    total: int
    work: str
    budget_usd: Decimal | None
    done: Mapping[str, set[tuple[str, int]]]
    """Target → (case id, trial) that need no attempt."""
    lease: Lease
    """Of the execution."""
    progress: Callable[[Progress], None] | None
    figures: dict[str, Any] = field(default_factory=dict)
    """How far it is, for events: done, errors, successes, usd; kept up by whoever makes it."""

    @property
    def watched(self) -> set[str]:
        """Targets whose successes are told: those that defend, or all where none does."""
        return {one.name for one in self.targets if one.defends} or set(self.names)

    @property
    def names(self) -> list[str]:
        """Names of the targets."""
        return [one.name for one in self.targets]


Making = Callable[[Task], Awaitable[None]]
"""Makes what is left, in this process or dealt to others."""


async def execute(
    store: Store,
    test_set: TestSet | StoredTestSet,
    targets: Sequence[Target],
    graders: Mapping[Kind, Grader],
    *,
    trials: int = 1,
    label: str = "",
    work: str = "",
    budget_usd: Decimal | None = None,
    retry_errors: bool = False,
    progress: Callable[[Progress], None] | None = None,
    make: Making | None = None,
) -> Execution:
    """Return the execution of a test set, carried on where an earlier process was killed.

    Sends prompts, writes attempts as they are judged, and at the end one artifact. What was
    answered and stored is never sent again; a kill loses at most the calls in flight. A target that
    raises leaves rows with an error, of the failing cases alone.

    Args:
        store: Where attempts go, redacted.
        test_set: What to send.
        targets: Whom to send it to; names differ. They are closed at the end.
        graders: Kind of target → who judges what comes back.
        trials: How often each case is sent to each target, for the variance of models, >= 1.
        label: Part of the id: another label does the same work anew.
        work: Under which costs are entered, those of the gateway too; the execution's id if empty.
        budget_usd: Most to spend in all, earlier processes and tries included. The gateway counts
            against its own budgets as well, and neither sees what the other has in flight.
        retry_errors: Make the attempts that failed again, and no others.
        progress: Called after each stored batch.
        make: Who makes the attempts; this process if not given.

    Raises:
        ConfigError: If there is no target, two share a name, or nobody judges a kind of target.
        BudgetError: At the limit; what is stored is kept.
        StoreError: If the disk is full or read-only; what is stored is kept.
        WorkbenchError: If :func:`abort` was called; what is stored is kept.
    """
    _check(targets, graders, trials=trials)
    execution = execution_id_of(test_set, targets, graders, trials=trials, label=label)
    total = len(test_set) * len(targets) * trials
    async with _alone(store, execution) as lease:
        before = _artifact(store, execution)
        if before and not (retry_errors and before.errors):
            _drop_leftovers(store, before)
            store.artifacts.renew("execution", execution)  # it would have been made now
            return replace(before, resumed=total)
        if retry_errors:
            remove_errors(store.engine, execution, lease=lease)
        forget_stop(store.engine, execution)
        done = _done(store, execution, targets, before=before)
        task = Task(
            store=store, execution=execution, targets=targets, graders=graders, cases=test_set,
            trials=trials, total=total, work=work or execution, budget_usd=budget_usd, done=done,
            lease=lease, progress=progress,
        )  # fmt: skip
        told = {"test_set": test_set.id, "targets": task.names, "total": total}
        tell(store, "attack_run_started", execution, told)
        try:
            await (make or _make)(task)
        except BaseException as error:
            why = str(error) or type(error).__name__
            tell(store, "attack_run_aborted", execution, {**told, **task.figures, "why": why})
            raise
        finally:
            if not lease.lost.is_set():  # else it is for whoever makes it now
                forget_stop(store.engine, execution)
            await asyncio.gather(*(one.close() for one in targets), return_exceptions=True)
        if (made := task.figures["done"]) != total:
            raise StoreError(
                f"execution {execution[:12]} has {made} of {total} attempts; run it again to go on"
            )
        spending = {"usd": str(spent(store.engine, work or execution))}
        await asyncio.to_thread(
            compact,
            store,
            _manifest(execution, test_set.id, targets, graders, trials=trials) | spending,
            cases=test_set,
            before=before.path if before else None,
            lease=lease,
        )
        tell(store, "attack_run_finished", execution, {**told, **task.figures})
        return load_execution(store, execution, resumed=sum(map(len, done.values())))


async def _make(task: Task) -> None:
    """Make what is left in this process."""
    recorder = Recorder(
        task.store, execution=task.execution, graders=task.graders, work=task.work,
        watched=task.watched, done=sum(map(len, task.done.values())), total=task.total,
        usd=spent(task.store.engine, task.work), progress=task.progress, lease=task.lease,
    )  # fmt: skip
    runner = Runner(
        recorder, execution=task.execution, budget_usd=task.budget_usd,
        why_stop=partial(look, task), lease=task.lease,
    )  # fmt: skip
    try:
        await runner.run(
            task.targets,
            lambda target: missing(task.cases, trials=task.trials, done=task.done[target.name]),
        )
    finally:
        task.figures.update(recorder.figures)


def look(task: Task) -> str:
    """Return why to stop; empty for going on.

    Raises:
        LeaseHeld: If another may make the execution by now.
    """
    refuse_lost(task.lease)
    return why_stop(task.store.engine, task.execution, token=task.lease.token)


def abort(store: Store, execution: str) -> None:
    """Ask whoever makes an execution, on whatever machines, to stop; what is stored is kept."""
    ask_to_stop(store.engine, execution)


def execution_id_of(
    test_set: TestSet | StoredTestSet | str,
    targets: Sequence[Target],
    graders: Mapping[Kind, Grader],
    *,
    trials: int = 1,
    label: str = "",
) -> str:
    """Return the id of executing a test set: hash of everything that its verdicts depend on."""
    kinds = {target.kind for target in targets}
    return content_id(
        {
            "test_set": test_set if isinstance(test_set, str) else test_set.id,
            "targets": {target.name: target.identity for target in targets},
            "graders": {kind: graders[kind].id for kind in kinds},
            "trials": trials,
            "label": label,
            "rule": _RULE,
        }
    )


def _check(targets: Sequence[Target], graders: Mapping[Kind, Grader], *, trials: int) -> None:
    names = [target.name for target in targets]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"targets are {names}; give at least one, each with a name of its own")
    for target in targets:
        if not target.name.isprintable() or len(target.name) > _MOST_NAME:
            raise ConfigError(
                f"target name {target.name[:80]!r}: <= {_MOST_NAME} printable letters"
            )
        if target.kind not in graders or not graders[target.kind].thresholds:
            raise ConfigError(f"nobody judges {target.name!r}, a {target.kind}; give a judge")
    if trials < 1:
        raise ConfigError(f"trials is {trials}; give at least 1")


def _manifest(
    execution: str,
    test_set: str,
    targets: Sequence[Target],
    graders: Mapping[Kind, Grader],
    *,
    trials: int,
) -> dict[str, Any]:
    used = [graders[kind] for kind in sorted({target.kind for target in targets})]
    return {
        "execution": execution,
        "test_set": test_set,
        "targets": [target.name for target in targets],
        "identities": {target.name: target.identity for target in targets},
        "kinds": {target.name: target.kind for target in targets},
        "baselines": [target.name for target in targets if not target.defends],
        "trials": trials,
        "rule": _RULE,
        "judges": list({one["id"]: one for grader in used for one in grader.reports}.values()),
        "thresholds": {name: p for grader in used for name, p in grader.thresholds.items()},
        "accuracy": [dict(row) for grader in used for row in grader.accuracy],
        "attempts": 0,
        "errors": 0,
    }


@asynccontextmanager
async def _alone(store: Store, execution: str) -> AsyncIterator[Lease]:
    """Wait until nobody else makes the same execution, nor workers for somebody who was killed."""
    async with take(store, execution) as lease:
        while has_workers(store.engine, execution):  # they stop: the lease is no longer theirs
            refuse_lost(lease)
            await asyncio.sleep(_POLL_S)
        yield lease


@asynccontextmanager
async def take(
    store: Store, name: str, *, check: Callable[[], object] = bool
) -> AsyncIterator[Lease]:
    """Wait for a lease and hold it.

    Args:
        store: Of the lease.
        name: Of the lease.
        check: Called before each look; may raise.
    """
    with ExitStack() as stack:
        while True:
            check()
            try:
                held = hold(store.engine, name, holder=store.settings.user, seconds=_LEASE_S)
                lease = stack.enter_context(held)
                break
            except LeaseHeld:
                await asyncio.sleep(_POLL_S)
        yield lease


def _artifact(store: Store, execution: str) -> Execution | None:
    if not store.artifacts.exists("execution", execution):
        return None
    return load_execution(store, execution)


def _done(
    store: Store, execution: str, targets: Sequence[Target], *, before: Execution | None
) -> dict[str, set[tuple[str, int]]]:
    """Return target → (case id, trial) that are stored, or that an earlier artifact has."""
    earlier = finished(before.path) if before else {}
    return {
        one.name: attempted(store.engine, execution, target=one.name) | earlier.get(one.name, set())
        for one in targets
    }


def _drop_leftovers(store: Store, whole: Execution) -> None:
    """Remove rows that the artifact has too: a process was killed before it could.

    Rows that it lacks are of a retry that was killed, and wait for the next one.
    """
    rows = {name: attempted(store.engine, whole.id, target=name) for name in whole.targets}
    if any(rows.values()):
        done = finished(whole.path)
        if all(mine <= done.get(name, set()) for name, mine in rows.items()):
            remove_attempts(store.engine, whole.id)
