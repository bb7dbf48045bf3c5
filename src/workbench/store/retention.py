"""What is compressed and removed when: summaries stay for ever, and whatever they stand on.

Runs, results, ledger, events, findings, outcomes and the lists of test sets are rows of the
database, which are never removed. Artifacts and the folders of runs are, by the policy, but for

- what is on legal hold,
- the newest of each kind,
- what is tagged, or was confirmed,
- test sets of executions that are not finished, and
- whatever something refers to that is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from sqlalchemy import Connection, select

from workbench.core.errors import DataError, InputError
from workbench.core.fields import suggest
from workbench.store import schema
from workbench.store.artifacts import ArtifactKind, Artifacts
from workbench.store.campaigns import unfinished
from workbench.store.events import event_of, insert_events
from workbench.store.isolation import acting_for, everybody
from workbench.store.ledger import insert_rows
from workbench.store.marks import Mark, Marked, change_mark, marked
from workbench.store.policy import RETAINED, Policy, Rule
from workbench.store.records import Run, now
from workbench.store.run_folders import (
    RunFolder,
    compress_run,
    hold_of,
    hold_run,
    look_at,
    reduce_run,
)
from workbench.store.storage_cost import freed_row
from workbench.store.transaction import transaction

if TYPE_CHECKING:
    from workbench.store.database import Store

__all__ = ["Applied", "Planned", "apply_retention", "hold", "plan_retention", "release"]

Action = Literal["compress", "remove", "keep"]

_WORTH_IT = 0.8
"""Share of its size that an artifact must be expected to shrink to, to be compressed."""
_SMALLEST_GAIN = 4096


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What is to become of an artifact or a run; ``keep`` where it is old enough to be removed."""

    kind: str
    id: str
    action: Action
    why: str
    created_at: str
    bytes_before: int
    bytes_after: int
    """Estimated where it is to be compressed."""


@dataclass(frozen=True, kw_only=True)
class Applied:
    """What became of a plan."""

    compressed: int
    removed: int
    bytes_freed: int
    left: int
    """Rows of the plan that were not reached before the window closed."""
    rests: int
    """What killed processes had left."""


def plan_retention(store: Store, policy: Policy, *, now: datetime) -> list[Planned]:
    """Return what a policy does to a store at a time, oldest first; changes nothing.

    Args:
        store: The store, of all users.
        policy: How long what is kept.
        now: Time of which ages are taken, with a time zone.

    Raises:
        InputError: If the store acts for one user alone.
        StoreError: If the database cannot be read.
    """
    artifacts = _of_all(store)
    rows = [
        one if one.mark.bytes >= 0 else _measured(artifacts, one)
        for one in marked(everybody(store.engine))
        if not one.mark.removed_at
    ]
    ages = {one.id: _days(one.created_at, now) for one in rows}
    reasons = _protected(store, rows)
    old = {
        one.id
        for one in rows
        if ages[one.id] >= policy.rule(one.kind).remove_after_days and one.id not in reasons
    }
    reasons |= _referred(rows, old)
    fates = [_fate(one, policy, ages[one.id], reasons.get(one.id, "")) for one in rows]
    planned = [one for one in fates if one] + list(_runs(store, policy, now=now))
    return sorted(planned, key=lambda one: (one.created_at, one.id))


def apply_retention(
    store: Store,
    policy: Policy,
    planned: Iterable[Planned],
    *,
    go_on: Callable[[], bool] = lambda: True,
) -> Applied:
    """Do what was planned, oldest first; return what came of it.

    Each artifact is let go by itself, with its ledger row and event in one transaction: killed at
    any moment, planning and applying again does the rest.

    Args:
        store: The store, of all users.
        policy: By which was planned.
        planned: As :func:`plan_retention` gave it.
        go_on: Asked before each; what is left once it says no is for another time.

    Raises:
        InputError: If the store acts for one user alone.
        StoreError: If the disk is full, or the database or a remote location cannot be reached.
    """
    artifacts = _of_all(store)
    runs = {run.id: run for run in _all_runs(store)}
    counts = {"compress": 0, "remove": 0}
    freed = left = 0
    for one in planned:
        if one.action == "keep":
            continue
        if not go_on():
            left += 1
            continue
        teller = _Teller(store, policy, one)
        if one.kind == "run":
            done = one.id in runs and _apply_to_run(store, runs[one.id], one, teller)
        else:
            done = _apply(artifacts, one, teller)
        counts[one.action] += done
        freed += teller.freed
    rests = artifacts.sweep()
    return Applied(
        compressed=counts["compress"], removed=counts["remove"], bytes_freed=freed, left=left,
        rests=rests,
    )  # fmt: skip


