"""Phase 2: a test set against any targets, each case once, whatever is killed in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from workbench.campaign.executions import Execution, compact, finished, load_execution
from workbench.campaign.grading import Grader
from workbench.campaign.recorder import Progress, Recorder
from workbench.campaign.runner import Runner
from workbench.campaign.targets.base import Kind, Target
from workbench.core.errors import ConfigError, StoreError
from workbench.core.identity import content_id
from workbench.store.campaigns import attempted, remove_attempts, remove_errors, spent
from workbench.store.database import Store
from workbench.store.events import tell
from workbench.store.records import TestSet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from workbench.campaign.testsets import StoredTestSet

__all__ = ["Progress", "abort", "execute", "execution_id_of"]

_RULE = "executions/2"
"""Name of how an execution is made; a change of what verdicts depend on is another one."""
_MOST_NAME = 200
"""Characters that the store keeps of a name."""
_POLL_S = 0.2
"""Between looks at a lock that another process holds."""


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

    Raises:
        ConfigError: If there is no target, two share a name, or nobody judges a kind of target.
        BudgetError: At the limit; what is stored is kept.
        StoreError: If the disk is full or read-only; what is stored is kept.
        WorkbenchError: If :func:`abort` was called; what is stored is kept.
    """
    _check(targets, graders, trials=trials)
    execution = execution_id_of(test_set, targets, graders, trials=trials, label=label)
    total = len(test_set) * len(targets) * trials
    async with _alone(store, execution):
        before = _artifact(store, execution)
        if before and not (retry_errors and before.errors):
            _drop_leftovers(store, before)
            store.artifacts.renew("execution", execution)  # it would have been made now
            return replace(before, resumed=total)
        if retry_errors:
            remove_errors(store.engine, execution)
        flag = _flag(store, execution)
        flag.unlink(missing_ok=True)
        done = _done(store, execution, targets, before=before)
        watched = {one.name for one in targets if one.defends} or {one.name for one in targets}
        recorder = Recorder(
            store, execution=execution, graders=graders, work=work or execution, watched=watched,
            done=sum(map(len, done.values())), total=total, progress=progress,
        )  # fmt: skip
        runner = Runner(
            recorder, execution=execution, trials=trials, budget_usd=budget_usd,
            is_aborted=flag.exists, done=done,
        )  # fmt: skip
        told = {"test_set": test_set.id, "targets": [one.name for one in targets], "total": total}
        tell(store, "attack_run_started", execution, told)
        try:
            await runner.run(targets, test_set)
        except BaseException as error:
            why = str(error) or type(error).__name__
            tell(store, "attack_run_aborted", execution, {**told, **recorder.figures, "why": why})
            raise
        finally:
            flag.unlink(missing_ok=True)
        if (made := recorder.figures["done"]) != total:
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
        )
        tell(store, "attack_run_finished", execution, {**told, **recorder.figures})
        return load_execution(store, execution, resumed=sum(map(len, done.values())))


def abort(store: Store, execution: str) -> None:
    """Ask the process that runs an execution to stop; what it has stored is kept."""
    _flag(store, execution).touch()


def execution_id_of(
    test_set: TestSet | StoredTestSet,
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
            "test_set": test_set.id,
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
async def _alone(store: Store, execution: str) -> AsyncIterator[None]:
    """Wait until no other process of this machine makes the same execution."""
    path = store.home / "locks" / f"{execution[:32]}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, thread_local=False)
    while not lock.is_locked:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            await asyncio.sleep(_POLL_S)
    try:
        yield
    finally:
        lock.release()


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


def _flag(store: Store, execution: str) -> Path:
    return store.home / "locks" / f"{execution[:32]}.abort"
