"""Sending one purchase: limits before it, retries around it, the ledger after it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TypeVar

from workbench.core.errors import InputError, ModelError
from workbench.core.settings import Secret
from workbench.llm.config import GatewayConfig
from workbench.llm.limits import Breaker, KeyPool, backoff_s
from workbench.llm.messages import Answer, Fault, Reply
from workbench.llm.off_peak import OffPeak
from workbench.llm.spending import Purchase, Spending
from workbench.llm.transport import Sending, Transport
from workbench.store.calls import Flight

__all__ = ["Sender"]

T = TypeVar("T")
_BYTES_PER_TOKEN = 4
"""Of English prose, for the rate limits; the service's count corrects it."""
_MOST_LOST = 3
"""Times that one answer may be lost, each charged at its worst case, before it is given up."""


class Sender:
    """Sends purchases, never more at a time than allowed."""

    def __init__(
        self,
        transport: Transport,
        config: GatewayConfig,
        *,
        spending: Spending,
        pool: KeyPool,
        off_peak: OffPeak | None,
        tell: Callable[[str], None],
    ) -> None:
        self.transport = transport
        self.provider = transport.provider
        self._config = config
        self._spending = spending
        self.pool = pool
        self.prompt_cache = config.savings.prompt_cache
        self._breakers: dict[str, Breaker] = {}
        self._off_peak = off_peak
        self._tell = tell
        slots = config.savings.parallel
        # more than slots, so that none is idle while answers are made durable; not many more,
        # since a kill charges whatever is reserved
        self.width = 1 if slots == 1 else slots + max(8, slots // 2)
        self._slots = asyncio.Semaphore(slots)
        self._reserving = asyncio.Semaphore(self.width)

    async def buy(
        self, purchase: Purchase, *, on_text: Callable[[str], None] | None = None
    ) -> Answer | None:
        """Return the answer, bought and durable; None where another process is buying it.

        Raises:
            BudgetError: If a budget leaves too little.
            ModelError: If the service gave no usable answer.
        """
        await self.hold_until_open()
        async with self._reserving:
            return await self._buy(purchase, on_text)

    async def _buy(
        self, purchase: Purchase, on_text: Callable[[str], None] | None
    ) -> Answer | None:
        flight = await self._spending.reserve(purchase)
        if flight is None:
            return None
        shown = _Shown(on_text) if on_text else None
        lost = 0
        for attempt in range(1, self._config.rates.max_attempts + 1):
            reply = await self._send(flight, purchase, shown)
            if isinstance(reply, Reply):
                return await self._spending.settle(flight.id, purchase, reply, attempts=attempt)
            lost += reply.may_be_billed
            is_last = attempt == self._config.rates.max_attempts or lost == _MOST_LOST
            # a refused key was retired: the pool may have a better one
            may_change_key = reply.kind == "denied" and self.pool.may_serve(flight.model)
            is_hopeful = reply.is_retryable or may_change_key
            is_final = is_last or not is_hopeful or bool(shown and shown.has_begun)
            if reply.may_be_billed:
                await self._spending.lose(flight, purchase, reason=reply.message)
            elif is_final:
                await self._spending.release(flight.id)
            if is_final:
                raise ModelError(_told(reply, flight, attempt))
            if reply.may_be_billed:  # the next attempt may cost as much again
                again = await self._spending.reserve(purchase)
                if again is None:
                    return None
                flight = again
            await self._hold(flight, asyncio.sleep(self._pause_s(attempt, reply)))
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def hold_until_open(self) -> None:
        """Wait for the off-peak window, where there is one."""
        if self._off_peak:
            await self._off_peak.hold(self._tell)

    async def retry(self, send: Callable[[], Awaitable[T | Fault]]) -> T | Fault:
        """Return what a request of which nothing is billed gives, sent again while that may help.

        One whose answer was lost is not sent again: the caller has to look whether it arrived.
        """
        rates = self._config.rates
        for attempt in range(1, rates.max_attempts + 1):
            given = await send()
            if not isinstance(given, Fault) or not given.is_retryable or given.may_be_billed:
                return given
            await asyncio.sleep(self._pause_s(attempt, given))
        return given

    async def close(self) -> None:
        """Close the connections."""
        await self.transport.close()

    async def _send(
        self, flight: Flight, purchase: Purchase, shown: _Shown | None
    ) -> Reply | Fault:
        """Send once, within every limit; an interrupted call is charged, it may be billed."""
        model, tokens = flight.model, purchase.request.size_bytes // _BYTES_PER_TOKEN
        breaker = self._breakers.setdefault(model, Breaker(model, rates=self._config.rates))
        await self._hold(flight, self.hold_until_open())
        await self._hold(flight, breaker.wait())
        key = await self._hold(flight, self.pool.acquire(model, tokens=tokens))
        await self._hold(flight, self._slots.acquire())
        sending = Sending(
            model=model,
            key=key,
            prompt_cache=self.prompt_cache,
            prewarm=purchase.kind == "prewarm",
            timeout_s=self._config.rates.timeout_s,
            on_text=shown,
        )
        try:
            reply = await self.transport.send(purchase.request, sending)
        except InputError:  # refused before anything was sent
            await self._spending.release(flight.id)
            raise
        except BaseException as error:
            reason = f"interrupted: {type(error).__name__}"
            await self._spending.lose(flight, purchase, reason=reason)
            raise
        finally:
            self._slots.release()
        breaker.record(reply if isinstance(reply, Fault) else None)
        unused = tokens - reply.usage.input_tokens if isinstance(reply, Reply) else tokens
        self.pool.observe(key, model=model, headers=reply.headers, unused_tokens=unused)
        if isinstance(reply, Fault):
            self._blame(key, model, reply)
        return reply

    def _blame(self, key: Secret, model: str, fault: Fault) -> None:
        """Spare a key that sends too much, and give up one that the service refuses."""
        if fault.kind == "rate_limit" and fault.retry_after_s:
            rest_s = min(fault.retry_after_s, self._config.rates.retry_after_cap_s)
            self.pool.rest(key, model=model, seconds=rest_s)
        elif fault.status == HTTPStatus.FORBIDDEN:
            self.pool.retire(key, model=model)
        elif fault.kind == "denied":
            self.pool.retire(key)

    def _pause_s(self, attempt: int, fault: Fault) -> float:
        return backoff_s(attempt, fault, cap_s=self._config.rates.retry_after_cap_s)

    async def _hold(self, flight: Flight, waiting: Awaitable[T]) -> T:
        """Wait with a reservation in hand; give it back if the wait ends in an error."""
        try:
            return await waiting
        except BaseException:
            await self._spending.release(flight.id)
            raise


class _Shown:
    """Passes text on, and remembers that it did."""

    def __init__(self, on_text: Callable[[str], None]) -> None:
        self._on_text = on_text
        self.has_begun = False

    def __call__(self, piece: str) -> None:
        self.has_begun = True
        self._on_text(piece)


def _told(fault: Fault, flight: Flight, attempts: int) -> str:
    tried = f"after {attempts} attempts" if attempts > 1 else "at once"
    billed = "; it may be billed and is charged at its worst case" if fault.may_be_billed else ""
    return (
        f"{flight.model}: {fault.message} ({fault.kind}, {tried}{billed}); answers so far are kept"
    )
