"""When a call may start: rates per key and model, a breaker per model, pauses after faults."""

from __future__ import annotations

import asyncio
import hashlib
import math
import random as _random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from workbench.core.errors import ConfigError, ModelError
from workbench.core.settings import Secret
from workbench.llm.messages import Fault
from workbench.llm.shared_limits import ROUNDING, Need, Share, SharedRates
from workbench.llm.timing import Timing

if TYPE_CHECKING:
    from workbench.llm.config import Rates

__all__ = ["Breaker", "KeyPool", "backoff_s", "fingerprint"]

_UNHEALTHY = frozenset({"overloaded", "unavailable", "timeout", "dropped", "malformed"})
_RESTS = 3

_ANTHROPIC = "anthropic-ratelimit-"
_REQUEST_HEADERS = (_ANTHROPIC + "requests-{}", "x-ratelimit-{}-requests")
_TOKEN_HEADERS = (_ANTHROPIC + "input-tokens-{}", _ANTHROPIC + "tokens-{}", "x-ratelimit-{}-tokens")
_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?")


_REAL = Timing()


def fingerprint(key: Secret) -> str:
    """Return the first 12 hex digits of a key's sha256: its name in logs and in the store."""
    return hashlib.sha256(key.reveal().encode()).hexdigest()[:12]


def backoff_s(
    attempt: int, fault: Fault, *, cap_s: float, random: Callable[[], float] = _random.random
) -> float:
    """Return how long to wait before trying again, in seconds, never above ``cap_s``.

    Exponential with full jitter, 0.5·2ⁿ s but at most 8 s, after what the service asks for.

    Args:
        attempt: How many attempts failed before this one, >= 0.
        fault: Why this one failed.
        cap_s: Longest wait.
        random: Gives a fraction in [0, 1).
    """
    wait_s = random() * min(0.5 * 2.0 ** min(attempt, 4), 8.0)
    asked_s = fault.retry_after_s
    if asked_s is not None and asked_s > 0:  # not NaN
        wait_s += asked_s
    return min(wait_s, cap_s)


class _Bucket:
    """What may still be spent of a limit per minute; it refills steadily."""

    __slots__ = ("_at", "_configured", "_left", "_limit")

    def __init__(self, per_minute: float, *, now: float) -> None:
        self._configured = self._limit = per_minute or math.inf
        self._left = self._size
        self._at = now

    @property
    def _size(self) -> float:
        return max(self._limit, 1.0)

    def need(self, amount: float, *, now: float) -> Need:
        """Return a need of it, with what this process knows of limit and rest."""
        self._refill(now)
        return Need(amount, self._limit, self._left)

    def wait_s(self, need: float, *, now: float) -> float:
        self._refill(now)
        missing = min(need, self._size) - self._left
        return missing * 60 / self._limit if missing > ROUNDING else 0.0

    def _refill(self, now: float) -> None:
        if self._limit < math.inf:
            self._left = min(self._size, self._left + (now - self._at) * self._limit / 60)
        self._at = now

    def take(self, need: float) -> None:
        self._left = max(0.0, self._left - need)

    def give_back(self, unused: float) -> None:
        self._left = min(self._size, self._left + max(0.0, unused))

    def learn(self, limit: float | None, remaining: float | None, *, now: float) -> None:
        """Correct the bucket by what the service said; None where it said nothing usable."""
        self._refill(now)
        if limit is not None and limit >= 1:
            self._limit = min(limit, self._configured)
        if remaining is not None:
            self._left = min(self._left, remaining)


