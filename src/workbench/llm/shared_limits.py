"""One rate per key and model for all processes: permits drawn from what the store or Redis keeps.

A process draws what the next request needs and half a second's flow ahead, so that a busy one asks
about twice a second, whatever it sends. The shared bucket is smaller by what a process may have
drawn ahead, which keeps every window of time within the limit. A request that must wait reserves
its place: the bucket goes below zero, so that large requests are not starved by small ones of other
processes. What a killed process had drawn is not used.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from workbench.core.errors import StoreError
from workbench.core.identity import content_id
from workbench.store.rates import Ask, Drawn, StoreRates

if TYPE_CHECKING:
    from workbench.llm.cache import RedisCache
    from workbench.llm.timing import Timing
    from workbench.store.database import Store

__all__ = [
    "AHEAD_S",
    "ROUNDING",
    "Need",
    "RedisRates",
    "Share",
    "SharedRates",
    "StoreRates",
    "shared_rates",
]

AHEAD_S: Final = 0.5
"""For how long permits are drawn ahead, and after which a process looks whether others rest."""
ROUNDING: Final = 1e-6
"""Of a request or token: is not missing."""
_PATIENCE_S = 60.0
"""How long a store or Redis that went away is waited for."""
_REST_S = 30.0
"""How long it is left alone where there is no limit to keep to."""


class SharedRates(Protocol):
    """Where buckets are kept; the arithmetic is that of ``store.rates.settle``."""

    service: str
    """Part of the buckets' names: provider and address."""

    async def draw(self, asks: Sequence[Ask], *, rest_s: float, patience_s: float) -> Drawn:
        """Take permits, all at once or none; see ``store.rates.draw``."""


class RedisRates:
    """Buckets in Redis, for machines that share no store.

    Args:
        cache: The Redis.
        service: Provider and address.
    """

    def __init__(self, cache: RedisCache, *, service: str) -> None:
        self._cache = cache
        self.service = service

    async def draw(self, asks: Sequence[Ask], *, rest_s: float, patience_s: float) -> Drawn:
        """Take permits by one script."""
        values = [rest_s, patience_s, *(number for _, *numbers in asks for number in numbers)]
        names = [f"workbench:rate:{ask.name}" for ask in asks]
        told = await self._cache.evaluate(_SCRIPT, names, [min(one, _MOST) for one in values])
        *taken, wait_s, rests_s = map(float, told)
        return Drawn(tuple(taken), wait_s, rests_s)


def shared_rates(store: Store, cache: RedisCache | None, *, service: str) -> SharedRates:
    """Return where all processes keep to one rate: Redis where there is one, else the store."""
    if cache:
        return RedisRates(cache, service=service)
    return StoreRates(store.engine, service=service)


