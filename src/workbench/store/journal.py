"""One writer for the model calls of a process: what gathers while it writes, it writes together."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from sqlalchemy.exc import DataError

from workbench.core.errors import StoreError
from workbench.core.identity import new_id
from workbench.store.budgets import Budgets
from workbench.store.calls import Calls, Claim, Flight, Settlement
from workbench.store.records import LedgerRow

__all__ = ["Journal"]

_MOST_AT_ONCE = 1_000
_GATHER_S = 0.002
"""How long the first entry waits for others: a third of the processor time per call is saved."""
_BEAT_S = 60.0
"""How often open flights say that their process lives; other hosts wait fifteen times as long."""


class _Entry(NamedTuple):
    what: Flight | Settlement | tuple[LedgerRow, ...]
    loop: asyncio.AbstractEventLoop | None = None
    future: asyncio.Future[Any] | None = None


class _Group(NamedTuple):
    """What is committed together."""

    mark: str
    """Of the commit: it may have been kept though its connection broke, and is tried again."""
    entries: Sequence[_Entry]


class Journal:
    """Makes claims and settlements durable; usable from any thread and event loop.

    A commit costs about the same for one call as for fifty, so a thread of its own commits all
    that came since the last one, and then tells the callers. What was spent and could not be
    written, e.g. to a full disk, is written with the next commit.

    Args:
        calls: What is written to.
        budgets: Limits for the claims.
    """

    def __init__(self, calls: Calls, budgets: Budgets) -> None:
        self._calls = calls
        self._budgets = budgets
        self._queue: SimpleQueue[_Entry | None] = SimpleQueue()
        self._door = threading.Lock()
        self._writer: threading.Thread | None = None
        self._is_closed = False
        self._left: list[_Group] = []
        self._left_because = StoreError("")
        self._unnoted: StoreError | None = None
        self._flying: dict[str, str] = {}
        self._beaten_at = time.monotonic()

    async def claim(self, flight: Flight) -> Claim:
        """Return what became of the wish to send; ``granted`` once the flight is durable.

        Raises:
            StoreError: If it could not be written, or the journal is closed.
        """
        try:
            claim: Claim = await self._wait_for(flight)
        except asyncio.CancelledError:  # granted or not: nobody is there to send it
            with suppress(StoreError):  # closed: it ends with the process
                self._put(_Entry(Settlement(flight=flight.id, rows=(), answer=None)))
            raise
        return claim

    async def settle(self, settlement: Settlement) -> None:
        """Return once the settlement is durable; it will be even if the caller gives up waiting.

        Raises:
            StoreError: If it could not be written yet, or the journal is closed.
        """
        await self._wait_for(settlement)

    def note(self, rows: Iterable[LedgerRow]) -> None:
        """Enter rows in the ledger soon; nobody waits for them.

        Raises:
            StoreError: If the journal is closed.
        """
        if listed := tuple(rows):
            self._put(_Entry(listed))

    def close(self) -> None:
        """Write what is left; afterwards nothing can be added.

        Raises:
            StoreError: If something that was spent could not be written.
        """
        with self._door:
            writer, self._writer = self._writer, None
            self._is_closed = True
            self._queue.put(None)
        if writer:
            writer.join()
        if self._left:
            self._commit_all([])
        lost = any(_costs(entry) for group in self._left for entry in group.entries)
        unnoted, self._unnoted = self._left_because if lost else self._unnoted, None
        self._left = []
        if unnoted:
            raise StoreError(f"some ledger rows were not written: {unnoted}") from unnoted

    async def _wait_for(self, what: Flight | Settlement) -> Any:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._put(_Entry(what, loop, future))
        return await future

    def _put(self, entry: _Entry) -> None:
        with self._door:
            if self._is_closed:
                raise StoreError(
                    "the journal of model calls is closed; open a new gateway for more calls"
                )
            self._queue.put(entry)
            if self._writer is None:
                self._writer = threading.Thread(target=self._write, name="journal", daemon=True)
                self._writer.start()

    def _write(self) -> None:
        is_open = True
        while is_open:
            gathered = self._gather()
            is_open = None not in gathered
            if entries := [entry for entry in gathered if entry is not None]:
                self._commit_all(entries)
            self._beat()

    def _gather(self) -> list[_Entry | None]:
        gathered: list[_Entry | None] = []
        with suppress(Empty):
            gathered.append(self._queue.get(timeout=_BEAT_S))
            time.sleep(_GATHER_S)
            while gathered[-1] is not None and len(gathered) < _MOST_AT_ONCE:
                gathered.append(self._queue.get_nowait())
        return gathered

    def _beat(self) -> None:
        if self._flying and time.monotonic() - self._beaten_at >= _BEAT_S:
            self._beaten_at = time.monotonic()
            with suppress(StoreError):  # the next one may be written
                for owner in set(self._flying.values()):
                    self._calls.touch(owner)

    def _commit_all(self, entries: Sequence[_Entry]) -> None:
        """Write what is left of earlier commits, then these; where one fails the others wait."""
        groups, self._left = [*self._left, _Group(new_id("journal"), entries)], []
        for group in groups:
            if self._left:
                self._leave(group, self._left_because)
            else:
                self._commit(group)

    def _commit(self, group: _Group) -> None:
        """Write entries and tell their callers; what does not fit the store stands alone."""
        entries, outcome = group.entries, self._try(group)
        if not isinstance(outcome, StoreError):
            _tell(entries, outcome)
        elif not _is_misfit(outcome):
            self._leave(group, outcome)
        elif len(entries) > 1:
            for entry in entries:
                self._commit(_Group(new_id("journal"), [entry]))
        else:
            self._unnoted = outcome if isinstance(entries[0].what, tuple) else self._unnoted
            _tell(entries, outcome)

    def _leave(self, group: _Group, failure: StoreError) -> None:
        """Leave what was spent to the next commit; whose claim was granted unseen gives it back."""
        self._left_because = failure
        whats = [one.what for one in group.entries]
        spent = [_Entry(what) for what in whats if not isinstance(what, Flight)]
        unsent = [what.id for what in whats if isinstance(what, Flight)]
        back = [_Entry(Settlement(flight=one, rows=(), answer=None)) for one in unsent]
        self._left += [_Group(group.mark, spent)] if spent else []
        self._left += [_Group(new_id("journal"), back)] if back else []
        _tell(group.entries, failure)

    def _try(self, group: _Group) -> dict[str, Claim] | StoreError:
        whats = [entry.what for entry in group.entries]
        claims = [what for what in whats if isinstance(what, Flight)]
        settlements = [what for what in whats if isinstance(what, Settlement)]
        try:
            verdicts = self._calls.commit(
                budgets=self._budgets,
                claims=claims,
                settlements=settlements,
                rows=[row for what in whats if isinstance(what, tuple) for row in what],
                mark=group.mark,
            )
        except Exception as error:  # noqa: BLE001 - each caller gets it
            return _store_error(error)
        for flight, claim in zip(claims, verdicts, strict=True):
            if claim.state == "granted" and not flight.is_batch:
                self._flying[flight.id] = flight.owner
        for settlement in settlements:
            self._flying.pop(settlement.flight, None)
        return {flight.id: claim for flight, claim in zip(claims, verdicts, strict=True)}


def _costs(entry: _Entry) -> bool:
    """Return whether there are rows for the ledger in it."""
    what = entry.what
    return isinstance(what, tuple) or (isinstance(what, Settlement) and bool(what.rows))


def _is_misfit(failure: StoreError) -> bool:
    """Return whether a value is at fault, not the database."""
    cause = failure.__cause__
    return not isinstance(cause, StoreError) or isinstance(cause.__cause__, DataError)


def _store_error(error: Exception) -> StoreError:
    """Return an error for one caller; the database's own words may hold texts of models."""
    known = isinstance(error, StoreError)
    reason = str(error) if known else f"model calls do not fit the store: {type(error).__name__}"
    copy = StoreError(reason)
    copy.__cause__ = error
    return copy


def _tell(entries: Sequence[_Entry], outcome: dict[str, Claim] | StoreError) -> None:
    by_loop = defaultdict(list)
    for entry in entries:
        if entry.loop and entry.future:
            by_loop[entry.loop].append(entry)
    for loop, waiting in by_loop.items():
        with suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(_resolve, waiting, outcome)


def _resolve(entries: Sequence[_Entry], outcome: dict[str, Claim] | StoreError) -> None:
    for what, _, future in entries:
        if future is None or future.done():
            continue
        if isinstance(outcome, StoreError):
            future.set_exception(_store_error(outcome))
        else:
            future.set_result(outcome[what.id] if isinstance(what, Flight) else None)
