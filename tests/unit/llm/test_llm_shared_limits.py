from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fake_time import FakeTime
from workbench.core.errors import StoreError
from workbench.core.settings import Secret
from workbench.llm.config import Rates
from workbench.llm.limits import KeyPool
from workbench.llm.shared_limits import AHEAD_S
from workbench.store.rates import Ask, Drawn, Row, settle


class Kept:
    """Buckets in memory that several pools share, as processes share those in a store."""

    service = "some service"

    def __init__(self, fake: FakeTime) -> None:
        self.fake = fake
        self.rows: dict[str, Row] = {}
        self.draws = 0
        self.away_until = -1.0

    async def draw(self, asks: Sequence[Ask], *, rest_s: float, patience_s: float) -> Drawn:
        self.draws += 1
        await asyncio.sleep(0)
        if self.fake.now < self.away_until:
            raise StoreError("away")
        rows = [self.rows.get(ask.name, Row(0, 0, 0)) for ask in asks]
        now = 1e9 + self.fake.now
        rows, drawn = settle(asks, rows, now=now, rest_s=rest_s, patience_s=patience_s)
        self.rows |= {ask.name: row for ask, row in zip(asks, rows, strict=True)}
        return drawn


def pools(kept: Kept, count: int, *keys: str, rpm: float = 0, tpm: float = 0) -> list[KeyPool]:
    rates = Rates(requests_per_minute=rpm, tokens_per_minute=tpm)
    secrets = [Secret(key) for key in keys or ("sk-one",)]
    return [
        KeyPool(secrets, variable="K", rates=rates, shared=kept, timing=kept.fake.timing)
        for _ in range(count)
    ]


def times_of(fake: FakeTime, work: list[tuple[KeyPool, float]]) -> list[tuple[float, float]]:
    """Acquire all at the same time; give (when, size) in order of being served."""
    served: list[tuple[float, float]] = []

    async def one(keys: KeyPool, size: float) -> None:
        await keys.acquire("m", tokens=size)
        served.append((fake.now, size))

    async def main() -> None:
        await fake.run(*[asyncio.create_task(one(keys, size)) for keys, size in work])

    asyncio.run(main())
    return served


