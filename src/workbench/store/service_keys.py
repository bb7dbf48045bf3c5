"""Keys of the sanitizer's service, by their hash, and what each used up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from decimal import Decimal

from sqlalchemy import Engine, insert, select, update

from workbench.core.errors import DataError
from workbench.core.money import ZERO
from workbench.store import schema
from workbench.store.isolation import everybody
from workbench.store.records import now
from workbench.store.transaction import retried, transaction

__all__ = ["Key", "Usage", "add_key", "all_keys", "revoke_key"]


@dataclass(frozen=True, kw_only=True)
class Key:
    """Who calls, and how much it may."""

    id: str
    owner: str
    """Whose ledger rows it makes."""
    name: str = ""
    digest: str = ""
    """Hex sha256 of the key itself, which nobody keeps but its holder."""
    created_at: str = ""
    revoked_at: str = ""
    """Empty while it opens the service."""
    quota_credits_per_day: float | None = None
    requests_per_minute: int | None = None


_LATE = 1000
"""Ids below the newest among which one may still become visible."""
_FIELDS = tuple(one.name for one in fields(Key))


def add_key(engine: Engine, key: Key) -> None:
    """Add a key."""
    with transaction(everybody(engine)) as connection:
        connection.execute(insert(schema.service_keys), vars(key))


@retried
def all_keys(engine: Engine) -> list[Key]:
    """Return every key of everybody, also revoked ones, oldest first."""
    table = schema.service_keys
    query = select(*(table.c[name] for name in _FIELDS)).order_by(table.c.created_at, table.c.id)
    with transaction(everybody(engine)) as connection:
        return [Key(**row) for row in connection.execute(query).mappings()]


def revoke_key(engine: Engine, key_id: str) -> None:
    """Let a key open nothing any more.

    Raises:
        DataError: If there is none of that id.
    """
    table = schema.service_keys
    named = table.c.id == key_id
    change = update(table).where(named, table.c.revoked_at == "").values(revoked_at=now())
    with transaction(everybody(engine)) as connection:
        connection.execute(change)
        if not connection.execute(select(table.c.id).where(named)).first():
            raise DataError(f"no key {key_id!r:.60}; see `workbench serve keys list`")


class Usage:
    """Dollars of the day's serving by key, kept up to date by the ledger's rising ids.

    Rows of several processes may become visible out of order: the last ones are read again.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = everybody(engine)
        self._day = ""
        self._last_id = 0
        self._usd: dict[str, Decimal] = {}
        self._seen: set[int] = set()

    def read(self, day: str) -> Mapping[str, Decimal]:
        """Return what every key used since the start of a day, ISO 8601 in UTC."""
        if day != self._day:
            self._day, self._last_id, self._usd, self._seen = day, 0, {}, set()
        table = schema.ledger
        query = select(table.c.id, table.c.job, table.c.usd).where(
            table.c.phase == "serving", table.c.at >= day, table.c.id > self._last_id - _LATE
        )
        with transaction(self._engine) as connection:
            for row in connection.execute(query.order_by(table.c.id)):
                if row.id not in self._seen:
                    self._usd[row.job] = self._usd.get(row.job, ZERO) + Decimal(row.usd)
                    self._seen.add(row.id)
                self._last_id = row.id
        self._seen = {one for one in self._seen if one > self._last_id - _LATE}
        return dict(self._usd)