class _Limiter:
    """What one key may send to one model: requests and prompt tokens per minute, and its rests."""

    __slots__ = ("_requests", "_rests_until", "_tokens", "share")

    def __init__(self, rates: Rates, *, share: Share | None, now: float) -> None:
        self.share = share
        self._requests = _Bucket(rates.requests_per_minute, now=now)
        self._tokens = _Bucket(rates.tokens_per_minute, now=now)
        self._rests_until = now

    def wait_s(self, tokens: float, *, now: float) -> float:
        """Return in how many seconds a request of that size may be sent; 0 for at once.

        A request larger than the whole bucket waits until it is full, and empties it.
        """
        wait_s = max(self._requests.wait_s(1, now=now), self._tokens.wait_s(tokens, now=now))
        wait_s = max(wait_s, self._rests_until - now)
        return max(wait_s, self.share.wait_s(now=now)) if self.share else wait_s

    def needs(self, tokens: float, *, now: float) -> tuple[Need, Need]:
        """Return what a request of that size takes of both limits."""
        return self._requests.need(1, now=now), self._tokens.need(tokens, now=now)

    def take(self, tokens: float, *, now: float) -> None:
        """Count a request that is sent now."""
        if self.share:
            self.share.take(self.needs(tokens, now=now))
        self._requests.take(1)
        self._tokens.take(tokens)

    def rest(self, until: float) -> None:
        """Send nothing until then, on the monotonic clock."""
        self._rests_until = max(self._rests_until, until)

    def observe(self, headers: Mapping[str, str], *, unused_tokens: float, now: float) -> None:
        """Learn from a response's headers; what makes no sense in them is ignored."""
        self._tokens.give_back(unused_tokens)
        if self.share:
            self.share.give_back(unused_tokens)
        self._requests.learn(*_read(headers, _REQUEST_HEADERS), now=now)
        self._tokens.learn(*_read(headers, _TOKEN_HEADERS), now=now)


class KeyPool:
    """The keys of one service. Of several keys the one that is free soonest sends next."""

    def __init__(
        self,
        keys: Sequence[Secret],
        *,
        variable: str,
        rates: Rates,
        shared: SharedRates | None = None,
        timing: Timing = _REAL,
    ) -> None:
        """Take keys into the pool; the same key twice counts once.

        Args:
            keys: For services without keys, one empty ``Secret``.
            variable: Environment variable that the keys come from, for messages.
            rates: Configured limits; 0 is learned from response headers.
            shared: Where all processes with these keys keep to one rate; None if this is the only
                one.
            timing: Clocks and sleep.
        """
        self._keys = {fingerprint(key): key for key in keys}
        self._refused: set[tuple[str, str]] = set()
        self._variable = variable
        self._rates = rates
        self._shared = shared
        self._timing = timing
        self._telling: set[asyncio.Task[None]] = set()
        self._limiters: dict[tuple[str, str], _Limiter] = {}
        self._queues: dict[str, asyncio.Lock] = {}

    @property
    def keys(self) -> Mapping[str, Secret]:
        """Fingerprint → key, of those in use, longest unused first."""
        return self._keys

    async def acquire(self, model: str, *, tokens: float) -> Secret:
        """Wait until a request may be sent, and return the key to send it with.

        First come, first served per model. A caller that is cancelled while it waits has taken
        nothing.

        Args:
            model: Name of the model.
            tokens: Prompt tokens of the request, as estimated.

        Raises:
            ConfigError: If there is no key, or the service has refused every one.
            ModelError: If the service has refused that model to every key.
            StoreError: If whoever keeps the shared rates does not answer.
        """
        queue = self._queues.setdefault(model, asyncio.Lock())
        async with queue:  # an asyncio.Lock wakes in order
            while True:
                wait_s, name = self._soonest(model, tokens)
                if wait_s > 0:
                    await self._timing.nap(wait_s)
                elif not self._shared or await self._ask(name, model, tokens) <= 0:
                    break
            self._limiter(name, model).take(tokens, now=self._timing.monotonic())
            self._keys[name] = key = self._keys.pop(name)  # to the end of the round
            return key

    def observe(
        self, key: Secret, *, model: str, headers: Mapping[str, str], unused_tokens: float = 0
    ) -> None:
        """Learn from a response; ``unused_tokens`` were estimated for it but not needed."""
        limiter = self._limiter(fingerprint(key), model)
        limiter.observe(headers, unused_tokens=unused_tokens, now=self._timing.monotonic())

    def rest(self, key: Secret, *, model: str, seconds: float) -> None:
        """Send nothing to that model with that key for a while: the answer to a 429."""
        limiter = self._limiter(fingerprint(key), model)
        limiter.rest(self._timing.monotonic() + seconds)
        if limiter.share:
            task = asyncio.create_task(limiter.share.rest(seconds))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def close(self) -> None:
        """Give what was drawn ahead, and not used, to the other processes."""
        if self._telling:
            await asyncio.wait(self._telling)
        for limiter in self._limiters.values():
            if limiter.share:
                await limiter.share.close()

    def retire(self, key: Secret, *, model: str | None = None) -> None:
        """Use a key no more, the answer to a 401 or 402; for one model only, to a 403."""
        if model is None:
            self._keys.pop(fingerprint(key), None)
        else:
            self._refused.add((fingerprint(key), model))

    def may_serve(self, model: str) -> bool:
        """Return whether a key is left that the service has not refused for that model."""
        return any((name, model) not in self._refused for name in self._keys)

    async def _ask(self, name: str, model: str, tokens: float) -> float:
        """Return in how many seconds a key that this process may use may be used of all.

        A place is reserved, unless another key is free before.
        """
        now = self._timing.monotonic()
        waits = (
            self._limiter(other, model).wait_s(tokens, now=now)
            for other in self._keys
            if other != name and (other, model) not in self._refused
        )
        limiter = self._limiter(name, model)
        assert limiter.share
        needs = limiter.needs(tokens, now=now)
        return await limiter.share.ask(needs, patience_s=min(waits, default=math.inf))

    def _soonest(self, model: str, tokens: float) -> tuple[float, str]:
        now = self._timing.monotonic()
        best = (math.inf, "")
        for name in self._keys:
            if (name, model) in self._refused:
                continue
            wait_s = self._limiter(name, model).wait_s(tokens, now=now)
            if wait_s < best[0]:
                best = (wait_s, name)
            if wait_s <= 0:
                break
        if best[1]:
            return best
        if self._keys:
            raise ModelError(
                f"the service refuses {model} with {self._variable}; get access to it, or name"
                " another model under llm: models:"
            )
        raise ConfigError(
            f"no usable key for model calls: {self._variable} is empty or the service refused"
            " every key in it; set it to a valid key"
        )

    def _limiter(self, name: str, model: str) -> _Limiter:
        found = self._limiters.get((name, model))
        if found is None:
            share = Share(
                self._shared, key=name, model=model, timing=self._timing,
                longest_rest_s=self._rates.retry_after_cap_s,
            ) if self._shared else None  # fmt: skip
            found = _Limiter(self._rates, share=share, now=self._timing.monotonic())
            self._limiters[name, model] = found
        return found


