"""An experiment has one runner per user at a time: in a home, and on all machines of a database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from filelock import FileLock, Timeout

from workbench.core.errors import ConfigError, LeaseHeld, StoreError
from workbench.core.identity import text_id
from workbench.store.database import Store
from workbench.store.leases import Lease, hold
from workbench.store.owners import this_process

__all__ = ["hold_experiment", "refuse_lost"]

_LEASE_S = 60.0
"""After which another machine may go on where this one vanished."""


@contextmanager
def hold_experiment(store: Store, name: str) -> Iterator[Lease]:
    """Hold an experiment of the store's user until the block ends.

    Raises:
        ConfigError: If it is running already.
    """
    held = f"experiment {text_id(store.settings.user, name)[:32]}"
    with ExitStack() as stack:
        try:
            # the kernel of the machine lets go of it when this process dies
            stack.enter_context(FileLock(store.home / f"{name}.lock", timeout=0))
            holding = hold(store.engine, held, holder=this_process(), seconds=_LEASE_S)
            lease = stack.enter_context(holding)
        except (Timeout, LeaseHeld) as error:
            why = error if isinstance(error, LeaseHeld) else "wait for it, or stop it"
            raise ConfigError(
                f"experiment {name!r} is running already in {store.home}: {why}"
            ) from None
        yield lease


def refuse_lost(lease: Lease) -> None:
    """Raise where another runner may have taken the experiment over.

    Raises:
        StoreError: If the database was out of reach for too long.
    """
    if lease.lost.is_set():
        raise StoreError(
            "the database was out of reach for most of a minute, and another runner may have taken"
            " over; run the experiment again, what has finished is kept"
        )
