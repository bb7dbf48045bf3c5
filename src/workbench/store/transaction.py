"""One way to talk to the database, with one way to say that it cannot be reached or is full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from workbench.core.errors import StoreError

__all__ = ["transaction"]


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """Give a connection inside a transaction: all of the block is kept, or none of it.

    Raises:
        StoreError: If the database is full, locked for too long, or gone.
    """
    try:
        with engine.begin() as connection:
            yield connection
    except OperationalError as error:
        reason = " ".join(str(error.orig).split())  # PostgreSQL's reasons have several lines
        raise StoreError(
            f"{engine.url!r}: {reason}; mend that (free disk space, start the server) and run"
            " again, finished steps are kept"
        ) from error
