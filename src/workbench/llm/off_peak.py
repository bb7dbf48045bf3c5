"""The hours of the day in which calls may start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from workbench.core.errors import ConfigError
from workbench.llm.limits import Timing

__all__ = ["OffPeak"]

_DAY_MIN = 24 * 60


@dataclass(frozen=True, kw_only=True)
class OffPeak:
    """A window of wall-clock time, every day."""

    text: str
    start: int
    """First open minute of the day."""
    end: int
    """First closed minute; before ``start`` where the window crosses midnight."""
    zone: ZoneInfo
    timing: Timing = field(default_factory=Timing)
    _queue: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False, compare=False)

    @classmethod
    def parse(cls, text: str, *, timing: Timing | None = None) -> OffPeak:
        """Return the window that e.g. ``22:00-06:00 Europe/Berlin`` says; UTC without a zone.

        Raises:
            ConfigError: If it is no such window.
        """
        hours, _, name = text.strip().partition(" ")
        try:
            start, end = (_minute(time.fromisoformat(part)) for part in hours.split("-"))
            zone = ZoneInfo(name.strip() or "UTC")
        except (ValueError, OSError, ZoneInfoNotFoundError):
            start = end = 0
        if start == end:
            raise ConfigError(
                f"off_peak is {text[:80]!r}; write two different times and an IANA time zone, e.g."
                " 22:00-06:00 Europe/Berlin (a zone this machine lacks: install tzdata)"
            )
        return cls(text=text.strip(), start=start, end=end, zone=zone, timing=timing or Timing())

    def seconds_until_open(self, now: float) -> float:
        """Return how long after ``now`` (seconds since 1970) calls may start; 0 within the window.

        Where the clock changes before, the opening comes that much earlier or later.
        """
        minute = _minute(datetime.fromtimestamp(now, self.zone))
        if (minute - self.start) % _DAY_MIN < (self.end - self.start) % _DAY_MIN:
            return 0.0
        return (self.start - minute) % _DAY_MIN * 60 - now % 60

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


def _minute(moment: time | datetime) -> int:
    return moment.hour * 60 + moment.minute
