"""When a target may be sent something: even rates, rests after a 429, quiet hours, retries."""

from __future__ import annotations

import asyncio
import random as _random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from workbench.core.errors import ConfigError, ModelError
from workbench.llm.limits import backoff_s
from workbench.llm.messages import Fault, FaultKind
from workbench.llm.off_peak import OffPeak
from workbench.llm.timing import Timing

__all__ = ["Pacer", "TargetError", "quiet_hours"]

T = TypeVar("T")


class TargetError(ModelError):
    """A target gave no usable answer; says whether, and when, asking again may help."""

    def __init__(
        self,
        message: str,
        *,
        kind: FaultKind = "invalid",
        is_retryable: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.fault = Fault(
            kind=kind, message=message, is_retryable=is_retryable, retry_after_s=retry_after_s
        )


class Pacer:
    """Lets calls to one target start, one after another.

    Args:
        name: Of the target, for what is told.
        requests_per_minute: Calls start this evenly, never in bursts; 0 for no limit.
        quiet: Hours in which nothing is sent, e.g. ``09:00-17:00 Europe/Berlin``; empty for none.
        max_attempts: At one call, >= 1.
        pause_cap_s: Longest wait before another attempt, whatever ``Retry-After`` says.
        timing: Clocks and sleep.
        tell: Called with a line when the quiet hours hold a call.
        random: Gives a fraction in [0, 1).
    """

    def __init__(
        self,
        name: str,
        *,
        requests_per_minute: float = 0,
        quiet: str = "",
        max_attempts: int = 3,
        pause_cap_s: float = 60.0,
        timing: Timing | None = None,
        tell: Callable[[str], None] = print,
        random: Callable[[], float] = _random.random,
    ) -> None:
        self._timing = timing or Timing()
        self._interval_s = 60 / requests_per_minute if requests_per_minute else 0.0
        self._window = quiet_hours(quiet, name=name, timing=self._timing) if quiet else None
        self._max_attempts = max_attempts
        self._pause_cap_s = pause_cap_s
        self._tell = tell
        self._random = random
        self._next = self._timing.monotonic()
        self._queue = asyncio.Lock()

    async def start(self) -> None:
        """Return when a call may be sent; first come, first served."""
        if not self._window and not self._interval_s and self._timing.monotonic() >= self._next:
            return
        async with self._queue:
            while True:
                if self._window:
                    await self._window.hold(self._tell)
                now = self._timing.monotonic()
                if now >= self._next:
                    break
                await self._timing.nap(self._next - now)
            self._next = max(self._next, now + self._interval_s)

    async def attempts(self, send: Callable[[], Awaitable[T]]) -> T:
        """Return what sending gives, tried again after faults that may pass.

        A rate limit rests the whole target, any other fault this call alone.

        Raises:
            TargetError: That of the last attempt.
        """
        for attempt in range(self._max_attempts):
            await self.start()
            try:
                return await send()
            except TargetError as error:
                fault = error.fault
                if not fault.is_retryable:
                    raise
                wait_s = backoff_s(attempt, fault, cap_s=self._pause_cap_s, random=self._random)
                if fault.kind == "rate_limit":
                    self._next = max(self._next, self._timing.monotonic() + wait_s)
                if attempt + 1 == self._max_attempts:
                    raise TargetError(f"{error} ({attempt + 1} attempts)") from error
                if fault.kind != "rate_limit":
                    await self._timing.sleep(wait_s)
        raise AssertionError("max_attempts is at least 1")


def quiet_hours(text: str, *, name: str, timing: Timing | None = None) -> OffPeak:
    """Return the hours outside the quiet ones.

    Raises:
        ConfigError: If the text says no such hours.
    """
    try:
        quiet = OffPeak.parse(text, timing=timing)
    except ConfigError:
        raise ConfigError(
            f"{name}: quiet is {text[:80]!r}; write two different times and an IANA time zone, e.g."
            " 09:00-17:00 Europe/Berlin (a zone this machine lacks: install tzdata)"
        ) from None
    label = f"{name}, quiet {quiet.text},"
    return replace(quiet, start=quiet.end, end=quiet.start, text=label)
