"""Message batches: half the price, answered within a day, taken up again after a kill."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import TypeVar

from workbench.core.errors import ConfigError, ModelError, WorkbenchError
from workbench.core.identity import new_id
from workbench.core.settings import Secret
from workbench.llm.limits import fingerprint
from workbench.llm.messages import Answer, Fault, Reply, Request
from workbench.llm.orders import Order, Outcome, noted, parts_of, to_note
from workbench.llm.sender import Sender
from workbench.llm.spending import Purchase, Spending
from workbench.llm.stock import Stock
from workbench.llm.transport import BatchTransport, Sending
from workbench.store.calls import Batch, Calls

__all__ = ["Batches"]

T = TypeVar("T")
_POLL_S = (0.05, 60.0)
"""First and longest pause between looks at a batch."""
_CLOCK_SKEW_S = 60.0
_REFUSED = {"invalid", "denied", "rate_limit"}
"""Faults after which the service has no batch of ours."""

_busy: set[str] = set()
"""Batches that somebody in this process is at work on, through whatever gateway."""


class Batches:
    """Answers requests by message batches.

    Args:
        sender: Whose transport, keys and retries.
        stock: Answers at hand.
        spending: Reserves and settles.
        calls: The store's record of batches.
        tell: Called with a line per batch submitted or found again.
    """

    def __init__(
        self,
        sender: Sender,
        *,
        stock: Stock,
        spending: Spending,
        calls: Calls,
        tell: Callable[[str], None],
    ) -> None:
        self._sender = sender
        self._stock = stock
        self._spending = spending
        self._calls = calls
        self._tell = tell

    async def answer(
        self,
        requests: Sequence[Request],
        *,
        by_rule: Callable[[Purchase], Answer],
        on_answer: Callable[[int, Outcome], None] | None = None,
    ) -> list[Outcome]:
        """Return an answer, or the reason that there is none, per request; spends money.

        A batch that an earlier process of the same work submitted is waited for, not sent again.

        Raises:
            BudgetError: If the worst case of a batch exceeds a budget; that batch is not sent.
            ConfigError: If the service takes no batches.
            ModelError: If the service refuses a batch as a whole.
        """
        asked = (self._stock.purchase(request, is_counted=True) for request in requests)
        order = Order([replace(one, kind="batch", is_shared=False) for one in asked], on_answer)
        is_done = False
        while not is_done:
            await self._take_up(order)
            is_done = await self._buy(await self._find(order, by_rule), order)
        for purchase in order.missing():
            reason = "its batch never reached the service; run again"
            order.keep(purchase.key, ModelError(f"{purchase.route.model}: {reason}"))
        return order.outcomes()

    async def _find(self, order: Order, by_rule: Callable[[Purchase], Answer]) -> list[Purchase]:
        """Answer what takes no service, and return the rest."""
        due = []
        for purchase in order.missing():
            if purchase.route.tier == "none":
                order.keep(purchase.key, by_rule(purchase), again=partial(by_rule, purchase))
                continue
            found = await self._stock.find(purchase)
            if found.answer:
                take = partial(self._stock.take, purchase, found)
                order.keep(purchase.key, take(), again=take)
            else:
                due.append(replace(purchase, miss=found.miss))
        return due

    async def _take_up(self, order: Order) -> None:
        """Finish the batches of this work, begun by others or before a kill, with what is due."""
        work = self._spending.account.work
        pause, longest = _POLL_S
        while found := [
            batch
            for batch in await asyncio.to_thread(self._calls.open_batches, work)
            if not order.purchases.keys().isdisjoint(batch.requests)
        ]:
            free = [batch for batch in found if not self._is_tended(batch)]
            if free:
                with _tending(free[0].id):
                    await self._finish(free[0], order)
                continue
            if pause == _POLL_S[0]:
                self._tell(f"batch {found[0].id}: waiting for whoever is at work on it")
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, longest)

    def _is_tended(self, batch: Batch) -> bool:
        """Return whether a batch is somebody else's to name, or in this process to finish."""
        is_foreign = batch.owner != self._spending.account.owner
        is_named_elsewhere = batch.state == "submitting" and is_foreign
        return batch.id in _busy or (
            is_named_elsewhere and self._calls.is_alive(batch.owner, at=batch.created_at)
        )

    async def _buy(self, purchases: Sequence[Purchase], order: Order) -> bool:
        """Submit purchases in batches one by one, and finish each while others are submitted.

        So a batch that waits for a budget waits for batches that are being finished. Returns
        whether all were submitted: somebody of the same work may be quicker.
        """
        stop: list[WorkbenchError] = []
        batches: list[Batch | None] = []
        turn = asyncio.Lock()

        async def buy(part: Sequence[Purchase]) -> None:
            name = new_id("batch")
            with _tending(name):
                try:
                    async with turn:
                        batch = None if stop else await self._submit(name, part)
                    batches.append(batch)
                    if batch:
                        await self._finish(batch, order)
                except WorkbenchError as error:  # those in flight end and are kept
                    stop.append(error)

        async with asyncio.TaskGroup() as group:
            for part in parts_of(purchases):
                group.create_task(buy(part))
        if stop:
            raise stop[0]
        return all(batches)

    @property
    def _transport(self) -> BatchTransport:
        transport = self._sender.transport
        if not isinstance(transport, BatchTransport):
            raise ConfigError(
                f"{transport.provider}: takes no message batches; set llm: savings: batches: false"
            )
        return transport

    async def _submit(self, name: str, purchases: Sequence[Purchase]) -> Batch | None:
        """Note a batch, reserve its worst case, send it; None where somebody was quicker."""
        await self._sender.hold_until_open()
        account = self._spending.account
        key = await self._sender.pool.acquire(purchases[0].route.model, tokens=0)
        batch = Batch(
            id=name,
            work=account.work,
            job=account.job,
            experiment=account.experiment,
            phase=account.phase,
            who=account.who,
            owner=account.owner,
            key_hash=fingerprint(key),
            requests={
                one.key: to_note(one, worst_usd=self._spending.worst(one)) for one in purchases
            },
        )
        sendings = {
            one.key: Sending(model=one.route.model, key=key, prompt_cache=self._sender.prompt_cache)
            for one in purchases
        }
        requests = {one.key: one.request for one in purchases}
        if not await asyncio.to_thread(self._calls.add_batch, batch):
            return None
        try:
            await self._spending.reserve_all(purchases, batch=batch.id)
            given = await self._sender.retry(lambda: self._transport.submit(requests, sendings))
        except WorkbenchError:  # nothing was sent
            await self._end(batch)
            raise
        if not isinstance(given, Fault):
            return await self._name(batch, given)
        # an answer that was lost on its way may have left the batch with the service
        remote = "" if given.kind in _REFUSED else await self._adopt(batch)
        if not remote:
            await self._end(batch)
            raise ModelError(f"message batch of {len(requests)}: {given.message}; run again")
        return await self._name(batch, remote)

    async def _name(self, batch: Batch, remote: str) -> Batch:
        await asyncio.to_thread(self._calls.update_batch, batch.id, state="open", remote_id=remote)
        self._tell(f"batch {remote[:60]}: {len(batch.requests)} requests with the service")
        return replace(batch, remote_id=remote, state="open")

    async def _end(self, batch: Batch, *, lost: Mapping[str, Fault] | None = None) -> None:
        """Close a batch; of what was lost, the worst case is charged."""
        notes = batch.requests
        charges = [
            (noted(key, notes[key]), Decimal(notes[key]["worst_usd"]), fault.message)
            for key, fault in (lost or {}).items()
        ]
        await self._spending.end_batch(batch.id, lost=charges)
        await asyncio.to_thread(self._calls.update_batch, batch.id, state="collected")

    async def _adopt(self, batch: Batch, *, strangers: frozenset[str] = frozenset()) -> str:
        """Return the remote id of a batch that was sent but never named here; "" if there is none.

        The service's list says when each batch was made and how many requests it has; the first of
        that size, made since our intent and known to nobody here, should be ours. Another user of
        the same key may have made it: its answers will tell.
        """
        key = self._key(batch)
        listed = await self._look(batch, lambda: self._transport.recent(key=key))
        known = await asyncio.to_thread(self._calls.remote_batches)
        since = datetime.fromisoformat(batch.created_at).timestamp() - _CLOCK_SKEW_S
        for remote, created_at, size in reversed(listed):
            is_alike = created_at >= since and size == len(batch.requests)
            if is_alike and remote not in known | strangers:
                return remote
        return ""

    async def _finish(
        self, batch: Batch, order: Order, *, strangers: frozenset[str] = frozenset()
    ) -> None:
        """Wait for a batch and settle all that it gave, each answer once."""
        if batch.state == "submitting":  # killed before it learned the batch's name
            remote = await self._adopt(batch, strangers=strangers)
            if not remote:
                await self._end(batch)
                return
            batch = await self._name(batch, remote)
        key, remote = self._key(batch), batch.remote_id
        pause, longest = _POLL_S
        while not await self._look(batch, lambda: self._transport.has_ended(remote, key=key)):
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, longest)
        given = await self._look(batch, lambda: self._collect(batch, key))
        if batch.requests.keys().isdisjoint(given):
            await asyncio.to_thread(
                self._calls.update_batch, batch.id, state="submitting", remote_id=""
            )
            batch = replace(batch, state="submitting", remote_id="")
            await self._finish(batch, order, strangers=strangers | {remote})
            return
        await self._settle(batch, given, order)

    async def _collect(self, batch: Batch, key: Secret) -> Mapping[str, Reply | Fault] | Fault:
        """Return what a batch gave: all of its results, or those of a stranger's batch."""
        given = await self._transport.collect(batch.remote_id, key=key)
        if isinstance(given, Fault):
            return given
        missing = batch.requests.keys() - given.keys()
        if missing and not (given and len(missing) == len(batch.requests)):
            told = f"{len(missing)} of {len(batch.requests)} results are missing"
            return Fault(kind="malformed", message=told)
        return given

    async def _look(self, batch: Batch, send: Callable[[], Awaitable[T | Fault]]) -> T:
        given = await self._sender.retry(send)
        if isinstance(given, Fault):
            name = batch.remote_id[:60] or batch.id
            raise ModelError(f"batch {name}: {given.message}; run again to take it up")
        return given

    def _key(self, batch: Batch) -> Secret:
        """Return the key that sent a batch: no other can collect it."""
        try:
            return self._sender.pool.keys[batch.key_hash]
        except KeyError:
            raise ConfigError(
                f"batch {batch.remote_id[:60] or batch.id} was sent with another API key"
                f" (fingerprint {batch.key_hash}); set that one to take it up"
            ) from None

    async def _settle(self, batch: Batch, given: Mapping[str, Reply | Fault], order: Order) -> None:
        """Settle all that a batch gave, whether this order asks for it or not, and close it."""
        lost: dict[str, Fault] = {}

        async def settle(purchase: Purchase, reply: Reply | Fault) -> None:
            if isinstance(reply, Fault):
                order.keep(purchase.key, ModelError(f"{purchase.route.model}: {reply.message}"))
                if reply.may_be_billed:
                    lost[purchase.key] = reply
                return
            # the batch's one flight holds the reservation until every answer is settled; work
            # without a name may buy an answer again that it has
            answer = await self._spending.settle("", purchase, reply, is_once=bool(batch.work))
            again = partial(self._stock.join, purchase, answer)
            order.keep(purchase.key, answer, again=again)

        await asyncio.gather(
            *(settle(noted(key, note), given[key]) for key, note in batch.requests.items())
        )
        if lost:  # but another process may just have charged it
            still_open = await asyncio.to_thread(self._calls.open_batches, batch.work)
            lost = lost if any(one.id == batch.id for one in still_open) else {}
        await self._end(batch, lost=lost)


@contextmanager
def _tending(batch: str) -> Iterator[None]:
    _busy.add(batch)
    try:
        yield
    finally:
        _busy.discard(batch)