def hold(store: Store, kind: str, beginning: str, *, why: str = "") -> str:
    """Put an artifact or a run on legal hold, and what it refers to with it; return its id.

    Raises:
        DataError: If there is none, or it was removed already.
        InputError: If there is no such kind.
    """
    said = {"by": store.settings.user, "at": now(), "why": why}
    return _set_hold(store, kind, beginning, {name: one for name, one in said.items() if one})


def release(store: Store, kind: str, beginning: str) -> str:
    """Take a legal hold off an artifact or a run; return its id; raises as :func:`hold`."""
    return _set_hold(store, kind, beginning, {})


class _Teller:
    """Tells ledger and events what became of one row of a plan."""

    def __init__(self, store: Store, policy: Policy, planned: Planned) -> None:
        self._store = store
        self._policy = policy
        self._planned = planned
        self.freed = 0

    def __call__(self, connection: Connection, before: Mark, after: Mark) -> None:
        size = before.stored if before.stored >= 0 else self._planned.bytes_before
        self.tell(connection, before=size, after=max(after.stored, 0))

    def tell(self, connection: Connection, *, before: int, after: int) -> None:
        one = self._planned
        self.freed = before - after
        details = {
            "kind": one.kind, "id": one.id, "bytes_before": before, "bytes_after": after,
            "policy": one.why,
        }  # fmt: skip
        action = "compressed" if one.action == "compress" else "removed"
        row = freed_row(self._store, self._policy, action=action, details=details)
        insert_rows(connection, [row])
        insert_events(connection, [event_of(self._store, f"storage_{action}", one.id, details)])


def _of_all(store: Store) -> Artifacts:
    if user := acting_for(store.engine):
        raise InputError(
            f"this store acts for {user!r} alone and cannot tell what others need; open it without"
        )
    return store.artifacts.seeing(everybody(store.engine))


def _measured(artifacts: Artifacts, one: Marked) -> Marked:
    """Return an artifact of a version that did not measure them; empty if its folder is gone."""
    try:
        mark = artifacts.measured(cast("ArtifactKind", one.kind), one.id)
    except DataError:
        mark = Mark(at=one.mark.at, bytes=0, stored=0, packs_to=0, hold=one.mark.hold)
    return Marked(**{**vars(one), "mark": mark})


def _protected(store: Store, rows: Sequence[Marked]) -> dict[str, str]:
    """Return id → why it is kept, whatever its age."""
    reasons = {one.id: f"the newest {one.kind}" for one in _newest(rows)}
    with transaction(everybody(store.engine)) as connection:
        tags = schema.test_set_tags
        tagged = set(connection.execute(select(tags.c.test_set).distinct()).scalars())
    for one in rows:
        if one.id in tagged or any(one.metadata.get(name) for name in ("tag", "tags")):
            reasons[one.id] = "tagged"
        if one.metadata.get("confirmed"):
            reasons[one.id] = "confirmed"
    for execution, test_set in unfinished(everybody(store.engine)).items():
        reasons[test_set] = f"execution {execution[:12]} is not finished"
    return reasons | {one.id: "legal hold" for one in rows if one.mark.hold}


def _newest(rows: Sequence[Marked]) -> Iterable[Marked]:
    return {one.kind: one for one in rows}.values()  # oldest first, so that the last stays


def _referred(rows: Sequence[Marked], old: set[str]) -> dict[str, str]:
    """Return why what is kept needs what would be removed, however many steps away.

    ``old`` loses what is needed.
    """
    by_id = {one.id: one for one in rows}
    reasons: dict[str, str] = {}
    waiting = [one for one in rows if one.id not in old]
    while waiting:
        keeper = waiting.pop()
        for needed in {*keeper.mark.refers, *_texts(keeper.metadata)} & old:
            old.discard(needed)
            reasons[needed] = f"{keeper.kind} {keeper.id[:12]} refers to it"
            waiting.append(by_id[needed])
    return reasons


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)


