"""Items are computed together, each gets its own result, and only so much may wait."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from workbench.serving.batching import Batcher, Batches
from workbench.serving.refusal import Overloaded

SIZES = Batches(texts=4, seconds=10.0, wait_s=0.05, queue_s=1.0)


class Doubles:
    """Doubles numbers while its gate is open; refuses 13."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate, self.begun = threading.Event(), threading.Event()
        self.gate.set()

    def __call__(self, values: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(values))
        self.begun.set()
        assert self.gate.wait(30)
        if 666 in values:
            raise RuntimeError("all of it")
        return [ValueError("13") if value == 13 else 2 * value for value in values]

    async def held(self, batcher: Batcher[int, int], value: int = 0) -> asyncio.Task[list[int]]:
        """Give a task whose item is being computed and will be until the gate opens."""
        self.gate.clear()
        self.begun.clear()
        task = asyncio.create_task(batcher.submit([value], [1.0]))
        await asyncio.to_thread(self.begun.wait, 30)
        return task


def run(check, sizes: Batches = SIZES, **options) -> None:
    async def whole() -> None:
        double = Doubles()
        batcher = Batcher[int, int](double, sizes, cost=lambda _: 1.0, **options)
        batcher.start()
        try:
            await asyncio.wait_for(check(batcher, double), 30)
        finally:
            double.gate.set()
            await batcher.stop()

    asyncio.run(whole())


def test_nothing_waits_while_the_thread_is_idle() -> None:
    async def check(batcher, double) -> None:
        for value in range(3):  # an hour would be too long
            assert await batcher.submit([value], [1.0]) == [2 * value]
        assert double.batches == [[0], [1], [2]]

    run(check, Batches(texts=4, seconds=10.0, wait_s=3600, queue_s=1.0))


def test_what_comes_meanwhile_is_computed_together_in_order_and_at_most_so_many() -> None:
    async def check(batcher, double) -> None:
        first = await double.held(batcher)
        others = [asyncio.create_task(batcher.submit([n], [1.0])) for n in range(1, 7)]
        await asyncio.sleep(0)
        assert batcher.waiting == 6
        double.gate.set()
        assert await asyncio.gather(first, *others) == [[2 * n] for n in range(7)]
        assert double.batches == [[0], [1, 2, 3, 4], [5, 6]]

    run(check)


def test_a_batch_holds_only_so_much_work_but_one_item_always() -> None:
    async def check(batcher, double) -> None:
        first = await double.held(batcher)
        rest = asyncio.create_task(batcher.submit([1, 2, 3], [1.0, 1.0, 1.0]))
        await asyncio.sleep(0)
        double.gate.set()
        await asyncio.gather(first, rest)
        assert double.batches == [[0], [1], [2], [3]]

    run(check, Batches(texts=4, seconds=0.0, wait_s=0.05, queue_s=1.0))


def test_too_much_work_is_refused_with_the_time_until_there_is_room() -> None:
    async def check(batcher, double) -> None:
        first = await double.held(batcher)
        batcher.units_per_s = 10.0
        second = asyncio.create_task(batcher.submit([1, 2], [30.0, 25.0]))  # room for 10 units
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as refused:
            await batcher.submit([3], [1.0])
        assert refused.value.headers == {"Retry-After": "6"}
        assert batcher.waiting == 2
        double.gate.set()
        assert await asyncio.gather(first, second) == [[0], [2, 4]]
        assert batcher.waiting_s == 0
        assert await batcher.submit([3], [1.0]) == [6]

    run(check)


def test_who_left_is_not_computed() -> None:
    async def check(batcher, double) -> None:
        first = await double.held(batcher)
        gone = asyncio.create_task(batcher.submit([1], [1.0]))
        stays = asyncio.create_task(batcher.submit([2], [1.0]))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        double.gate.set()
        assert await asyncio.gather(first, stays) == [[0], [4]]
        assert double.batches == [[0], [2]]

    run(check)


def test_an_item_fails_alone_and_a_failed_batch_stops_nothing() -> None:
    async def check(batcher, double) -> None:
        first = await double.held(batcher)
        bad, good = (asyncio.create_task(batcher.submit([n], [1.0])) for n in (13, 1))
        await asyncio.sleep(0)
        double.gate.set()
        await first
        with pytest.raises(ValueError, match="13"):
            await bad
        assert await good == [2]
        with pytest.raises(RuntimeError):
            await batcher.submit([666], [1.0])
        assert await batcher.submit([4], [1.0]) == [8]

    run(check)


def test_the_rate_is_measured() -> None:
    def sleepy(values: Sequence[int]) -> list[int]:
        time.sleep(0.02 * len(values))
        return list(values)

    async def whole() -> None:
        batcher = Batcher[int, int](sleepy, SIZES, cost=lambda _: 5.0)
        await batcher.measure([1, 2])
        assert 50 < batcher.units_per_s <= 250
        await batcher.stop()

    asyncio.run(whole())


def test_spare_work_is_done_only_while_nothing_waits() -> None:
    order: list[str] = []
    left = [1, 2, 3]

    def spare() -> bool:
        order.append("spare")
        return bool(left) and bool(left.pop())

    async def check(batcher, double) -> None:
        assert await batcher.submit([1], [1.0]) == [2]
        while left:
            await asyncio.sleep(0.001)

    run(check, spare=spare)
    assert order.count("spare") >= 4


def test_stopped_it_refuses_what_waits() -> None:
    async def check(batcher, double) -> None:
        await double.held(batcher)
        waits = asyncio.create_task(batcher.submit([1], [1.0]))
        await asyncio.sleep(0)
        threading.Timer(0.05, double.gate.set).start()
        await batcher.stop()
        with pytest.raises(Overloaded) as refused:
            await waits
        assert refused.value.status_code == 503

    run(check)
