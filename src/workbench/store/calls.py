"""Model calls in the database: what is in flight, what was answered, what was billed.

A row of ``flights`` is at once the reservation of a call's worst case, the lease that keeps other
processes from buying the same answer, and the note made before sending that a kill leaves behind.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

from sqlalchemy import Connection, Engine, bindparam, delete, insert, select, update

from workbench.store import schema
from workbench.store.billed import Billed, found_rows, lost_row
from workbench.store.budgets import Budgets, Judge
from workbench.store.isolation import everybody
from workbench.store.ledger import execute_many, insert_rows, take_turn
from workbench.store.owners import Owners
from workbench.store.records import LedgerRow, Phase, now
from workbench.store.responses import (
    Responses,
    StoredAnswer,
    fresh_keys,
    keep,
    own_answers,
    remove_expired,
)
from workbench.store.transaction import forget_old, once, retried, transaction

__all__ = ["Batch", "BatchState", "Calls", "Claim", "Flight", "Settlement", "StoredAnswer"]

BatchState = Literal["submitting", "open", "collected"]

_DAY_S = 24 * 3600
_KEPT_S = 7 * _DAY_S
"""How long an expired response may still serve the work that bought it."""
_BATCH = "batch:"
"""Such an owner outlives every process, until its batch is collected or too old."""
_BATCH_S = 29 * _DAY_S
"""Services drop results then; what nobody has collected is charged as lost."""


@dataclass(frozen=True, kw_only=True)
class Flight:
    """A call that may be sent, from its reservation to its settlement."""

    id: str
    key: str
    """Under which its answer will be kept."""
    work: str
    """Id of the piece of work, the same when it is resumed."""
    provider: str
    model: str
    who: str
    job: str
    experiment: str
    phase: Phase
    worst_usd: Decimal
    owner: str
    """The process, see :func:`this_process`, or ``batch:<id>``."""
    at: str
    is_shared: bool = True
    """Whether the answer may serve others; if not, the key is never ``taken``."""

    @property
    def is_batch(self) -> bool:
        """Whether it is what a message batch may cost."""
        return self.owner.startswith(_BATCH)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What became of the wish to send."""

    state: Literal["granted", "waiting", "taken", "denied"]
    """``waiting``: a budget is short only because of flights in progress · ``taken``: a live flight
    has this key, or its answer is there · ``denied``: what is billed leaves too little, whatever
    the flights come to."""
    reason: str = ""
    """Of ``denied`` and ``waiting``: one line that names the budget."""


@dataclass(frozen=True, kw_only=True)
class Settlement:
    """The end of a flight: all of it is kept, or nothing."""

    flight: str
    rows: tuple[LedgerRow, ...]
    answer: StoredAnswer | None
    """None: nothing to keep."""
    is_once: bool = False
    """Enter neither rows nor answer where one of its key and work is kept already."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Many requests handed to a service at once, answered within a day."""

    id: str
    work: str
    job: str
    experiment: str
    phase: Phase
    who: str
    key_hash: str
    """First 12 hex digits of the API key's sha256: only that key can collect."""
    owner: str = ""
    """The process that submits it, see :func:`this_process`."""
    requests: dict[str, Any]
    """Custom id → what its answer needs."""
    remote_id: str = ""
    """As the service names it; empty while submitting."""
    state: BatchState = "submitting"
    created_at: str = field(default_factory=now)