def _fate(one: Marked, policy: Policy, age: float, reason: str) -> Planned | None:
    rule, mark = policy.rule(one.kind), one.mark
    known = partial(
        Planned, kind=one.kind, id=one.id, created_at=one.created_at, bytes_before=mark.stored
    )
    is_old = age >= rule.remove_after_days
    if is_old and not reason:
        why = f"{one.kind}: {rule.remove_after_days:g} days"
        return known(action="remove", why=why, bytes_after=0)
    if age >= rule.compress_after_days and not mark.hold and _shrinks(mark):
        why = f"{one.kind}: compressed after {rule.compress_after_days:g} days"
        return known(action="compress", why=why, bytes_after=mark.packs_to)
    return known(action="keep", why=reason, bytes_after=mark.stored) if is_old else None


def _shrinks(mark: Mark) -> bool:
    gain = mark.bytes - mark.packs_to
    return not mark.packed and gain >= _SMALLEST_GAIN and mark.packs_to <= mark.bytes * _WORTH_IT


def _runs(store: Store, policy: Policy, *, now: datetime) -> Iterator[Planned]:
    rule = policy.rule("run")
    runs = [run for run in _all_runs(store) if run.state != "running"]
    for run in runs:
        age = _days(run.finished_at or run.started_at, now)
        is_due = age >= min(rule.compress_after_days, rule.remove_after_days)
        folder = Path(run.folder)
        if is_due and (found := look_at(folder, home=store.home)):
            newest = "the newest run" if run is runs[-1] else ""
            reason = "legal hold" if hold_of(folder) else newest
            if one := _fate_of_run(run, found, rule, age=age, reason=reason):
                yield one


def _fate_of_run(
    run: Run, found: RunFolder, rule: Rule, *, age: float, reason: str
) -> Planned | None:
    size = found.bytes
    known = partial(Planned, kind="run", id=run.id, created_at=run.started_at, bytes_before=size)
    if age >= rule.remove_after_days and size > found.kept:
        if reason:
            return known(action="keep", why=reason, bytes_after=size)
        why = f"run: {rule.remove_after_days:g} days, its result stays"
        return known(action="remove", why=why, bytes_after=found.kept)
    is_worth_it = size - found.packs_to >= _SMALLEST_GAIN and reason != "legal hold"
    if age >= rule.compress_after_days and is_worth_it:
        why = f"run: compressed after {rule.compress_after_days:g} days"
        return known(action="compress", why=why, bytes_after=found.packs_to)
    return None


def _all_runs(store: Store) -> list[Run]:
    return type(store.runs)(everybody(store.engine)).find()


def _apply(artifacts: Artifacts, one: Planned, teller: _Teller) -> bool:
    kind = cast("ArtifactKind", one.kind)
    try:
        if one.action == "compress":
            return artifacts.pack(kind, one.id, say=teller)
        return artifacts.expire(kind, one.id, policy=one.why, say=teller)
    except DataError:  # somebody else removed it meanwhile
        return False


def _apply_to_run(store: Store, run: Run, one: Planned, teller: _Teller) -> bool:
    folder = Path(run.folder)
    before = look_at(folder, home=store.home)
    if before is None or hold_of(folder):
        return False
    after = compress_run(folder) if one.action == "compress" else reduce_run(folder)
    with transaction(everybody(store.engine)) as connection:
        teller.tell(connection, before=before.bytes, after=after)
    return True


def _set_hold(store: Store, kind: str, beginning: str, said: dict[str, str]) -> str:
    if kind not in RETAINED:
        raise InputError(f"no kind {kind!r:.60}; {suggest(kind, RETAINED)}")
    if kind == "run":
        run = store.runs.get(beginning)
        hold_run(Path(run.folder), said)
        found = run.id
    else:
        found = store.artifacts.resolve(cast("ArtifactKind", kind), beginning)
        if said:
            store.artifacts.metadata(cast("ArtifactKind", kind), found)  # refuses a removed one
    with transaction(store.engine) as connection:
        if kind != "run":
            change_mark(connection, kind, found, hold=said)
        details = {"kind": kind, "state": "held" if said else "released", **said}
        insert_events(connection, [event_of(store, "legal_hold", found, details)])
    return found


def _days(at: str, now: datetime) -> float:
    made = datetime.fromisoformat(at)
    made = made if made.tzinfo else made.replace(tzinfo=UTC)
    return (now - made).total_seconds() / 86_400
