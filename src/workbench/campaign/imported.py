"""What other tools tried, kept as an execution like any other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from workbench.campaign import testsets
from workbench.campaign.executions import Execution, compact, load_execution
from workbench.core.errors import DataError
from workbench.core.identity import content_id, file_sha256
from workbench.core.plain import storable
from workbench.store.campaigns import add_attempts, remove_attempts
from workbench.store.database import Store
from workbench.store.records import Attempt, TestSet

__all__ = ["keep_attempts"]

_TOGETHER = 1_000
_MOST_NAME = 200
"""Characters of a target's name that every database takes."""


def keep_attempts(
    store: Store,
    test_set: TestSet,
    attempts: Iterable[Attempt],
    *,
    source: str,
    path: Path,
    threshold: float = 0.5,
) -> Execution:
    """Return the execution that another tool made, with its own verdicts; writes to the store.

    Args:
        store: Where to.
        test_set: What was tried; it is saved as well.
        attempts: Read from the file.
        source: The tool.
        path: The file; the same file is the same execution.
        threshold: Score from which the tool's judges say that an attack succeeded.

    Raises:
        DataError: If an attempt is of none of the cases, or there are none.
    """
    known = {case.id for case in test_set}
    execution = content_id(["imported", source, file_sha256(path), test_set.id])
    if store.artifacts.exists("execution", execution):
        return load_execution(store, execution)
    testsets.save(store, test_set)
    remove_attempts(store.engine, execution)  # of an import that was killed
    trials = 1
    targets: set[str] = set()
    judges: set[str] = set()
    trials = 1
    page: list[Attempt] = []
    for one in attempts:
        if one.case_id not in known:
            raise DataError(
                f"{path}: attempt on case {one.case_id[:12]} is on none of test set"
                f" {test_set.id[:12]}; give the set that was executed with --test-set"
            )
        mine = _storable(one, execution=execution)
        trials = max(trials, mine.trial + 1)
        targets.add(mine.target)
        judges.update(mine.scores)
        trials = max(trials, mine.trial + 1)
        page.append(mine)
        if len(page) == _TOGETHER:
            add_attempts(store.engine, page)
            page.clear()
    if page:
        add_attempts(store.engine, page)
    if not targets:
        raise DataError(f"{path}: has no attempts; give the file of an evaluation")
    names = sorted(targets)
    manifest = {
        "execution": execution,
        "test_set": test_set.id,
        "targets": names,
        "identities": {name: f"{source}:{name}" for name in names},
        "kinds": dict.fromkeys(names, "model"),
        "baselines": names,
        "trials": trials,
        "rule": f"imported/{source}",
        "judges": [],
        "thresholds": dict.fromkeys(sorted(judges), threshold),
        "accuracy": [],
        "attempts": 0,
        "errors": 0,
    }
    compact(store, manifest, cases=test_set)
    return load_execution(store, execution)


def _storable(one: Attempt, *, execution: str) -> Attempt:
    return replace(
        one,
        execution=execution,
        target=storable(one.target)[:_MOST_NAME],
        sent=storable(one.sent),
        received=storable(one.received),
        replies=tuple(map(storable, one.replies)),
        error=storable(one.error),
        scores={storable(judge): score for judge, score in one.scores.items()},
        reasons={storable(judge): storable(why) for judge, why in one.reasons.items()},
    )
