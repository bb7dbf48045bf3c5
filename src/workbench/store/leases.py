"""Who alone may do a piece of work at present, of all processes on all machines.

A lease ends by itself at a moment of the database's clock unless its holder renews it. A holder
that cannot renew it in time is told a margin before that moment, so that it has stopped when
another may begin. What it writes all the same is kept out by :meth:`Lease.fence`, whatever clocks
say.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import Connection, Engine, Float, delete, func, literal_column, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.elements import ColumnElement

from workbench.core.errors import LeaseHeld, StoreError
from workbench.core.identity import new_id
from workbench.store import schema
from workbench.store.owners import Owners, this_process
from workbench.store.records import now
from workbench.store.transaction import retried, transaction

__all__ = ["Lease", "database_seconds", "hold", "is_held"]

_TABLE = schema.leases
_MARGIN = 0.2
"""Part of a lease's time that its holder has to stop, and clocks to run apart."""
_LOOK_S = 0.25
"""How often whoever waits for a lease asks for it."""


def database_seconds(engine: Engine) -> ColumnElement[float]:
    """Return the expression of seconds since 1970 by the clock of the database, as they are now."""
    if engine.dialect.name == "sqlite":
        return literal_column("(julianday('now') - 2440587.5) * 86400.0", Float)
    return func.extract("epoch", func.clock_timestamp()).cast(Float)


class Lease:
    """A lease that this process has; made by :func:`hold`."""

    def __init__(self, engine: Engine, name: str, *, token: str, seconds: float) -> None:
        self.name = name
        self.token = token
        """Tells this holding of the lease from every other, see :func:`is_held`."""
        self.lost = threading.Event()
        """Set once another may have it, or soon: stop, and write nothing more."""
        self._engine = engine
        self._seconds = seconds
        self._ended = threading.Event()
        self._deadline = 0.0

    def fence(self, connection: Connection) -> None:
        """Let nobody take the lease until the transaction of this connection has ended.

        Raises:
            LeaseHeld: If it is another's by now; nothing of the transaction may be kept.
        """
        own = (_TABLE.c.name == self.name) & (_TABLE.c.holder == self.token)
        if not connection.execute(update(_TABLE).where(own).values(holder=self.token)).rowcount:
            self.lost.set()
            raise LeaseHeld(f"the lease {self.name!r} went to another; what it did is not written")

    @retried
    def _take(self) -> bool:
        """Take the lease if it is free, has run out, or is that of a process that died here."""
        asked_at = time.monotonic()
        seconds = database_seconds(self._engine)
        # each dialect has an insert of its own, with the same words
        insert = (sqlite if self._engine.dialect.name == "sqlite" else postgresql).insert
        mine = {"holder": self.token, "process": this_process(), "until": seconds + self._seconds}
        take = insert(_TABLE).values(name=self.name, **mine)
        take = take.on_conflict_do_update(
            index_elements=["name"],
            set_=mine,
            where=(_TABLE.c.until <= seconds) | (_TABLE.c.holder == self.token),
        ).returning(_TABLE.c.name)
        with transaction(self._engine) as connection:
            taken = connection.execute(take).first() is not None
            if not taken:
                other = connection.execute(select(_TABLE).where(_TABLE.c.name == self.name)).first()
                if other and _is_dead(other.process):
                    same = (_TABLE.c.name == self.name) & (_TABLE.c.holder == other.holder)
                    taken = connection.execute(update(_TABLE).where(same).values(mine)).rowcount > 0
        if taken:
            self._deadline = asked_at + self._seconds * (1 - _MARGIN)
        return taken

    def _renew(self) -> None:
        while not self._ended.wait(self._seconds / 3) and not self.lost.is_set():
            asked_at = time.monotonic()
            own = (_TABLE.c.name == self.name) & (_TABLE.c.holder == self.token)
            until = database_seconds(self._engine) + self._seconds
            with suppress(StoreError), transaction(self._engine) as connection:
                if connection.execute(update(_TABLE).where(own).values(until=until)).rowcount:
                    self._deadline = asked_at + self._seconds * (1 - _MARGIN)
                else:
                    self.lost.set()

    def _watch(self) -> None:
        """Tell the loss also while a renewal hangs, e.g. because the network was cut."""
        while (left_s := self._deadline - time.monotonic()) > 0:
            if self._ended.wait(left_s):
                return
        self.lost.set()

    def _release(self) -> None:
        self._ended.set()
        if self.lost.is_set():
            return  # nor may this hang on a network that was cut
        own = (_TABLE.c.name == self.name) & (_TABLE.c.holder == self.token)
        # else it runs out
        with suppress(StoreError), transaction(self._engine, patience_s=0) as connection:
            connection.execute(delete(_TABLE).where(own))


@contextmanager
def hold(
    engine: Engine, name: str, *, holder: str, seconds: float = 15.0, patience_s: float = 0.0
) -> Iterator[Lease]:
    """Give a lease that is renewed until the block ends.

    Args:
        engine: Of the store.
        name: What it is for, <= 200 characters.
        holder: Who wants it, in words for whoever is refused.
        seconds: After which it ends where it is not renewed, and another may take it.
        patience_s: To wait for another to let it go.

    Raises:
        LeaseHeld: If another has it and keeps it.
        StoreError: If the database cannot be reached.
    """
    lease = Lease(engine, name, token=f"{holder[:150]} {new_id('lease')}", seconds=seconds)
    give_up_at = time.monotonic() + patience_s
    while not lease._take():  # noqa: SLF001
        if time.monotonic() >= give_up_at:
            raise LeaseHeld(f"{name!r} is held by {_holder(engine, name)}; wait for it, or stop it")
        time.sleep(_LOOK_S)
    threads = [threading.Thread(target=one, daemon=True) for one in (lease._renew, lease._watch)]  # noqa: SLF001
    for thread in threads:
        thread.start()
    try:
        yield lease
    finally:
        lease._release()  # noqa: SLF001


@retried
def is_held(engine: Engine, name: str, token: str) -> bool:
    """Return whether a lease is still that holding of it, and its holder not known to be dead."""
    query = select(_TABLE.c.process).where(
        _TABLE.c.name == name, _TABLE.c.holder == token, _TABLE.c.until > database_seconds(engine)
    )
    with transaction(engine) as connection:
        process = connection.execute(query).scalar()
    return process is not None and not _is_dead(process)


@retried
def _holder(engine: Engine, name: str) -> str:
    with transaction(engine) as connection:
        found = connection.execute(select(_TABLE.c.holder).where(_TABLE.c.name == name)).scalar()
    return repr((found or "another").rpartition(" ")[0] or "another")


def _is_dead(process: str) -> bool:
    """Return whether a process of this machine has ended; of others nothing is known."""
    return not Owners(time.time).is_alive(process, at=now())
