"""The hours of the day in which calls may start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta

from workbench.core.off_peak import Window
from workbench.llm.timing import Timing

__all__ = ["OffPeak"]


@dataclass(frozen=True, kw_only=True)
class OffPeak(Window):
    """A window of wall-clock time, every day, that callers wait for."""

    timing: Timing = field(default_factory=Timing)
    _queue: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False, compare=False)

    @classmethod
    def parse(cls, text: str, *, timing: Timing | None = None) -> OffPeak:
        """Return the window that a text says; raises as ``Window.read``."""
        return replace(cls.read(text), timing=timing or Timing())

    async def hold(self, tell: Callable[[str], None]) -> None:
        """Wait until calls may start; of those who wait together, the first one tells why."""
        if not self.seconds_until_open(self.timing.clock()):
            return
        async with self._queue:
            is_told = False
            while wait_s := self.seconds_until_open(self.timing.clock()):
                if not is_told:
                    tell(f"held for {timedelta(seconds=round(wait_s))} until {self.text} opens")
                is_told = True
                await self.timing.nap(wait_s)
