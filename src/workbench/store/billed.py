"""What model calls were billed, by what a budget may limit, and what was charged as lost."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from sqlalchemy import Connection, bindparam, select

from workbench.core.money import ZERO
from workbench.store import schema
from workbench.store.budgets import Scope, scopes_of
from workbench.store.ledger import TOKEN
from workbench.store.records import LedgerRow, now

if TYPE_CHECKING:
    from workbench.store.calls import Flight

__all__ = ["Billed", "found_rows", "lost_row"]

_LOST = "sent, its answer was lost with its process; charged at its worst case"
_FOUND = "its process lived and ended the call: the charge for a lost one is taken back"

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

_LOST_ROWS = (
    select(*(schema.ledger.c[one.name] for one in fields(LedgerRow)))
    .where(
        schema.ledger.c.unit == TOKEN,
        schema.ledger.c.estimated,
        schema.ledger.c.details["flight"].as_string().in_(bindparam("flights", expanding=True)),
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

    def forget(self) -> None:
        """Read everything anew the next time."""
        self.usd = {}
        self._last_id = 0

    def catch_up(self, connection: Connection) -> None:
        """Add the rows that came since the last time."""
        for row in connection.execute(_SINCE, {"last_id": self._last_id}):
            usd = Decimal(row.usd)
            for scope in scopes_of(row, at=row.at):
                self.usd[scope] = self.usd.get(scope, ZERO) + usd
            self._last_id = row.id


def found_rows(connection: Connection, flights: Collection[str]) -> list[LedgerRow]:
    """Return rows that take back what was charged for flights that then ended after all."""
    charges: dict[str, list[LedgerRow]] = {}
    for row in connection.execute(_LOST_ROWS, {"flights": list(flights)}).mappings():
        charge = LedgerRow(**{**row, "usd": Decimal(row["usd"])})
        charges.setdefault(charge.details["flight"], []).append(charge)
    return [
        replace(
            first,
            at=now(),
            usd=ZERO - first.usd,
            note=_FOUND,
            details=first.details | {"calls": -1},
        )
        for first, *taken_back in charges.values()
        if not taken_back
    ]


def lost_row(flight: Flight) -> LedgerRow:
    """Return the charge for a flight whose process died."""
    return LedgerRow(
        who=flight.who,
        job=flight.job,
        experiment=flight.experiment,
        phase=flight.phase,
        resource=flight.model,
        quantity=0,
        unit=TOKEN,
        usd=flight.worst_usd,
        price_version="worst case",
        estimated=True,
        note=_LOST,
        work=flight.work,
        details={"calls": 1, "provider": flight.provider, "outcome": "lost", "flight": flight.id},
    )
