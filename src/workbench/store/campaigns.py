"""The rows of campaigns while they run: attempts, and how often attacks worked before."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, delete, func, insert, select
from sqlalchemy.exc import IntegrityError

from workbench.core.errors import StoreError
from workbench.core.money import ZERO
from workbench.store import schema
from workbench.store.events import insert_events
from workbench.store.leases import Lease, database_seconds, is_held
from workbench.store.owners import Owners
from workbench.store.records import Attempt, Event, now
from workbench.store.transaction import once, retried, transaction

__all__ = [
    "add_attempts", "add_outcomes", "ask_to_stop", "attempt_pages", "attempted", "counts",
    "forget_stop", "has_workers", "outcomes", "outcomes_of", "remove_attempts", "remove_errors",
    "shard_name", "spent", "unfinished", "why_stop",
]  # fmt: skip

_STOP = "stop "
"""Before an execution's id: the name of the row that says that it shall stop."""


@retried
def attempted(
    engine: Engine, execution: str, *, target: str, cases: Collection[str] | None = None
) -> set[tuple[str, int]]:
    """Return (case id, trial) of what was already sent to a target; of some cases, or of all."""
    table = schema.attempts
    query = select(table.c.case_id, table.c.trial)
    query = query.where(table.c.execution == execution, table.c.target == target)
    if cases is not None:
        query = query.where(table.c.case_id.in_(cases))
    with transaction(engine) as connection:
        return {(case, trial) for case, trial in connection.execute(query)}


def add_attempts(
    engine: Engine,
    attempts: Iterable[Attempt],
    *,
    events: Iterable[Event] = (),
    lease: Lease | None = None,
) -> None:
    """Write attempts, with the events of them, in one transaction, once.

    Args:
        engine: Of the store.
        attempts: Made, none of them stored before.
        events: To tell of them.
        lease: Without which nothing is written.

    Raises:
        LeaseHeld: If the lease is another's by now.
        StoreError: If one is stored already.
    """
    rows = [vars(one) | {"usd": str(one.usd), "replies": list(one.replies)} for one in attempts]
    told = list(events)

    def write(connection: Connection) -> None:
        if lease:
            lease.fence(connection)
        connection.execute(insert(schema.attempts), rows)
        insert_events(connection, told)

    try:
        once(engine, write)
    except IntegrityError:
        raise StoreError(
            "an attempt is stored already: another machine makes the same execution; stop one of"
            " them, what is stored is kept"
        ) from None


@retried
def ask_to_stop(engine: Engine, execution: str) -> None:
    """Ask whoever makes an execution, on whatever machines, to stop."""
    forget_stop(engine, execution)
    row = {"name": f"{_STOP}{execution}", "holder": "", "process": "", "until": 0.0}
    try:
        with transaction(engine) as connection:
            connection.execute(insert(schema.leases), row)
    except IntegrityError:  # somebody else asks at the same moment
        return


@retried
def forget_stop(engine: Engine, execution: str) -> None:
    """Forget that somebody asked an execution to stop."""
    table = schema.leases
    with transaction(engine) as connection:
        connection.execute(delete(table).where(table.c.name == f"{_STOP}{execution}"))


@retried
def why_stop(engine: Engine, execution: str, *, token: str) -> str:
    """Return why an execution shall stop: somebody asked, or another makes it; else empty.

    Args:
        engine: Of the store.
        execution: Its id, the name of its lease too.
        token: Of the lease of whoever makes it, or deals it to workers.
    """
    table, mark = schema.leases, f"{_STOP}{execution}"
    query = select(table.c.name, table.c.holder).where(table.c.name.in_([mark, execution]))
    with transaction(engine) as connection:
        found = {row.name: row.holder for row in connection.execute(query)}
    if mark in found:
        return "aborted"
    if found.get(execution) == token:
        return "" if is_held(engine, execution, token) else "whoever made this execution has ended"
    return (
        "another process makes this execution now" if execution in found
        else f"{engine.url!r}: nobody makes this execution there; give all workers one store"
    )  # fmt: skip


def shard_name(execution: str, slot: int) -> str:
    """Return the name of the lease of whoever works on a shard of an execution."""
    return f"shard {execution} {slot}"


@retried
def has_workers(engine: Engine, execution: str) -> bool:
    """Return whether anybody still works on a shard of an execution."""
    table = schema.leases
    query = select(table.c.process).where(table.c.until > database_seconds(engine))
    query = query.where(table.c.name.startswith(f"shard {execution} "))
    with transaction(engine) as connection:
        found = list(connection.execute(query).scalars())
    return any(Owners(time.time).is_alive(process, at=now()) for process in found)


