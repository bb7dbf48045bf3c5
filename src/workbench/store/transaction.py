"""One way to talk to the database, with one way to say that it cannot be reached or is full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, Table, delete, false
from sqlalchemy.exc import DatabaseError, IntegrityError

from workbench.core.errors import StoreError

__all__ = ["transaction", "turn"]


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """Give a connection inside a transaction: all of the block is kept, or none of it.

    Raises:
        StoreError: If the database is full, locked for too long, damaged, or gone.
    """
    try:
        with engine.begin() as connection:
            yield connection
    except IntegrityError:  # of the rows, not of the database: the caller knows what it means
        raise
    except DatabaseError as error:
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