class Breaker:
    """Spares a model's service that keeps failing: rests, then lets one call at a time try.

    Faults that say nothing about its health (rate limits, refused keys, bad requests) don't count,
    but a try that ends in one reached a service that works again.
    """

    def __init__(self, model: str, *, rates: Rates, timing: Timing = _REAL) -> None:
        self._model = model
        self._rates = rates
        self._timing = timing
        self._queue = asyncio.Lock()
        self._faults = self._rests = 0
        self._failing_since = self._rests_until = 0.0
        self._is_tried = False
        self._last = ""

    async def wait(self) -> None:
        """Return when a call may be sent.

        Raises:
            ModelError: If the service failed again after each of several rests in a row. One call
                may try again each time another rest is over.
        """
        if not self._rests:
            return
        async with self._queue:
            while self._rests and (wait_s := self._rests_until - self._timing.monotonic()) > 0:
                if self._rests > _RESTS:
                    since_s = self._timing.monotonic() - self._failing_since
                    raise ModelError(
                        f"the service of {self._model} has failed for {since_s:.0f} s"
                        f" ({self._faults} faults in a row, the last: {self._last}); what is done"
                        " is kept, start again later to go on"
                    )
                await self._timing.nap(wait_s)
            if self._rests:  # a caller that vanishes after this blocks the next one for one rest
                self._is_tried = True
                self._rests_until = self._timing.monotonic() + self._rates.breaker_rest_s

    def record(self, fault: Fault | None) -> None:
        """Count how a call ended; None for well."""
        if fault and fault.kind in _UNHEALTHY:
            self._count(fault)
        elif fault is None or self._is_tried:
            self._faults = self._rests = 0
            self._is_tried = False

    def _count(self, fault: Fault) -> None:
        now = self._timing.monotonic()
        if not self._faults:
            self._failing_since = now
        self._faults += 1
        self._last = f"{fault.kind} {fault.status or ''}".strip()
        opens = self._faults >= self._rates.breaker_failures and not self._rests
        if opens or self._is_tried:
            self._rests += 1
            self._is_tried = False
            self._rests_until = now + self._rates.breaker_rest_s


def _read(headers: Mapping[str, str], names: Sequence[str]) -> tuple[float | None, float | None]:
    """Return limit and remaining, as the first family of headers says that says anything."""
    for name in names:
        limit = _number(headers.get(name.format("limit"), ""))
        remaining = _number(headers.get(name.format("remaining"), ""))
        if limit is not None or remaining is not None:
            return limit, remaining
    return None, None


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) else None
