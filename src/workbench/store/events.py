"""Events of campaigns, in the order in which they were told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

from sqlalchemy import Connection, Engine, insert, select

from workbench.store import schema
from workbench.store.records import Event
from workbench.store.transaction import transaction

__all__ = ["add_events", "events", "insert_events"]


def add_events(engine: Engine, told: Iterable[Event]) -> None:
    """Append events in one transaction."""
    with transaction(engine) as connection:
        insert_events(connection, told)


def insert_events(connection: Connection, told: Iterable[Event]) -> None:
    """Append events inside a transaction of the caller's."""
    if rows := [asdict(one) for one in told]:
        connection.execute(insert(schema.events), rows)


def events(
    engine: Engine, *, kind: str = "", subject: str = "", since: str = "", limit: int = 1_000
) -> list[Event]:
    """Return the newest events, oldest of them first.

    Args:
        engine: Of the store.
        kind: Only of this kind.
        subject: Only what happened to this.
        since: Only from then on, ISO 8601 in UTC.
        limit: Most to return.
    """
    table = schema.events
    query = select(table).order_by(table.c.id.desc()).limit(limit)
    query = query.where(table.c.kind == kind) if kind else query
    query = query.where(table.c.subject == subject) if subject else query
    query = query.where(table.c.at >= since) if since else query
    with transaction(engine) as connection:
        rows = [dict(row) for row in connection.execute(query).mappings()]
    return [Event(**{k: v for k, v in row.items() if k != "id"}) for row in reversed(rows)]