class Calls:
    """Flights, responses, batches and estimates; safe to share among threads.

    Args:
        engine: Of the store.
        clock: Seconds since 1970.
    """

    def __init__(self, engine: Engine, *, clock: Callable[[], float] = time.time) -> None:
        self._own = engine
        self._engine = everybody(engine)  # budgets count what all spend
        self._clock = clock
        self._owners = Owners(clock)
        self._billed = Billed()
        self._turn = threading.Lock()
        self._responses = Responses(engine)

    def seeing(self, engine: Engine) -> Calls:
        """Return the same calls, and what was read of them, as another user's engine shows them."""
        other = copy(self)
        other._own = engine  # noqa: SLF001 - our own
        return other

    def commit(
        self,
        *,
        budgets: Budgets,
        claims: Sequence[Flight] = (),
        settlements: Sequence[Settlement] = (),
        rows: Sequence[LedgerRow] = (),
        mark: str = "",
    ) -> list[Claim]:
        """Return what became of each claim; everything happens in one transaction, once.

        Args:
            budgets: Limits for the claims.
            claims: Judged in order; the granted ones are in flight afterwards.
            settlements: Ends of flights, also of those that this call grants. One whose flight was
                given up for lost still enters its rows: that money was spent too.
            rows: More ledger rows.
            mark: The same when a whole call without claims is repeated, see
                :func:`~workbench.store.transaction.once`.

        Raises:
            StoreError: If the database is full or gone; nothing of it was written, but if its
                connection broke nobody knows.
        """

        def write(connection: Connection) -> list[Claim]:
            take_turn(connection)
            verdicts = self._judge(connection, claims, budgets) if claims else []
            _settle(connection, settlements, rows, at=self._clock())
            return verdicts

        forget = self._billed.forget  # it may have seen rows that then never were
        with self._turn:
            try:
                if claims and self._billed.is_new:
                    self._read_billed()
                return once(self._engine, write, mark=mark, again=forget) or []
            except BaseException:
                forget()
                raise

    def read(self, key: str, *, work: str = "") -> StoredAnswer | None:
        """Return the answer kept under a key, expired or not: the work's own, else the freshest.

        Raises:
            StoreError: If the database cannot be read.
        """
        return self._responses.read(key, work=work)

    async def find(self, key: str, *, work: str = "") -> StoredAnswer | None:
        """Return the same as :meth:`read` without holding up the event loop."""
        if self._engine.dialect.name == "sqlite":  # faster than a thread
            return self._responses.read(key, work=work)
        return await asyncio.to_thread(self._responses.read, key, work=work)

    @retried
    def touch(self, owner: str) -> None:
        """Show other hosts, which cannot see a process, that the owner of flights lives."""
        at = datetime.fromtimestamp(self._clock(), UTC).isoformat()
        with transaction(self._engine) as connection:
            connection.execute(_TOUCH, {"whose": owner, "moment": at})

    def is_alive(self, owner: str, *, at: str) -> bool:
        """Return whether what a process began at a moment (ISO 8601) can still be ended by it."""
        return self._owners.is_alive(owner, at=at)

    @retried
    def recover(self) -> list[Flight]:
        """Return the flights of dead processes, now charged as lost at their worst case.

        Also removes the responses that expired more than a week ago.
        """
        with transaction(self._engine) as connection:
            take_turn(connection)
            _, lost = self._reap(connection)
            remove_expired(connection, before=self._clock() - _KEPT_S)
            forget_old(connection)
        return lost

    def add_batch(self, batch: Batch) -> bool:
        """Note a batch before it is submitted, unless an open one of its work asks for the same.

        Returns:
            Whether it was noted.
        """

        def note(connection: Connection) -> bool:
            take_turn(connection)
            is_new = all(
                batch.requests.keys().isdisjoint(one.requests)
                for one in self._open_batches(connection, batch.work)
            )
            if is_new:
                connection.execute(insert(schema.batches), vars(batch))
            return is_new

        return once(self._engine, note)

    @retried
    def update_batch(self, batch: str, *, state: BatchState, remote_id: str | None = None) -> None:
        """Set the state of a batch, and the service's id where it is known now."""
        table = schema.batches
        values = {"state": state} | ({} if remote_id is None else {"remote_id": remote_id})
        with transaction(self._engine) as connection:
            connection.execute(update(table).where(table.c.id == batch).values(**values))

    @retried
    def open_batches(self, work: str) -> list[Batch]:
        """Return the batches of a piece of work that can still be collected, oldest first."""
        with transaction(self._own) as connection:
            return self._open_batches(connection, work)

    @retried
    def remote_batches(self) -> set[str]:
        """Return the service's ids of all batches ever submitted from this store."""
        column = schema.batches.c.remote_id
        with transaction(self._engine) as connection:
            return set(connection.execute(select(column).where(column != "")).scalars())

    def add_estimate(
        self, figures: Mapping[str, Any], *, work: str, job: str, experiment: str, phase: Phase
    ) -> None:
        """Keep what a piece of work is expected to cost, to be compared with the truth."""
        whose = {"work": work, "job": job, "experiment": experiment, "phase": phase}
        row = {**whose, "at": now(), "figures": dict(figures)}
        once(self._own, lambda connection: connection.execute(insert(schema.estimates), row))

    @retried
    def estimates(self, experiment: str) -> list[dict[str, Any]]:
        """Return work, job, experiment, phase, at and figures of each estimate, oldest first."""
        table = schema.estimates
        columns = [column for column in table.c if column.name not in {"id", "who"}]
        query = select(*columns).where(table.c.experiment == experiment).order_by(table.c.id)
        with transaction(self._own) as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    @retried
    def _read_billed(self) -> None:
        """Read the ledger for the first time, which is long, and not in others' way."""
        self._billed.forget()
        with transaction(self._engine) as connection:
            self._billed.catch_up(connection)

    def _judge(
        self, connection: Connection, claims: Sequence[Flight], budgets: Budgets
    ) -> list[Claim]:
        flights, _ = self._reap(connection)
        self._billed.catch_up(connection)
        at = datetime.fromtimestamp(self._clock(), UTC).isoformat()
        judge = Judge(budgets, self._billed.usd, at=at)
        for flight in flights:
            judge.hold(flight)
        taken = {flight.key for flight in flights if flight.is_shared}
        # another process may have settled since the caller looked for an answer
        shared = [flight.key for flight in claims if flight.is_shared]
        taken |= fresh_keys(connection, shared, at=self._clock()) if shared else set()
        verdicts, granted = [], []
        for flight in claims:
            if flight.is_shared and flight.key in taken:
                verdicts.append(Claim(state="taken"))
                continue
            state, reason = judge.verdict(flight)
            verdicts.append(Claim(state=state, reason=reason))
            if state == "granted":
                judge.hold(flight)
                granted.append(vars(flight) | {"worst_usd": str(flight.worst_usd)})
                if flight.is_shared:
                    taken.add(flight.key)
        execute_many(connection, _INSERT_FLIGHTS, granted)
        return verdicts

    def _reap(self, connection: Connection) -> tuple[list[Flight], list[Flight]]:
        """Return the flights that fly, and those of the dead, which are charged and removed."""
        flights = [
            Flight(**{**row, "worst_usd": Decimal(row["worst_usd"])})
            for row in connection.execute(_SELECT_FLIGHTS).mappings()
        ]
        open_batches: set[str] = set()
        if any(one.is_batch for one in flights):
            oldest = {"oldest": self._oldest()}
            open_batches.update(connection.execute(_OPEN_BATCHES, oldest).scalars())
        flying = [one for one in flights if self._is_flying(one, open_batches)]
        if len(flying) == len(flights):
            return flying, []
        alive = {one.id for one in flying}
        lost = [one for one in flights if one.id not in alive]
        insert_rows(connection, map(lost_row, lost))
        execute_many(connection, _DELETE_FLIGHT, [{"flight": one.id} for one in lost])
        return flying, lost

    def _open_batches(self, connection: Connection, work: str) -> list[Batch]:
        values = {"oldest": self._oldest(), "whose": work}
        return [Batch(**row) for row in connection.execute(_BATCHES_OF, values).mappings()]

    def _oldest(self) -> str:
        return datetime.fromtimestamp(self._clock() - _BATCH_S, UTC).isoformat()

    def _is_flying(self, flight: Flight, open_batches: Collection[str]) -> bool:
        if flight.is_batch:
            return flight.owner.removeprefix(_BATCH) in open_batches
        return self._owners.is_alive(flight.owner, at=flight.at)


