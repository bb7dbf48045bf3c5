"""Answers at hand: those bought before, by this work, this store, or whoever shares the cache."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal

from workbench.core.errors import ConfigError, StoreError
from workbench.core.money import ZERO, usd
from workbench.llm.cache import RedisCache
from workbench.llm.config import GatewayConfig
from workbench.llm.messages import Answer, Request
from workbench.llm.router import Router
from workbench.llm.spending import Purchase, Spending, from_stored, to_stored
from workbench.store.calls import Calls

__all__ = ["AtHand", "Stock"]

_LEASE_S = 15.0
_POLL_S = (0.05, 1.0)
"""First and longest pause between looks at what another machine is buying."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AtHand:
    """What is there for a purchase."""

    answer: Answer | None = None
    saved: Decimal = ZERO
    """What it was billed when it was bought."""
    miss: Literal["", "absent", "expired", "off"] = ""
    """Why nothing is there."""


class Stock:
    """Names purchases, finds their answers, and shares what was bought.

    Args:
        config: Whether answers are taken from others at all.
        router: Knows how long an answer keeps.
        service: Whose answers: provider and address, since another server answers otherwise.
        calls: The store's answers.
        cache: Another cache, shared among machines.
        spending: Counts what cost nothing.
        work: Id of the piece of work; its own answers are at hand whatever their age.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        config: GatewayConfig,
        *,
        router: Router,
        service: str,
        calls: Calls,
        cache: RedisCache | None,
        spending: Spending,
        work: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._is_shared = config.savings.response_cache
        self._router = router
        self._service = service
        self._calls = calls
        self._cache = cache
        self._spending = spending
        self._work = work
        self._clock = clock
        self._occurrences: Counter[str] = Counter()
        self._leases: dict[str, asyncio.Task[None]] = {}

    def purchase(self, request: Request, *, is_counted: bool = False) -> Purchase:
        """Return what buying the answer to a request would mean.

        Args:
            request: What to ask.
            is_counted: With the response cache off, equal requests are bought each; the n-th that
                is counted gets a key of its own, so that on resume it finds the n-th answer.
        """
        route = self._router.route(request)
        key = request.key(service=self._service, model=route.model)
        if not self._is_shared:
            occurrence = self._occurrences[key]
            self._occurrences[key] += is_counted
            if occurrence:
                key = request.key(service=self._service, model=route.model, occurrence=occurrence)
        return Purchase(
            request=request,
            route=route,
            key=key,
            ttl_s=self._router.ttl_s(request.namespace or request.task),
            is_shared=self._is_shared,
        )

    def planned(self, requests: Iterable[Request]) -> list[Purchase]:
        """Return what asking for requests in that order would buy, without counting them."""
        kept = self._occurrences.copy()
        try:
            return [self.purchase(request, is_counted=True) for request in requests]
        finally:
            self._occurrences = kept

    async def find(self, purchase: Purchase) -> AtHand:
        """Return the answer that is at hand, or why none is."""
        # a service forgets what was written to its cache, whoever wrote it
        work = "" if purchase.kind == "prewarm" else self._work
        stored = await self._calls.find(purchase.key, work=work)
        miss: Literal["absent", "expired", "off"] = "absent" if self._is_shared else "off"
        if stored is not None:
            is_fresh = stored.expires_at is None or stored.expires_at > self._clock()
            is_own = bool(work) and stored.work == work
            if is_own or (self._is_shared and is_fresh):
                found = _usable(stored.answer)
                if not found.answer:
                    raise StoreError(
                        f"the answer kept under {purchase.key} is damaged; remove that row from the"
                        " table responses"
                    )
                return found
            miss = "expired" if self._is_shared else "off"
        if self._cache and self._is_shared:
            values = await self._cache.get(purchase.key)
            if values is not None:
                return _usable(values)
        return AtHand(miss=miss)

    def take(self, purchase: Purchase, found: AtHand) -> Answer:
        """Return the answer at hand, counted."""
        assert found.answer is not None
        self._spending.count_at_hand(purchase, found.answer, saved=found.saved)
        return found.answer

    def join(self, purchase: Purchase, answer: Answer) -> Answer:
        """Return the answer that somebody else has just bought, counted."""
        joined = replace(answer, outcome="joined", usd=ZERO)
        self._spending.count_at_hand(purchase, joined, saved=answer.usd)
        return joined

    async def lease(self, purchase: Purchase) -> AtHand:
        """Return an answer that another machine bought meanwhile, or nothing: the turn is ours."""
        pause, longest = _POLL_S
        while self._cache and self._is_shared:
            is_ours = await self._cache.lease(purchase.key, ttl_s=_LEASE_S)
            found = await self.find(purchase)  # it may just have been bought
            if is_ours and found.answer:
                await self._cache.release(purchase.key)
            elif is_ours:
                self._leases[purchase.key] = asyncio.create_task(self._renew(purchase.key))
            if is_ours or found.answer:
                return found
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)
        return AtHand()

    async def share(self, purchase: Purchase, answer: Answer | None) -> None:
        """Give what was bought, if anything, to other machines, and the turn with it."""
        if self._cache and self._is_shared:
            if answer:
                await self._cache.put(purchase.key, to_stored(answer), ttl_s=purchase.ttl_s)
            if renewing := self._leases.pop(purchase.key, None):
                renewing.cancel()
                await self._cache.release(purchase.key)

    async def _renew(self, key: str) -> None:
        """Keep a lease that is short, so that nobody waits long for a process that was killed."""
        while self._cache:
            await asyncio.sleep(_LEASE_S / 3)
            await self._cache.renew(key, ttl_s=_LEASE_S)

    async def close(self) -> None:
        """Close the connections."""
        if self._cache:
            await self._cache.close()


def _usable(values: dict[str, Any]) -> AtHand:
    """Return a kept answer; one that makes no sense (a hostile shared cache) is absent."""
    try:
        return AtHand(answer=from_stored(values, outcome="hit"), saved=usd(values["usd"]))
    except (KeyError, TypeError, ValueError, ConfigError):
        return AtHand(miss="absent")
