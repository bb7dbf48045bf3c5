"""The rows of campaigns while they run: attempts, and how often attacks worked before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import Engine, delete, func, insert, select
from sqlalchemy.exc import IntegrityError

from workbench.core.errors import StoreError
from workbench.core.money import ZERO
from workbench.store import schema
from workbench.store.events import insert_events
from workbench.store.records import Attempt, Event
from workbench.store.transaction import transaction

__all__ = [
    "add_attempts", "add_outcomes", "attempt_pages", "attempted", "outcomes", "outcomes_of",
    "remove_attempts", "remove_errors", "spent", "unfinished",
]  # fmt: skip


def attempted(engine: Engine, execution: str, *, target: str) -> set[tuple[str, int]]:
    """Return (case id, trial) of what was already sent to a target."""
    table = schema.attempts
    query = select(table.c.case_id, table.c.trial)
    query = query.where(table.c.execution == execution, table.c.target == target)
    with transaction(engine) as connection:
        return {(case, trial) for case, trial in connection.execute(query)}


def add_attempts(
    engine: Engine,
    attempts: Iterable[Attempt],
    *,
    events: Iterable[Event] = (),
) -> None:
    """Write attempts, with the events of them, in one transaction.

    Args:
        engine: Of the store.
        attempts: Made, none of them stored before.
        events: To tell of them.

    Raises:
        StoreError: If one is stored already.
    """
    rows = [vars(one) | {"usd": str(one.usd), "replies": list(one.replies)} for one in attempts]
    try:
        with transaction(engine) as connection:
            connection.execute(insert(schema.attempts), rows)
            insert_events(connection, events)
    except IntegrityError:
        raise StoreError(
            "an attempt is stored already: another machine makes the same execution; stop one of"
            " them, what is stored is kept"
        ) from None


def spent(engine: Engine, work: str) -> Decimal:
    """Return what a piece of work was billed so far, whatever became of the answers."""
    table = schema.ledger
    paid = (table.c.work == work) & (table.c.usd != "0")
    with transaction(engine) as connection:
        found = connection.execute(select(table.c.usd).where(paid)).scalars()
        return sum(map(Decimal, found), ZERO)


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


def remove_attempts(engine: Engine, execution: str) -> None:
    """Remove the rows of an execution, once its artifact stands."""
    table = schema.attempts
    with transaction(engine) as connection:
        connection.execute(delete(table).where(table.c.execution == execution))


def remove_errors(engine: Engine, execution: str) -> int:
    """Remove the attempts that failed, so that they are made again; return how many."""
    table = schema.attempts
    failed = (table.c.execution == execution) & (table.c.error != "")
    with transaction(engine) as connection:
        return connection.execute(delete(table).where(failed)).rowcount


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


def outcomes_of(engine: Engine, execution: str) -> list[dict[str, Any]]:
    """Return what was written of an execution, by target, plugin and strategy.

    Severity and taxonomy are empty where it ended before they were kept.
    """
    table = schema.outcomes
    query = select(table).where(table.c.execution == execution)
    query = query.order_by(table.c.target, table.c.plugin, table.c.strategy)
    with transaction(engine) as connection:
        return [dict(row) for row in connection.execute(query).mappings()]
