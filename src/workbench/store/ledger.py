"""The append-only ledger of everything that costs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import fields
from decimal import Decimal
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    Connection,
    Delete,
    Dialect,
    Engine,
    Float,
    Insert,
    cast,
    func,
    insert,
    select,
    update,
)

from workbench.store import schema
from workbench.store.records import REHEARSAL, LedgerRow
from workbench.store.transaction import once, retried, transaction

__all__ = ["TOKEN", "Ledger", "execute_many", "insert_rows", "take_turn"]

TOKEN = "token"  # noqa: S105 - a unit
"""Unit of the rows that count against budgets."""

_INSERT = insert(schema.ledger)
_FIELDS = tuple(field.name for field in fields(LedgerRow))


def take_turn(connection: Connection) -> None:
    """Make other callers of this wait until the transaction, of which this is the start, has ended.

    Rows of model calls are written in turn, so that their ids rise in the order in which they
    become visible: who has read up to an id has missed none below it, on PostgreSQL too.
    """
    lock = schema.budget_lock
    connection.execute(update(lock).values(turn=lock.c.turn + 1))


def execute_many(
    connection: Connection, statement: Insert | Delete, rows: Sequence[dict[str, Any]]
) -> int:
    """Execute a statement once per row, whose values the driver must know: JSON is text.

    Returns:
        How many rows it changed.

    A quarter of the time of :meth:`Connection.execute`, which looks at each value of each row.
    """
    if rows:
        sql, names = _driver_sql(statement, connection.dialect, tuple(rows[0]))
        values = [tuple(row[name] for name in names) for row in rows] if names else list(rows)
        return connection.exec_driver_sql(sql, values).rowcount
    return 0


@lru_cache(maxsize=64)
def _driver_sql(
    statement: Insert | Delete, dialect: Dialect, names: tuple[str, ...]
) -> tuple[str, tuple[str, ...]]:
    """Return a statement's text, and the order of its values where the driver counts them."""
    compiled = statement.compile(dialect=dialect, column_keys=names)
    return str(compiled), tuple(compiled.positiontup or ())


def insert_rows(connection: Connection, rows: Iterable[LedgerRow]) -> None:
    """Append rows inside a transaction of the caller's; those of model calls after its turn."""
    values = [vars(row) | {"usd": str(row.usd), "details": json.dumps(row.details)} for row in rows]
    execute_many(connection, _INSERT, values)


class Ledger:
    """Rows are added, never changed or removed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, rows: Iterable[LedgerRow], *, mark: str = "") -> None:
        """Append rows, once; with a mark also if the whole call is repeated, see :func:`once`."""
        listed = list(rows)

        def append(connection: Connection) -> None:
            if any(row.unit == TOKEN for row in listed):
                take_turn(connection)
            insert_rows(connection, listed)

        once(self._engine, append, mark=mark)

    @retried
    def rows(
        self,
        *,
        experiment: str | None = None,
        jobs: Iterable[str] | None = None,
        newest_calls: int | None = None,
    ) -> list[LedgerRow]:
        """Return rows, oldest first.

        Args:
            experiment: Only those of this experiment.
            jobs: Only those that these runs caused.
            newest_calls: Only so many rows of model calls, the newest.
        """
        table = schema.ledger
        query = select(*(table.c[name] for name in _FIELDS)).order_by(table.c.id)
        if newest_calls is not None:
            newest = select(table.c.id).where(table.c.unit == TOKEN).order_by(table.c.id.desc())
            query = query.where(table.c.id.in_(newest.limit(newest_calls)))
        if experiment is not None:
            query = query.where(table.c.experiment == experiment)
        if jobs is not None:
            query = query.where(table.c.job.in_(list(jobs)))
        with transaction(self._engine) as connection:
            found = connection.execute(query).mappings()
            return [LedgerRow(**{**row, "usd": Decimal(row["usd"])}) for row in found]

    @retried
    def totals(self, *, since: str) -> list[dict[str, Any]]:
        """Return sums by unit, outcome and kind, added up by the database: no row is read.

        Args:
            since: Only rows from then on, ISO 8601 in UTC.

        Returns:
            unit, outcome, is_rehearsal, usd, quantity, calls, bytes_sent and bytes_received per
            group.
        """
        table = schema.ledger
        told = table.c.details
        outcome = func.coalesce(told["outcome"].as_string(), "sent").label("outcome")
        is_rehearsal = (func.substr(table.c.who, 1, len(REHEARSAL)) == REHEARSAL).label(
            "is_rehearsal"
        )
        amounts = {
            "usd": cast(table.c.usd, Float),
            "quantity": table.c.quantity,
            "calls": func.coalesce(told["calls"].as_integer(), 1),
            "bytes_sent": func.coalesce(told["bytes_sent"].as_integer(), 0),
            "bytes_received": func.coalesce(told["bytes_received"].as_integer(), 0),
        }
        sums = [func.sum(amount).label(name) for name, amount in amounts.items()]
        groups = (table.c.unit, outcome, is_rehearsal)
        query = select(*groups, *sums).where(table.c.at >= since).group_by(*groups)
        with transaction(self._engine) as connection:
            found = connection.execute(query).mappings()
            return [dict(row) for row in found]
