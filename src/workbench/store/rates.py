"""What of a rate limit is left for all processes on a store, and until when nobody may send."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Engine, bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite

from workbench.store import schema
from workbench.store.leases import database_seconds
from workbench.store.transaction import transaction

__all__ = ["Ask", "Drawn", "Row", "StoreRates", "draw", "settle"]

_TABLE = schema.rate_buckets


class Ask(NamedTuple):
    """What one process wants of one bucket; ``need`` and ``back`` may both be 0, to look."""

    name: str
    """<= 200 characters."""
    per_minute: float
    """What flows in; 0: no limit is known, nothing is counted."""
    size: float
    """Most that the bucket holds; a larger need empties a full one."""
    need: float
    ahead: float = 0.0
    """Taken on top where it is there."""
    back: float = 0.0
    """Was drawn before and not used."""
    most: float = float("inf")
    """The process knows that no more than this is left."""


class Row(NamedTuple):
    """A bucket as it is kept; seconds since 1970 by the clock of who keeps it."""

    level: float
    """Below 0 where permits were given for later."""
    at: float
    rests_until: float


class Drawn(NamedTuple):
    """What came of it."""

    taken: tuple[float, ...]
    """Per bucket; 0 each where the wait would be too long."""
    wait_s: float
    """After which what was taken may be used."""
    rests_s: float
    """For how long nobody may send."""


class StoreRates:
    """Buckets in the database, for an event loop.

    Args:
        engine: Of the store.
        service: Whose rates: part of the buckets' names.
    """

    def __init__(self, engine: Engine, *, service: str) -> None:
        self._engine = engine
        self.service = service

    async def draw(self, asks: Sequence[Ask], *, rest_s: float, patience_s: float) -> Drawn:
        """Take permits, see :func:`draw`."""
        return await asyncio.to_thread(
            draw, self._engine, asks, rest_s=rest_s, patience_s=patience_s
        )


def draw(engine: Engine, asks: Sequence[Ask], *, rest_s: float, patience_s: float) -> Drawn:
    """Take permits from buckets in one transaction; who has to wait is served in turn.

    Args:
        engine: Of the store.
        asks: Of one key and model; rests are kept with the first bucket.
        rest_s: Have everybody rest from now on for so long; 0 for no word about it.
        patience_s: Take nothing where the wait would be longer.

    Raises:
        StoreError: If the database cannot be reached; permits may be lost, none is given twice.
    """
    names = sorted(ask.name for ask in asks)
    query = select(_TABLE).where(_TABLE.c.name.in_(names)).order_by(_TABLE.c.name)
    clock = select(database_seconds(engine))
    with transaction(engine) as connection:
        if rest_s or any(ask.per_minute for ask in asks):
            # the insert first: SQLite then has its one lock for writers, PostgreSQL the rows'
            insert = (sqlite if engine.dialect.name == "sqlite" else postgresql).insert(_TABLE)
            empty = [{"name": name, "level": 0.0, "at": 0.0, "rests_until": 0.0} for name in names]
            connection.execute(insert.on_conflict_do_nothing(), empty)
            query = query.with_for_update()
        found = {row.name: Row(*row[1:]) for row in connection.execute(query)}
        now = float(connection.execute(clock).scalar_one())  # once the rows are ours
        rows = [found.get(ask.name, Row(0, 0, 0)) for ask in asks]
        rows, drawn = settle(asks, rows, now=now, rest_s=rest_s, patience_s=patience_s)
        changed = [
            {"bucket": ask.name, **row._asdict()}
            for ask, row in zip(asks, rows, strict=True)
            if row != found.get(ask.name, row)
        ]
        if changed:
            connection.execute(_UPDATE, changed)
    return drawn


_UPDATE = (
    update(_TABLE)
    .where(_TABLE.c.name == bindparam("bucket"))
    .values({name: bindparam(name) for name in Row._fields})
)


def settle(
    asks: Sequence[Ask], rows: Sequence[Row], *, now: float, rest_s: float, patience_s: float
) -> tuple[list[Row], Drawn]:
    """Return the buckets after a draw, and what was drawn; the arithmetic of :func:`draw`."""
    levels, waits = [], [0.0]
    for ask, row in zip(asks, rows, strict=True):
        refilled = row.level + max(0.0, now - row.at) * ask.per_minute / 60
        level = min(refilled + ask.back, ask.size, ask.most)
        levels.append(level if ask.per_minute else row.level)
        if ask.per_minute:
            waits.append((min(ask.need, ask.size) - level) * 60 / ask.per_minute)
    wait_s = max(waits)
    taken = tuple(
        0.0
        if wait_s > patience_s or not ask.per_minute
        else (need := min(ask.need, ask.size)) + max(0.0, min(ask.ahead, level - need))
        for ask, level in zip(asks, levels, strict=True)
    )
    until = max(rows[0].rests_until, now + rest_s if rest_s else 0.0)
    settled = [
        Row(level - part, now if ask.per_minute else row.at, row.rests_until)
        for ask, row, level, part in zip(asks, rows, levels, taken, strict=True)
    ]
    settled[0] = settled[0]._replace(rests_until=until)
    return settled, Drawn(taken, wait_s, max(0.0, until - now))