_SELECT_FLIGHTS = select(*(schema.flights.c[one.name] for one in fields(Flight)))
_INSERT_FLIGHTS = insert(schema.flights)
_DELETE_FLIGHT = delete(schema.flights).where(schema.flights.c.id == bindparam("flight"))
_TOUCH = (
    update(schema.flights)
    .where(schema.flights.c.owner == bindparam("whose"))
    .values(at=bindparam("moment"))
)
_OPEN_BATCHES = select(schema.batches.c.id).where(
    schema.batches.c.state != "collected", schema.batches.c.created_at > bindparam("oldest")
)
_BATCHES_OF = (
    _OPEN_BATCHES.with_only_columns(schema.batches)
    .where(schema.batches.c.work == bindparam("whose"))
    .order_by(schema.batches.c.created_at, schema.batches.c.id)
)


def _settle(
    connection: Connection,
    settlements: Sequence[Settlement],
    rows: Sequence[LedgerRow],
    *,
    at: float,
) -> None:
    ended = {one.flight for one in settlements if one.flight}
    removed = execute_many(connection, _DELETE_FLIGHT, [{"flight": one} for one in ended])
    found = found_rows(connection, ended) if removed < len(ended) else []
    new = _without_known(connection, settlements, at=at)
    insert_rows(connection, [*found, *(row for one in new for row in one.rows), *rows])
    keep(connection, (one.answer for one in new if one.answer))


def _without_known(
    connection: Connection, settlements: Sequence[Settlement], *, at: float
) -> list[Settlement]:
    """Leave out those to be entered once whose answer the same work has already."""
    asked = [one.answer.key for one in settlements if one.is_once and one.answer]
    known = own_answers(connection, asked, at=at) if asked else set()
    new = []
    for one in settlements:
        name = one.answer and (one.answer.key, one.answer.work)
        if one.is_once and name in known:
            continue
        new.append(one)
        if name:
            known.add(name)
    return new
