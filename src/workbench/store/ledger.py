"""The append-only ledger of everything that costs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, fields
from decimal import Decimal

from sqlalchemy import Connection, Engine, insert, select

from workbench.store import schema
from workbench.store.records import LedgerRow
from workbench.store.transaction import transaction

__all__ = ["Ledger", "insert_rows"]

_FIELDS = tuple(field.name for field in fields(LedgerRow))


def insert_rows(connection: Connection, rows: Iterable[LedgerRow]) -> None:
    """Append rows inside a transaction of the caller's."""
    values = [asdict(row) | {"usd": str(row.usd)} for row in rows]
    if values:
        connection.execute(insert(schema.ledger), values)


class Ledger:
    """Rows are added, never changed or removed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, rows: Iterable[LedgerRow]) -> None:
        """Append rows in one transaction."""
        with transaction(self._engine) as connection:
            insert_rows(connection, rows)

    def rows(
        self, *, experiment: str | None = None, jobs: Iterable[str] | None = None
    ) -> list[LedgerRow]:
        """Return rows, oldest first.

        Args:
            experiment: Only those of this experiment.
            jobs: Only those that these runs caused.
        """
        table = schema.ledger
        query = select(*(table.c[name] for name in _FIELDS)).order_by(table.c.id)
        if experiment is not None:
            query = query.where(table.c.experiment == experiment)
        if jobs is not None:
            query = query.where(table.c.job.in_(list(jobs)))
        with transaction(self._engine) as connection:
            found = connection.execute(query).mappings()
            return [LedgerRow(**{**row, "usd": Decimal(row["usd"])}) for row in found]
