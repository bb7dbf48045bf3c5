"""What model calls were billed, by what a budget may limit."""

from __future__ import annotations

from decimal import Decimal

from sqlalchemy import Connection, bindparam, select

from workbench.core.money import ZERO
from workbench.store import schema
from workbench.store.budgets import Scope, scopes_of
from workbench.store.ledger import TOKEN

__all__ = ["Billed"]

_READ = ("id", "who", "job", "experiment", "phase", "at", "usd")
_SINCE = (
    select(*(schema.ledger.c[name] for name in _READ))
    .where(
        schema.ledger.c.id > bindparam("last_id"),
        schema.ledger.c.unit == TOKEN,
        schema.ledger.c.usd != "0",
    )
    .order_by(schema.ledger.c.id)
)


class Billed:
    """Dollars of the ledger's model calls by scope, kept up to date by the rows' rising ids."""

    def __init__(self) -> None:
        self.usd: dict[Scope, Decimal] = {}
        self._last_id = 0

    @property
    def is_new(self) -> bool:
        """Whether nothing was read yet."""
        return self._last_id == 0

    def catch_up(self, connection: Connection) -> None:
        """Add the rows that came since the last time."""
        for row in connection.execute(_SINCE, {"last_id": self._last_id}):
            usd = Decimal(row.usd)
            for scope in scopes_of(row, at=row.at):
                self.usd[scope] = self.usd.get(scope, ZERO) + usd
            self._last_id = row.id
