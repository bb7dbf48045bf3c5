"""What a user's campaigns are at right now, in few and small readings for those who watch."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine, func, literal_column, select

from workbench.store import schema
from workbench.store.transaction import transaction

__all__ = ["newest_events", "watched_execution"]

_RUN_KINDS = {
    "attack_run_started": "running",
    "attack_run_finished": "finished",
    "attack_run_aborted": "aborted",
}
"""Kind of event → what state an execution is in after it."""


def newest_events(engine: Engine, *, owner: str, after: int = 0) -> dict[str, list[Any]]:
    """Return kind → [id, subject] of a user's newest event of that kind.

    Args:
        engine: Of the store.
        owner: Whose events.
        after: Only events with a higher id: a look at what is new costs nothing else.
    """
    table = schema.events
    newest = select(func.max(table.c.id)).where(table.c.who == owner, table.c.id > after)
    newest = newest.group_by(table.c.kind)
    query = select(table.c.kind, table.c.id, table.c.subject)
    with transaction(engine) as connection:
        rows = connection.execute(query.where(table.c.id.in_(newest)))
        return {kind: [number, subject] for kind, number, subject in rows}


def watched_execution(engine: Engine, execution: str, *, owner: str) -> dict[str, Any] | None:
    """Return how an execution that a user started stands; None if that user started none such.

    Returns:
        state (``running``, ``finished``, ``aborted``), job, test_set, total; figures (done, errors,
        successes, usd) as they were told at its end; and targets: name → [attempts, flagged,
        errors], flagged being attacks that got through and benign controls that were lost. Targets
        are there while their rows are, that is until the results are an artifact.
    """
    table = schema.events
    query = select(table.c.kind, table.c.run, table.c.details).order_by(table.c.id.desc()).limit(1)
    query = query.where(
        table.c.subject == execution, table.c.who == owner, table.c.kind.in_(_RUN_KINDS)
    )
    with transaction(engine) as connection:
        told = connection.execute(query).first()
        if told is None:
            return None
        kind, job, details = told
        figures = {k: details[k] for k in ("done", "errors", "successes", "usd") if k in details}
        return {
            "state": _RUN_KINDS[kind],
            "job": job,
            "test_set": details.get("test_set", ""),
            "total": details.get("total", 0),
            "figures": figures,
            "targets": _targets(connection, execution),
        }


def _targets(connection: Connection, execution: str) -> dict[str, list[int]]:
    """Count what an index answers by itself: a row of attempts is long."""
    table = schema.attempts
    query = select(table.c.target, func.count()).where(table.c.execution == execution)
    query = query.group_by(table.c.target).order_by(table.c.target)
    flagged, failed = (
        {row.target: row[1] for row in connection.execute(query.where(which))}
        for which in (table.c.success, table.c.error != literal_column("''"))
    )
    return {
        target: [count, flagged.get(target, 0), failed.get(target, 0)]
        for target, count in connection.execute(query)
    }
