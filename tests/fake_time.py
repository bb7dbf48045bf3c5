"""Time that passes only while somebody sleeps."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from workbench.llm.timing import Timing

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()


class FakeTime:
    """Time that passes only while somebody sleeps; sleepers wake in order of their time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0
        self.timing = Timing(
            clock=lambda: NOON + self.now, monotonic=lambda: self.now, sleep=self.sleep
        )

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        woken = asyncio.get_running_loop().create_future()
        self._count += 1
        self._sleepers.append((self.now + seconds, self._count, woken))
        await woken

    async def run(self, *tasks: asyncio.Task[object]) -> None:
        """Let time pass until the tasks are done."""
        for _ in range(1_000_000):
            for _ in range(8):
                await asyncio.sleep(0)
            if all(task.done() for task in tasks):
                return
            self._sleepers = sorted(one for one in self._sleepers if not one[2].done())
            if self._sleepers:
                at, _, woken = self._sleepers.pop(0)
                self.now = max(self.now, at)
                woken.set_result(None)
        raise AssertionError("nobody got on")