class Need(NamedTuple):
    """What a request takes of one limit, and what this process knows of it."""

    amount: float
    per_minute: float
    """Infinite where no limit is known."""
    left: float = math.inf
    """Most that is left."""

    @property
    def ahead(self) -> float:
        """What flows in while a permit that was drawn ahead may be used."""
        return self.per_minute * AHEAD_S // 60 if self.is_limited else 0.0

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit to keep to."""
        return self.per_minute < math.inf

    @property
    def size(self) -> float:
        """Most that all together draw at once."""
        return max(self.per_minute - self.ahead, 1.0)


class Share:
    """What this process may send with one key to one model; belongs to one event loop.

    Args:
        rates: Where the buckets are kept.
        key: Fingerprint of the key.
        model: Name of the model.
        timing: Clocks and sleep.
        longest_rest_s: What others say about rests counts up to this.
    """

    def __init__(
        self, rates: SharedRates, *, key: str, model: str, timing: Timing, longest_rest_s: float
    ) -> None:
        name = content_id([rates.service, key, model])[:32]
        self._names = (f"{name} requests", f"{name} tokens")
        self._rates = rates
        self._now = timing.monotonic
        self._nap = timing.nap
        self._longest_rest_s = longest_rest_s
        self._needs: Sequence[Need] = ()
        self._stock = [0.0, 0.0]
        self._ready_at = self._looked_at = self._rests_until = -math.inf
        self._drawing: asyncio.Task[None] | None = None

    def wait_s(self, *, now: float) -> float:
        """Return for how long nothing may be sent, as far as is known."""
        return max(self._ready_at, self._rests_until) - now

    async def ask(self, needs: Sequence[Need], *, patience_s: float) -> float:
        """Return in how many seconds a request may be sent; where it is 0, take it then.

        Who is cancelled leaves what was drawn to the next one.

        Args:
            needs: Requests and tokens.
            patience_s: No place is reserved where the wait would be longer.

        Raises:
            StoreError: If there is a limit, and whoever keeps it has been away for a minute.
        """
        has_drawn = False
        while self._drawing or (not has_drawn and self._must_draw(needs)):
            if not self._drawing:
                has_drawn = True
                self._drawing = asyncio.create_task(self._draw(needs, patience_s=patience_s))
            try:
                await asyncio.shield(self._drawing)
            finally:
                if self._drawing.done():
                    self._drawing = None
        return self.wait_s(now=self._now())

    def take(self, needs: Sequence[Need]) -> None:
        """Count a request that is sent now."""
        for number, need in enumerate(needs):
            self._stock[number] = max(0.0, self._stock[number] - need.amount)

    def give_back(self, tokens: float) -> None:
        """Count tokens that a request did not need after all."""
        self._stock[1] += max(0.0, tokens)

    async def rest(self, seconds: float) -> None:
        """Tell all that nobody may send for a while."""
        until = self._now() + seconds
        if until > self._rests_until + AHEAD_S:  # of a storm of faults the first one tells
            self._rests_until = until
            looks = [Need(0, need.per_minute) for need in self._needs]
            with suppress(StoreError):  # others find out by themselves
                await self._send(looks, rest_s=seconds)

    async def close(self) -> None:
        """Return what was drawn and not used."""
        if self._drawing:
            await asyncio.wait([self._drawing])
        with suppress(StoreError):  # then nobody uses it
            if any(need.is_limited for need in self._needs) and any(self._stock):
                stock, self._stock = self._stock, [0.0, 0.0]
                looks = [Need(0, need.per_minute) for need in self._needs]
                await self._rates.draw(self._asks(looks, back=stock), rest_s=0, patience_s=math.inf)

    def _must_draw(self, needs: Sequence[Need]) -> bool:
        is_stale = self._ready_at <= self._now() > self._looked_at + AHEAD_S
        return is_stale or not self._has(needs)

    def _has(self, needs: Sequence[Need]) -> bool:
        """Return whether what was drawn is enough, and may still be used."""
        limited = [
            have >= min(need.amount, need.size) - ROUNDING
            for have, need in zip(self._stock, needs, strict=True)
            if need.is_limited
        ]
        return not limited or (all(limited) and self._now() <= self._ready_at + AHEAD_S)

    async def _draw(self, needs: Sequence[Need], *, patience_s: float) -> None:
        self._needs = needs
        if self._has(needs):  # but do others rest by now?
            await self._send([Need(0, need.per_minute) for need in needs])
            return
        back, self._stock = self._stock, [0.0, 0.0]
        drawn = await self._send(needs, back=back, patience_s=patience_s)
        if drawn:
            self._stock = [sum(pair) for pair in zip(self._stock, drawn.taken, strict=True)]
            self._ready_at = self._now() + drawn.wait_s

    async def _send(
        self,
        needs: Sequence[Need],
        *,
        back: Sequence[float] = (0.0, 0.0),
        rest_s: float = 0.0,
        patience_s: float = math.inf,
    ) -> Drawn | None:
        """Draw as soon as whoever keeps the buckets answers; None where nobody needs that."""
        give_up_at = self._now() + _PATIENCE_S
        while True:
            asks = self._asks(needs, back=back)
            try:
                drawn = await self._rates.draw(asks, rest_s=rest_s, patience_s=patience_s)
                break
            except StoreError:
                if not any(need.is_limited for need in needs):
                    self._looked_at = self._now() + _REST_S
                    return None
                if self._now() >= give_up_at:
                    raise
            back = (0.0, 0.0)  # perhaps it has arrived
            await self._nap(1.0)
        self._looked_at = self._now()
        rests_s = min(drawn.rests_s, self._longest_rest_s)
        self._rests_until = max(self._rests_until, self._looked_at + rests_s)
        return drawn

    def _asks(self, needs: Sequence[Need], *, back: Sequence[float]) -> list[Ask]:
        asks = []
        for name, need, unused in zip(self._names, needs, back, strict=True):
            per_minute = need.per_minute if need.is_limited else 0.0
            ahead = need.ahead if need.amount else 0.0
            asks.append(Ask(name, per_minute, need.size, need.amount, ahead, unused, need.left))
        return asks


_MOST = 1e15
"""Stands for infinity."""
_SCRIPT = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
-- a server that was started without its memory does not know what was drawn before
local uptime = string.match(redis.call('INFO', 'server'), 'uptime_in_seconds:(%d+)')
local started = now - tonumber(uptime)
local rest, patience, wait, told, buckets = tonumber(ARGV[1]), tonumber(ARGV[2]), 0, {}, {}
for i, key in ipairs(KEYS) do
  local a = {}
  for j = 1, 6 do a[j] = tonumber(ARGV[2 + (i - 1) * 6 + j]) end
  local per_minute, size, need, ahead, back, most = unpack(a)
  local kept = redis.call('HMGET', key, 'level', 'at', 'rests_until')
  local level, at = tonumber(kept[1] or '0'), tonumber(kept[2] or '0')
  if at < started - 2 then level, at = 0, started end  -- uptime is told in whole seconds
  if per_minute > 0 then
    level = math.min(level + math.max(0, now - at) * per_minute / 60 + back, size, most)
    at = now
    wait = math.max(wait, (math.min(need, size) - level) * 60 / per_minute)
  end
  buckets[i] = {per_minute, size, need, ahead, level, at, tonumber(kept[3] or '0')}
end
local until_ = buckets[1][7]
if rest > 0 then until_ = math.max(until_, now + rest) end
for i, key in ipairs(KEYS) do
  local per_minute, size, need, ahead, level, at, rests = unpack(buckets[i])
  local taken = 0
  if i == 1 then rests = until_ end
  if per_minute > 0 and wait <= patience then
    need = math.min(need, size)
    taken = need + math.max(0, math.min(ahead, level - need))
  end
  if per_minute > 0 or rest > 0 then
    redis.call('HSET', key, 'level', string.format('%.17g', level - taken),
      'at', string.format('%.17g', at), 'rests_until', string.format('%.17g', rests))
    redis.call('EXPIRE', key, math.ceil(120 + wait + math.max(0, rests - now)))
  end
  told[i] = string.format('%.17g', taken)
end
told[#told + 1] = string.format('%.17g', wait)
told[#told + 1] = string.format('%.17g', math.max(0, until_ - now))
return told
"""
