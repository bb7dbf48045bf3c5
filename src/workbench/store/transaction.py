"""One way to talk to the database, with one way to say that it cannot be reached or is full.

A server that is started again is waited for. What had not begun simply begins later; what a fault
of the connection broke may be done again by :func:`retried` where twice is as good as once, and by
:func:`once` everywhere else. Only such faults are retried: no other error is.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import wraps
from typing import Final, ParamSpec, TypeVar, cast

from sqlalchemy import Connection, Engine, Table, delete, false
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DatabaseError, DBAPIError, IntegrityError, InterfaceError

from workbench.core.errors import StoreError
from workbench.core.identity import new_id
from workbench.store import schema

__all__ = ["KNOWN", "PATIENCE", "forget_old", "once", "retried", "transaction", "turn"]

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE: Final = "workbench_patience_s"
"""Execution option of an engine: for how long a server that went away is waited for."""
KNOWN: Final = "workbench_known"
"""The same: whether somebody has reached that server before."""
_PATIENCE_S = 60.0
_LOOK_S = 0.25
_COMMIT = "commit "
"""Before the name of a row that says that a transaction was committed; beside leases."""
_KEPT_S = 24 * 3600.0
_AT_ONCE = 16
"""Rows of finished transactions that are removed together."""
_finished: dict[str, deque[str]] = {}
"""Database → the names of such rows that nobody asks for any more."""


@contextmanager
def transaction(engine: Engine, *, patience_s: float | None = None) -> Iterator[Connection]:
    """Give a connection inside a transaction: all of the block is kept, or none of it.

    Args:
        engine: Of the store.
        patience_s: How long to wait for a server that this process has reached before; a minute,
            or as the engine says, if not given.

    Raises:
        StoreError: If the database is full, locked for too long, damaged, or gone. If the
            connection broke at the end of the block, nobody knows what was kept.
    """
    try:
        with ExitStack() as stack:
            yield _begin(engine, stack, patience_s)
    except IntegrityError:  # of the rows, not of the database: the caller knows what it means
        raise
    except (DatabaseError, InterfaceError) as error:
        reason = " ".join(str(error.orig).split())  # PostgreSQL's reasons have several lines
        raise StoreError(
            f"{engine.url!r}: {reason}; mend that (free disk space, start the server, restore a"
            " damaged file) and run again, finished steps are kept"
        ) from error


@contextmanager
def turn(engine: Engine, table: Table) -> Iterator[Connection]:
    """Give a transaction in which nobody else writes to a table: what was read stays true."""
    with transaction(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql(f"LOCK TABLE {table.name} IN SHARE ROW EXCLUSIVE MODE")
        else:  # a write that changes nothing takes SQLite's write lock
            connection.execute(delete(table).where(false()))
        yield connection


def retried(function: Callable[P, T]) -> Callable[P, T]:
    """Return the function, called again when a fault of the connection broke its transaction.

    For reading, and for what may as well be done twice: of the last try nobody may know whether
    it was kept.
    """

    @wraps(function)
    def whole(*args: P.args, **kwargs: P.kwargs) -> T:
        give_up_at = 0.0
        while True:
            try:
                return function(*args, **kwargs)
            except StoreError as error:
                give_up_at = give_up_at or time.monotonic() + _PATIENCE_S
                if not _is_broken(error) or time.monotonic() >= give_up_at:
                    raise
            time.sleep(_LOOK_S)

    return whole


def once(
    engine: Engine,
    work: Callable[[Connection], T],
    *,
    mark: str = "",
    again: Callable[[], object] = bool,
) -> T:
    """Return what the work gives in a transaction that is kept once, whatever breaks meanwhile.

    A row with a name of its own is written first in the same transaction: whoever tries it again
    waits at that row for a try that may still be on its way, and finds out whether it was kept.

    Args:
        engine: Of the store.
        work: May be called several times; what was kept is what its last call did, or nothing.
        mark: Name of the work, the same when a whole call is repeated because nobody knew how the
            last one ended: then nothing is done, and None returned, if it was kept after all.
        again: Called before another try.

    Raises:
        StoreError: As :func:`transaction`.
    """
    name = f"{_COMMIT}{mark or new_id('commit')}"
    given: T | None = None
    tries = 0

    @retried
    def tried() -> None:
        nonlocal given, tries
        if tries:
            again()
        tries += 1
        with transaction(engine) as connection:
            if not _may_break(engine) or _is_new(connection, name):
                given = work(connection)

    tried()
    if _may_break(engine):
        _finished.setdefault(str(engine.url), deque()).append(name)
    return cast("T", given)


def forget_old(connection: Connection) -> None:
    """Remove leases, and what :func:`once` wrote, of processes that ended or gave up long ago."""
    until = schema.leases.c.until  # 0 of what has no end
    is_old = (until > 0) & (until < time.time() - _KEPT_S)
    connection.execute(delete(schema.leases).where(is_old))


def _may_break(engine: Engine) -> bool:
    """Return whether a connection can break while the database goes on."""
    return engine.dialect.name != "sqlite"


def _begin(engine: Engine, stack: ExitStack, patience_s: float | None) -> Connection:
    """Begin a transaction, when a server that this process has reached before answers again."""
    if patience_s is None:
        patience_s = engine.get_execution_options().get(PATIENCE, _PATIENCE_S)
    give_up_at = time.monotonic() + patience_s
    while True:
        try:
            return stack.enter_context(engine.begin())
        except DBAPIError:
            told = engine.get_execution_options()
            # else the URL may be wrong
            is_known = engine.dialect.server_version_info is not None or told.get(KNOWN)
            if not _may_break(engine) or not is_known or time.monotonic() >= give_up_at:
                raise
        time.sleep(_LOOK_S)


def _is_broken(error: StoreError) -> bool:
    """Return whether the connection is at fault, so that another one may do better."""
    cause = error.__cause__
    return isinstance(cause, DBAPIError) and cause.connection_invalidated


def _is_new(connection: Connection, name: str) -> bool:
    """Take note of a transaction inside it; return whether none of that name was kept."""
    table = schema.leases
    row = {"name": name, "holder": "", "process": "", "until": time.time()}
    note = insert(table).values(row).on_conflict_do_nothing().returning(table.c.name)
    is_new = connection.execute(note).first() is not None
    finished = _finished.get(str(connection.engine.url), deque())
    if is_new and len(finished) >= _AT_ONCE:
        names: list[str] = []
        with suppress(IndexError):  # other threads take some too
            names += (finished.popleft() for _ in range(_AT_ONCE))
        connection.execute(delete(table).where(table.c.name.in_(names)))
    return is_new
