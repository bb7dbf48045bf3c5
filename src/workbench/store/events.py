"""Events of campaigns, in the order in which they were told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, insert, select

from workbench.core.redact import redact
from workbench.store import schema
from workbench.store.records import Event
from workbench.store.transaction import once, retried, transaction

if TYPE_CHECKING:
    from workbench.store.database import Store

__all__ = ["add_events", "event_of", "events", "insert_events", "tell"]


def add_events(engine: Engine, told: Iterable[Event]) -> None:
    """Append events in one transaction, once."""
    listed = list(told)
    once(engine, lambda connection: insert_events(connection, listed))


def tell(store: Store, kind: str, subject: str, details: Mapping[str, Any]) -> None:
    """Append an event of the user and run of a store; personal data and secrets are taken out."""
    add_events(store.engine, [event_of(store, kind, subject, details)])


def event_of(store: Store, kind: str, subject: str, details: Mapping[str, Any]) -> Event:
    """Return an event of the user and run of a store, redacted."""
    settings = store.settings
    return Event(
        kind=kind, subject=subject, who=settings.user, experiment=settings.experiment,
        run=settings.run_id, details=_redacted(dict(details)),
    )  # fmt: skip


def _redacted(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {name: _redacted(one) for name, one in value.items()}
    return [_redacted(one) for one in value] if isinstance(value, list) else value


def insert_events(connection: Connection, told: Iterable[Event]) -> None:
    """Append events inside a transaction of the caller's."""
    if rows := [asdict(one) for one in told]:
        connection.execute(insert(schema.events), rows)


@retried
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