@given(
    sizes=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 900)), min_size=1, max_size=40),
    rpm=st.sampled_from([0, 0.5, 3, 60, 600]),
    tpm=st.sampled_from([0, 500, 6_000, 60_000]),
)
@settings(max_examples=60)
def test_all_processes_together_send_no_more_than_one_may(
    sizes: list[tuple[int, int]], rpm: float, tpm: float
) -> None:
    fake = FakeTime()
    several = pools(Kept(fake), 4, rpm=rpm, tpm=tpm)
    served = times_of(fake, [(several[which], float(size)) for which, size in sizes])
    assert len(served) == len(sizes)
    # a permit that waits for the other limit was taken from its own bucket before
    early = len(several) if rpm and tpm else 0
    for first in range(len(served)):
        for last in range(first, len(served)):
            minutes = (served[last][0] - served[first][0]) / 60
            some = served[first : last + 1]
            if rpm:
                assert len(some) <= max(1, rpm) + rpm * minutes + early + 1e-3
            if tpm:
                # a request larger than the bucket empties it
                spent = sum(min(size, tpm - tpm * AHEAD_S // 60) for _, size in some)
                assert spent <= tpm * (1 + minutes) + 1e-3


def test_the_rate_is_used_to_the_full_whoever_sends() -> None:
    fake = FakeTime()
    first, second, _ = pools(Kept(fake), 3, rpm=600)
    served = times_of(fake, [(first, 0.0)] * 600 + [(second, 0.0)] * 300)
    assert served[-1][0] == pytest.approx(30, abs=1)


def test_a_large_request_is_served_in_its_turn() -> None:
    fake = FakeTime()
    small, large = pools(Kept(fake), 2, tpm=600)
    served = times_of(fake, [(small, 50.0)] * 40 + [(large, 500.0)])
    assert [when for when, size in served if size == 500] == [pytest.approx(0, abs=60)]
    assert served[-1][0] == pytest.approx((40 * 50 + 500 - 600) / 10, abs=2)


def test_a_rest_is_known_to_all_processes_before_long() -> None:
    async def main() -> None:
        kept = Kept(fake := FakeTime())
        first, second = pools(kept, 2)
        key = await first.acquire("m", tokens=1)
        await second.acquire("m", tokens=1)
        first.rest(key, model="m", seconds=20)
        await asyncio.sleep(0.01)
        fake.now += AHEAD_S + 0.01
        await second.acquire("other", tokens=1)
        await fake.run(task := asyncio.create_task(second.acquire("m", tokens=1)))
        assert task.done()
        assert fake.now == pytest.approx(20, abs=0.1)
        await first.close()

    asyncio.run(main())


def test_an_absurd_rest_that_others_tell_of_counts_up_to_the_cap() -> None:
    async def main() -> None:
        kept = Kept(fake := FakeTime())
        first, second = pools(kept, 2)
        first.rest(await first.acquire("m", tokens=1), model="m", seconds=1e9)
        await asyncio.sleep(0.01)
        asked = asyncio.create_task(second.acquire("m", tokens=1))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not asked.done()
        assert second._limiters[next(iter(second.keys)), "m"].wait_s(1, now=fake.now) <= 60
        asked.cancel()

    asyncio.run(main())


def test_who_gives_up_leaves_what_was_drawn_to_the_next() -> None:
    async def main() -> None:
        kept = Kept(fake := FakeTime())
        (keys,) = pools(kept, 1, rpm=1)
        await keys.acquire("m", tokens=0)
        for cancelled_after in (1, 2, 5, 9):
            waiting = asyncio.create_task(keys.acquire("m", tokens=0))
            for _ in range(cancelled_after):
                await asyncio.sleep(0)
            waiting.cancel()
        await fake.run(task := asyncio.create_task(keys.acquire("m", tokens=0)))
        assert task.done()
        assert fake.now == pytest.approx(60, abs=0.1)

    asyncio.run(main())


def test_what_was_drawn_and_not_used_goes_back() -> None:
    async def main() -> None:
        kept = Kept(fake := FakeTime())
        first, second = pools(kept, 2, rpm=6_000)
        for _ in range(3):
            await first.acquire("m", tokens=0)
        assert min(row.level for row in kept.rows.values() if row.at) == 6_000 - 50 - 51
        await first.close()
        assert min(row.level for row in kept.rows.values() if row.at) == 6_000 - 50 - 3
        assert fake.now == 0
        await second.close()  # has nothing

    asyncio.run(main())


def test_unused_tokens_of_a_request_serve_the_next_of_any_process() -> None:
    async def main() -> None:
        kept = Kept(fake := FakeTime())
        first, second = pools(kept, 2, tpm=600)
        key = await first.acquire("m", tokens=590)
        first.observe(key, model="m", headers={}, unused_tokens=500)
        await first.close()
        await second.acquire("m", tokens=490)
        assert fake.now == 0

    asyncio.run(main())


def test_what_headers_say_to_one_process_holds_for_all() -> None:
    async def main() -> None:
        kept = Kept(fake := FakeTime())
        first, second = pools(kept, 2, rpm=600)
        key = await first.acquire("m", tokens=0)
        said = {"x-ratelimit-limit-requests": "600", "x-ratelimit-remaining-requests": "0"}
        first.observe(key, model="m", headers=said)
        fake.now += 1
        await first.acquire("m", tokens=0)
        for _ in range(20):
            await fake.run(asyncio.create_task(second.acquire("m", tokens=0)))
        assert fake.now > 1.5

    asyncio.run(main())


def test_of_two_keys_the_one_that_others_left_is_used() -> None:
    async def main() -> None:
        kept = Kept(fake := FakeTime())
        (other,) = pools(kept, 1, "a", rpm=2)
        (keys,) = pools(kept, 1, "a", "b", rpm=2)
        for _ in range(2):
            await other.acquire("m", tokens=0)
        assert [(await keys.acquire("m", tokens=0)).reveal() for _ in range(2)] == ["b", "b"]
        assert fake.now == 0
        await fake.run(task := asyncio.create_task(keys.acquire("m", tokens=0)))
        assert task.done()
        assert fake.now == pytest.approx(30, abs=0.1)

    asyncio.run(main())


def test_keepers_that_are_away_are_waited_for_where_there_is_a_limit() -> None:
    async def main() -> None:
        kept = Kept(fake := FakeTime())
        limited, *_ = pools(kept, 1, rpm=60)
        unlimited, *_ = pools(kept, 1)
        kept.away_until = 30
        await unlimited.acquire("m", tokens=1)
        assert fake.now == 0
        await fake.run(task := asyncio.create_task(limited.acquire("m", tokens=1)))
        assert task.done()
        assert fake.now == pytest.approx(30, abs=1)
        kept.away_until = 1_000
        fake.now = 100
        await fake.run(task := asyncio.create_task(limited.acquire("m", tokens=1)))
        with pytest.raises(StoreError):
            task.result()
        assert fake.now == pytest.approx(160, abs=2)

    asyncio.run(main())


@pytest.mark.parametrize(("rpm", "most"), [(0, 1), (60_000, 3)])
def test_a_busy_process_asks_the_others_seldom(rpm: float, most: int) -> None:
    async def main() -> None:
        kept = Kept(FakeTime())
        (keys,) = pools(kept, 1, rpm=rpm)
        for _ in range(1_000):
            await keys.acquire("m", tokens=100)
        assert kept.draws <= most

    asyncio.run(main())


def test_names_of_buckets_hold_no_key() -> None:
    async def main() -> None:
        kept = Kept(FakeTime())
        (keys,) = pools(kept, 1, "sk-secret", rpm=5)
        await keys.acquire("a model\nwith a name" * 100, tokens=1)
        assert all(len(name) <= 200 and name.isprintable() for name in kept.rows)
        assert "secret" not in repr(kept.rows)

    asyncio.run(main())
