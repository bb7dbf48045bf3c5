"""Dynamic batching: what waits is computed together, by one thread, and only so much may wait."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from workbench.serving.refusal import Overloaded

__all__ = ["Batcher", "Batches"]

T = TypeVar("T")
R = TypeVar("R")
Out = TypeVar("Out")
_MEMORY = 0.2
"""Weight of the newest batch in the measured rate."""


@dataclass(frozen=True, kw_only=True)
class Batches:
    """How large batches are, and how long a queue."""

    texts: int
    seconds: float
    """Estimated work of one batch, unless one item alone is more."""
    wait_s: float
    """That a batch that follows another waits to become full."""
    queue_s: float
    """Estimated work that may wait."""


@dataclass(slots=True)
class _Item(Generic[T, R]):
    value: T
    units: float
    answer: asyncio.Future[R] = field(repr=False)


class Batcher(Generic[T, R]):
    """Gathers items into batches; of one event loop.

    No item waits while the thread is idle. While it works others gather; such a batch waits a
    moment more, if it is not full, for those who were just answered and ask again.

    Args:
        run: Computes a batch, in the batcher's thread; an exception among the results fails that
            item alone.
        batches: Sizes and limits.
        cost: Returns the work that an item turned out to be: rates are measured by it, since
            estimates can be led astray.
        spare: Called in the same thread while nothing waits, until it returns False.
        tell: Told the items and the seconds of every batch.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T]], Sequence[R | Exception]],
        batches: Batches,
        *,
        cost: Callable[[R], float],
        spare: Callable[[], bool] | None = None,
        tell: Callable[[int, float], None] = lambda _items, _seconds: None,
    ) -> None:
        self._run, self._batches, self._cost = run, batches, cost
        self._spare, self._tell = spare, tell
        self._queue: deque[_Item[T, R]] = deque()
        self._thread = ThreadPoolExecutor(1, "sanitizer")
        self._some, self._more = asyncio.Event(), asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._units = 0.0
        self.units_per_s = 1000.0

    @property
    def waiting(self) -> int:
        """How many items wait."""
        return len(self._queue)

    @property
    def waiting_s(self) -> float:
        """Estimated seconds of the work that waits, at the rate measured of late."""
        return self._units / self.units_per_s

    def refusal(self) -> Overloaded | None:
        """Return when to come again, if too much waits; None if there is room."""
        waiting_s, most_s = self.waiting_s, self._batches.queue_s
        if not self._queue or waiting_s < most_s:
            return None
        return Overloaded(waiting_s, f"{waiting_s:.1f} s of work wait, {most_s:g} s may")

    async def submit(self, items: Sequence[T], units: Sequence[float]) -> list[R]:
        """Return the results of items, in order.

        Args:
            items: What to compute.
            units: Estimated work of each, in any unit.

        Raises:
            Overloaded: If too much waits already; then none of them is taken.
        """
        if refused := self.refusal():
            raise refused
        loop = asyncio.get_running_loop()
        made = [
            _Item[T, R](item, own, loop.create_future())
            for item, own in zip(items, units, strict=True)
        ]
        self._queue.extend(made)
        self._units += sum(units)
        self._some.set()
        self._more.set()
        return await asyncio.gather(*(one.answer for one in made))

    async def measure(self, items: Sequence[T]) -> None:
        """Compute some items, and learn from them what a unit takes; before the first request."""
        started = time.perf_counter()
        results = await self._in_thread(lambda: self._run(items))
        self.units_per_s = self._rate(results, time.perf_counter() - started)

    def start(self) -> None:
        """Begin to work."""
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """End; what still waits is refused."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        while self._queue:
            answer = self._queue.popleft().answer
            if not answer.done():
                answer.set_exception(Overloaded(1, "the service ends", status=503))
        self._units = 0.0
        await asyncio.to_thread(self._thread.shutdown)

    async def _work(self) -> None:
        follows = False
        while True:
            self._some.clear()
            while not self._queue and self._spare and await self._in_thread(self._spare):
                pass
            if not self._queue:
                await self._some.wait()
            if follows:
                await self._gather()
            batch = self._take()
            if batch:
                await self._settle(batch)
            follows = bool(self._queue)

    async def _gather(self) -> None:
        """Wait until the next batch is full, or has waited long enough."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._batches.wait_s):
                while len(self._queue) < self._batches.texts:
                    self._more.clear()
                    await self._more.wait()

    def _take(self) -> list[_Item[T, R]]:
        """Return the next batch; whoever no longer waits for an answer is left out."""
        batch: list[_Item[T, R]] = []
        room = self._batches.seconds * self.units_per_s
        while self._queue and len(batch) < self._batches.texts:
            first = self._queue[0]
            if batch and first.units > room and not first.answer.done():
                break
            self._queue.popleft()
            self._units = max(self._units - first.units, 0.0) if self._queue else 0.0
            if not first.answer.done():
                batch.append(first)
                room -= first.units
        return batch

    async def _settle(self, batch: list[_Item[T, R]]) -> None:
        started = time.perf_counter()
        values = [one.value for one in batch]
        results: Sequence[R | Exception]
        try:
            results = await self._in_thread(lambda: self._run(values))
        except Exception as error:  # noqa: BLE001 - it belongs to whoever waits
            results = [error] * len(batch)
        seconds = time.perf_counter() - started
        self.units_per_s += _MEMORY * (self._rate(results, seconds) - self.units_per_s)
        self._tell(len(batch), seconds)
        for one, result in zip(batch, results, strict=True):
            if one.answer.done():
                continue
            if isinstance(result, Exception):
                one.answer.set_exception(result)
            else:
                one.answer.set_result(result)

    def _rate(self, results: Sequence[R | Exception], seconds: float) -> float:
        """Return the units per second of a batch; the present rate where nothing succeeded."""
        units = sum(self._cost(one) for one in results if not isinstance(one, Exception))
        return units / max(seconds, 1e-6) if units else self.units_per_s

    async def _in_thread(self, call: Callable[[], Out]) -> Out:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)
