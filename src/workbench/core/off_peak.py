"""A window of wall-clock time, every day: when what can wait may start."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, time
from typing import Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from workbench.core.errors import ConfigError

__all__ = ["Window"]

_DAY_MIN = 24 * 60
_HOURS = re.compile(r"[0-9]{2}:[0-9]{2}-[0-9]{2}:[0-9]{2}")


@dataclass(frozen=True, kw_only=True)
class Window:
    """From one minute of the day to another, in a time zone."""

    text: str
    start: int
    """First open minute of the day."""
    end: int
    """First closed minute; before ``start`` where the window crosses midnight."""
    zone: ZoneInfo

    @classmethod
    def read(cls, text: str, *, name: str = "off_peak") -> Self:
        """Return the window that e.g. ``22:00-06:00 Europe/Berlin`` says; UTC without a zone.

        Hours are HH:MM; a zone has a name, which knows when clocks change, never an offset.

        Args:
            text: What was written.
            name: Of the setting, for the message.

        Raises:
            ConfigError: If it is no such window.
        """
        hours, _, zone_name = text.strip().partition(" ")
        # times of ISO 8601 may have offsets and seconds, which would be lost
        parts = hours.split("-") if _HOURS.fullmatch(hours) else []
        try:
            start, end = (_minute(time.fromisoformat(part)) for part in parts)
            zone = ZoneInfo(zone_name.strip() or "UTC")
        except (ValueError, OSError, ZoneInfoNotFoundError):
            start = end = 0
        if start == end:
            raise ConfigError(
                f"{name} is {text[:80]!r}; write two different times, HH:MM, and an IANA time"
                " zone, no offset, e.g. 22:00-06:00 Europe/Berlin (a zone this machine lacks:"
                " install tzdata)"
            )
        return cls(text=text.strip(), start=start, end=end, zone=zone)

    def seconds_until_open(self, now: float) -> float:
        """Return how long after ``now`` (seconds since 1970) it opens; 0 within the window.

        Where the clock changes before, the opening comes that much earlier or later.
        """
        minute = _minute(datetime.fromtimestamp(now, self.zone))
        if (minute - self.start) % _DAY_MIN < (self.end - self.start) % _DAY_MIN:
            return 0.0
        return (self.start - minute) % _DAY_MIN * 60 - now % 60


def _minute(moment: time | datetime) -> int:
    return moment.hour * 60 + moment.minute
