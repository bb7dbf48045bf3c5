"""When a publisher may be asked again: so many requests in any period, per key."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from workbench.core.settings import Secret
from workbench.llm.timing import Timing

__all__ = ["Pace"]


class Pace:
    """The keys of one service, taken in turn, none more often than allowed.

    ``llm.limits.KeyPool`` does not fit: its buckets refill, so that twice the limit may pass in
    one period, and NVD then refuses.

    Args:
        keys: One empty ``Secret`` where the service is asked without.
        rate: Requests in any period of so many seconds, per key.
        timing: Clocks and sleep.
    """

    def __init__(self, keys: Sequence[Secret], *, rate: tuple[int, float], timing: Timing) -> None:
        calls, self._per_s = rate
        self._timing = timing
        self._sent = {key: deque[float](maxlen=calls) for key in keys}
        self._rests_until = dict.fromkeys(keys, 0.0)
        self._queue = asyncio.Lock()

    async def acquire(self) -> Secret:
        """Wait until a request may be sent, and return the key to send it with."""
        async with self._queue:
            while True:
                now = self._timing.monotonic()
                key = min(self._sent, key=lambda one: max(self._free_at(one), now))
                wait_s = self._free_at(key) - now
                if wait_s <= 0:
                    break
                await self._timing.nap(wait_s)
            sent = self._sent.pop(key)
            sent.append(now)
            self._sent[key] = sent  # at the end of the round
            return key

    def rest(self, key: Secret, *, seconds: float) -> None:
        """Send nothing with that key for a while: the answer to a 403 or 429."""
        until = self._timing.monotonic() + seconds
        self._rests_until[key] = max(self._rests_until[key], until)

    def _free_at(self, key: Secret) -> float:
        sent = self._sent[key]
        full = sent[0] + self._per_s if len(sent) == sent.maxlen else 0.0
        return max(full, self._rests_until[key])
