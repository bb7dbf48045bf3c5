"""Message batches: half the price, answered within a day, taken up again after a kill."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from workbench.core.errors import BudgetError, ConfigError, ModelError
from workbench.core.identity import new_id
from workbench.core.settings import Secret
from workbench.llm.limits import fingerprint
from workbench.llm.messages import Answer, Fault, Reply, Request
from workbench.llm.sender import Sender
from workbench.llm.spending import Purchase, Spending
from workbench.llm.stock import Stock
from workbench.llm.transport import BatchTransport, Sending
from workbench.store.calls import Batch, Calls

__all__ = ["Batches"]

_MOST_REQUESTS = 10_000
"""Per batch; the service takes 100,000 or 256 MB, whichever comes first."""
_POLL_S = (1.0, 60.0)
"""First and longest pause between looks at a batch."""
_CLOCK_SKEW_S = 60.0

Outcome = Answer | ModelError


class _Order:
    """Purchases by key, and what became of them."""

    def __init__(
        self, purchases: Sequence[Purchase], on_answer: Callable[[int, Outcome], None] | None
    ) -> None:
        self.purchases = {purchase.key: purchase for purchase in purchases}
        self._keys = [purchase.key for purchase in purchases]
        self._outcomes: dict[str, Outcome] = {}
        self._on_answer = on_answer

    def keep(self, key: str, outcome: Outcome) -> None:
        self._outcomes[key] = outcome
        if self._on_answer:
            for position, own in enumerate(self._keys):
                if own == key:
                    self._on_answer(position, outcome)

    def missing(self) -> list[Purchase]:
        return [one for key, one in self.purchases.items() if key not in self._outcomes]

    def outcomes(self) -> list[Outcome]:
        return [self._outcomes[key] for key in self._keys]


class Batches:
    """Answers requests by message batches.

    Args:
        sender: Whose transport, keys and retries.
        stock: Answers at hand.
        spending: Reserves and settles.
        calls: The store's record of batches.
        tell: Called with a line per batch submitted or found again.
        poll_s: First and longest pause between looks at a batch, in seconds.
    """

    def __init__(
        self,
        sender: Sender,
        *,
        stock: Stock,
        spending: Spending,
        calls: Calls,
        tell: Callable[[str], None],
        poll_s: tuple[float, float] = _POLL_S,
    ) -> None:
        self._sender = sender
        self._stock = stock
        self._spending = spending
        self._calls = calls
        self._tell = tell
        self._poll_s = poll_s

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
        order = _Order(
            [
                replace(
                    self._stock.purchase(request, is_counted=True), kind="batch", is_shared=False
                )
                for request in requests
            ],
            on_answer,
        )
        work = self._spending.account.work
        for batch in await asyncio.to_thread(self._calls.open_batches, work):
            if not order.purchases.keys().isdisjoint(batch.requests):
                await self._finish(batch, order)
        due = []
        for purchase in order.missing():
            if purchase.route.tier == "none":
                order.keep(purchase.key, by_rule(purchase))
                continue
            found = await self._stock.find(purchase)
            if found.answer:
                order.keep(purchase.key, self._stock.take(purchase, found))
            else:
                due.append(replace(purchase, miss=found.miss))
        batches = [
            await self._submit(due[start : start + _MOST_REQUESTS])
            for start in range(0, len(due), _MOST_REQUESTS)
        ]
        for batch in batches:
            await self._finish(batch, order)
        return order.outcomes()

    @property
    def _transport(self) -> BatchTransport:
        transport = self._sender.transport
        if not isinstance(transport, BatchTransport):
            raise ConfigError(
                f"{transport.provider}: takes no message batches; set llm: savings: batches: false"
            )
        return transport

    async def _submit(self, purchases: Sequence[Purchase]) -> Batch:
        """Write down the intent, reserve the worst case of a batch, send it."""
        account = self._spending.account
        key = await self._sender.pool.acquire(purchases[0].route.model, tokens=0)
        batch = Batch(
            id=new_id("batch"),
            work=account.work,
            job=account.job,
            experiment=account.experiment,
            phase=account.phase,
            who=account.who,
            key_hash=fingerprint(key),
            requests={purchase.key: None for purchase in purchases},
        )
        await asyncio.to_thread(self._calls.add_batch, batch)
        try:
            await self._spending.reserve_all(purchases, batch=batch.id)
        except BudgetError:
            await self._end(batch)
            raise
        sendings = {
            one.key: Sending(model=one.route.model, key=key, prompt_cache=self._sender.prompt_cache)
            for one in purchases
        }
        requests = {one.key: one.request for one in purchases}
        given = await self._sender.retry(lambda: self._transport.submit(requests, sendings))
        # an answer that was lost on its way may have left the batch with the service
        remote = await self._adopt(batch) if isinstance(given, Fault) else given
        if isinstance(given, Fault) and not remote:
            await self._end(batch)
            raise ModelError(f"message batch of {len(requests)}: {given.message}; run again")
        return await self._name(batch, remote)

    async def _name(self, batch: Batch, remote: str) -> Batch:
        await asyncio.to_thread(self._calls.update_batch, batch.id, state="open", remote_id=remote)
        self._tell(f"batch {remote[:60]}: {len(batch.requests)} requests with the service")
        return replace(batch, remote_id=remote, state="open")

    async def _end(self, batch: Batch) -> None:
        """Close a batch of which nothing more will be billed."""
        await self._spending.release(batch.id)
        await asyncio.to_thread(self._calls.update_batch, batch.id, state="collected")

    async def _adopt(self, batch: Batch, *, strangers: frozenset[str] = frozenset()) -> str:
        """Return the remote id of a batch that was sent but never named here; "" if there is none.

        The service's list says when each batch was made and how many requests it has; the first of
        that size, made since our intent and known to nobody here, should be ours. Another user of
        the same key may have made it: its answers will tell.
        """
        key = self._key(batch)
        listed = await self._sender.retry(lambda: self._transport.recent(key=key))
        if isinstance(listed, Fault):
            raise ModelError(f"message batches: {listed.message}; run again to look for the batch")
        known = await asyncio.to_thread(self._calls.remote_batches)
        since = datetime.fromisoformat(batch.created_at).timestamp() - _CLOCK_SKEW_S
        for remote, created_at, requests in reversed(listed):
            if (
                remote not in known | strangers
                and created_at >= since
                and requests == len(batch.requests)
            ):
                return remote
        return ""

    async def _finish(
        self, batch: Batch, order: _Order, *, strangers: frozenset[str] = frozenset()
    ) -> None:
        """Wait for a batch and settle what it gave, each answer once."""
        if batch.state == "submitting":  # killed before it learned the batch's name
            remote = await self._adopt(batch, strangers=strangers)
            if not remote:
                await self._end(batch)
                return
            batch = await self._name(batch, remote)
        key, remote = self._key(batch), batch.remote_id
        pause, longest = self._poll_s
        while not await self._sender.retry(lambda: self._transport.has_ended(remote, key=key)):
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, longest)
        given = await self._sender.retry(lambda: self._transport.collect(remote, key=key))
        if isinstance(given, Fault):
            raise ModelError(f"batch {remote[:60]}: {given.message}; run again to take it up")
        if given and batch.requests.keys().isdisjoint(given):
            await asyncio.to_thread(
                self._calls.update_batch, batch.id, state="submitting", remote_id=""
            )
            batch = replace(batch, state="submitting", remote_id="")
            await self._finish(batch, order, strangers=strangers | {remote})
            return
        own = [order.purchases[name] for name in batch.requests if name in order.purchases]
        nothing = Fault(kind="malformed", message="the batch gave no result for it")
        await asyncio.gather(
            *(self._settle(one, given.get(one.key, nothing), order) for one in own)
        )
        others = batch.requests.keys() - order.purchases.keys()
        if all([await self._calls.find(key) for key in others]):
            await self._end(batch)  # else the rest is settled when it is asked for

    def _key(self, batch: Batch) -> Secret:
        """Return the key that sent a batch: no other can collect it."""
        try:
            return self._sender.pool.keys[batch.key_hash]
        except KeyError:
            raise ConfigError(
                f"batch {batch.remote_id[:60] or batch.id} was sent with another API key"
                f" (fingerprint {batch.key_hash}); set that one to take it up"
            ) from None

    async def _settle(self, purchase: Purchase, reply: Reply | Fault, order: _Order) -> None:
        if isinstance(reply, Fault):
            order.keep(purchase.key, ModelError(f"{purchase.route.model}: {reply.message}"))
            return
        found = await self._stock.find(purchase)
        if found.answer:  # settled before a kill
            order.keep(purchase.key, found.answer)
            return
        # the batch's one flight holds the reservation until every answer is settled
        order.keep(purchase.key, await self._spending.settle("", purchase, reply))
