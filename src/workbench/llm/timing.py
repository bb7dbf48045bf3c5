"""Clocks and sleep of whatever waits: one place, so that tests need not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

__all__ = ["Timing"]

_NAP_S = 1.0
"""Sleepers look up this often, so that what another caller learned reaches them."""


class Timing(NamedTuple):
    """Clocks and sleep, replaced in tests."""

    clock: Callable[[], float] = time.time
    """Seconds since 1970."""
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def nap(self, wait_s: float) -> None:
        """Sleep for that long at most; the sleeper looks again whether it must go on waiting."""
        await self.sleep(min(max(wait_s, 0.001), _NAP_S))