@retried
def counts(engine: Engine, execution: str) -> Counter[str]:
    """Return how many attempts of an execution are stored, and how often hits and errors were told.

    Returns:
        done (rows that are there now), errors and successes (events, of earlier tries too).
    """
    attempts, told = schema.attempts, schema.events
    kinds = {"vulnerable_prompt_detected": "successes", "target_failed": "errors"}
    rows = select(func.count()).where(attempts.c.execution == execution)
    by_kind = select(told.c.kind, func.count()).where(told.c.subject == execution)
    by_kind = by_kind.where(told.c.kind.in_(list(kinds))).group_by(told.c.kind)
    with transaction(engine) as connection:
        found = Counter(done=connection.execute(rows).scalar_one())
        found.update({kinds[kind]: count for kind, count in connection.execute(by_kind)})
    return found


@retried
def spent(engine: Engine, work: str) -> Decimal:
    """Return what a piece of work was billed so far, whatever became of the answers."""
    table = schema.ledger
    paid = (table.c.work == work) & (table.c.usd != "0")
    with transaction(engine) as connection:
        found = connection.execute(select(table.c.usd).where(paid)).scalars()
        return sum(map(Decimal, found), ZERO)


@retried
def unfinished(engine: Engine) -> dict[str, str]:
    """Return execution → test set of those that have attempts and are no artifact yet.

    The test set is empty where the start was not told.
    """
    events = schema.events.c
    running = select(schema.attempts.c.execution).distinct().subquery()
    said = func.max(events.details["test_set"].as_string())
    is_start = (events.subject == running.c.execution) & (events.kind == "attack_run_started")
    query = select(running.c.execution, select(said).where(is_start).scalar_subquery())
    with transaction(engine) as connection:
        return {execution: test_set or "" for execution, test_set in connection.execute(query)}


def attempt_pages(engine: Engine, execution: str, *, rows: int) -> Iterator[list[dict[str, Any]]]:
    """Give the attempts of an execution by target, case and trial, so many rows at a time.

    Each page is a query of its own that begins behind the last: no cursor stays open, and no more
    than a page is held.
    """
    table = schema.attempts
    order = (table.c.target, table.c.case_id, table.c.trial)
    query = select(table).where(table.c.execution == execution).order_by(*order).limit(rows)
    page: Sequence[Any] = ()
    while True:
        behind = query
        if page:
            last = page[-1]
            behind = query.where(
                (table.c.target > last["target"])
                | (table.c.target == last["target"]) & (table.c.case_id > last["case_id"])
                | (table.c.target == last["target"])
                & (table.c.case_id == last["case_id"])
                & (table.c.trial > last["trial"])
            )
        with transaction(engine) as connection:
            page = [dict(row) for row in connection.execute(behind).mappings()]
        if not page:
            return
        yield list(page)


def remove_attempts(engine: Engine, execution: str, *, lease: Lease | None = None) -> None:
    """Remove the rows of an execution, once its artifact stands; raises as :func:`add_attempts`."""
    _remove(engine, schema.attempts.c.execution == execution, lease)


def remove_errors(engine: Engine, execution: str, *, lease: Lease | None = None) -> int:
    """Remove the attempts that failed, so that they are made again; return how many.

    Raises as :func:`add_attempts`.
    """
    table = schema.attempts
    return _remove(engine, (table.c.execution == execution) & (table.c.error != ""), lease)


@retried
def _remove(engine: Engine, which: ColumnElement[bool], lease: Lease | None) -> int:
    with transaction(engine) as connection:
        if lease:
            lease.fence(connection)
        return connection.execute(delete(schema.attempts).where(which)).rowcount


@retried
def add_outcomes(engine: Engine, execution: str, rows: Sequence[dict[str, Any]]) -> None:
    """Write how often each plugin × strategy worked on each target, over what was known of it.

    Args:
        engine: Of the store.
        execution: Whose outcomes.
        rows: target, plugin, strategy, successes and attempts of each, and where known the worst
            severity that was tried and the taxonomy ids, sorted.
    """
    table = schema.outcomes
    usual = {"execution": execution, "severity": "", "taxonomy": []}
    with transaction(engine) as connection:
        connection.execute(delete(table).where(table.c.execution == execution))
        if rows:
            connection.execute(insert(table), [{**usual, **row} for row in rows])


@retried
def outcomes(engine: Engine) -> dict[tuple[str, str], tuple[int, int]]:
    """Return (plugin, strategy) → successes and attempts over all finished executions."""
    table = schema.outcomes
    sums = (func.sum(table.c.successes), func.sum(table.c.attempts))
    query = select(table.c.plugin, table.c.strategy, *sums)
    query = query.group_by(table.c.plugin, table.c.strategy)
    with transaction(engine) as connection:
        return {
            (plugin, strategy): (int(successes), int(attempts))
            for plugin, strategy, successes, attempts in connection.execute(query)
        }


@retried
def outcomes_of(engine: Engine, execution: str) -> list[dict[str, Any]]:
    """Return what was written of an execution, by target, plugin and strategy.

    Severity and taxonomy are empty where it ended before they were kept.
    """
    table = schema.outcomes
    query = select(table).where(table.c.execution == execution)
    query = query.order_by(table.c.target, table.c.plugin, table.c.strategy)
    with transaction(engine) as connection:
        return [dict(row) for row in connection.execute(query).mappings()]
