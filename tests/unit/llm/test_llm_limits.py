from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fake_time import NOON, FakeTime
from workbench.core.errors import ConfigError, ModelError
from workbench.core.settings import Secret
from workbench.llm.config import Rates
from workbench.llm.limits import Breaker, KeyPool, backoff_s, fingerprint
from workbench.llm.messages import Fault, FaultKind
from workbench.llm.off_peak import OffPeak

DOWN = Fault(kind="overloaded", message="busy", status=529)


def pool(fake: FakeTime, *keys: str, rpm: float = 0, tpm: float = 0) -> KeyPool:
    rates = Rates(requests_per_minute=rpm, tokens_per_minute=tpm)
    secrets = [Secret(key) for key in keys or ("sk-one",)]
    return KeyPool(secrets, variable="SOME_API_KEY", rates=rates, timing=fake.timing)


def times_of(fake: FakeTime, keys: KeyPool, sizes: list[float]) -> list[tuple[float, int]]:
    """Acquire once per size, all at the same time; give (when, which) in order of being served."""
    served: list[tuple[float, int]] = []

    async def one(index: int, size: float) -> None:
        await keys.acquire("m", tokens=size)
        served.append((fake.now, index))

    async def main() -> None:
        tasks = [asyncio.create_task(one(i, size)) for i, size in enumerate(sizes)]
        await fake.run(*tasks)

    asyncio.run(main())
    return served


# ---- rates


@given(
    sizes=st.lists(st.integers(0, 900), min_size=1, max_size=40),
    rpm=st.sampled_from([0, 0.5, 3, 60]),
    tpm=st.sampled_from([0, 500, 6_000]),
)
def test_no_window_of_time_gets_more_than_its_limits_and_order_is_kept(
    sizes: list[int], rpm: float, tpm: float
) -> None:
    served = times_of(fake := FakeTime(), pool(fake, rpm=rpm, tpm=tpm), [float(s) for s in sizes])
    assert [index for _, index in served] == list(range(len(sizes)))
    for first in range(len(served)):
        for last in range(first, len(served)):
            minutes = (served[last][0] - served[first][0]) / 60
            count = last - first + 1
            # what a token bucket promises: at most its capacity plus what refills meanwhile
            if rpm:
                assert count <= max(1, rpm) + rpm * minutes + 1e-3
            spent = sum(min(sizes[index], tpm) for _, index in served[first : last + 1])
            if tpm:
                assert spent <= tpm + tpm * minutes + 1e-3


def test_waits_no_longer_than_the_rate_asks_for() -> None:
    served = times_of(fake := FakeTime(), pool(fake, rpm=60), [0.0] * 90)
    assert served[59][0] == 0
    assert served[-1][0] == pytest.approx(30, abs=0.1)


def test_a_request_larger_than_the_bucket_goes_alone_when_it_is_full() -> None:
    served = times_of(fake := FakeTime(), pool(fake, tpm=600), [100, 5_000, 100])
    assert served[0][0] == 0
    assert served[1][0] == pytest.approx(10, abs=0.1)
    assert served[2][0] == pytest.approx(20, abs=0.1)


def test_models_do_not_wait_for_each_other() -> None:
    async def main() -> None:
        keys = pool(fake := FakeTime(), rpm=1)
        await keys.acquire("slow", tokens=1)
        stuck = asyncio.create_task(keys.acquire("slow", tokens=1))
        await asyncio.sleep(0)
        await keys.acquire("other", tokens=1)
        assert not stuck.done()
        await fake.run(stuck)
        assert fake.now == pytest.approx(60, abs=0.1)

    asyncio.run(main())


def test_a_cancelled_waiter_takes_nothing_and_blocks_nobody() -> None:
    async def main() -> None:
        keys = pool(fake := FakeTime(), rpm=1)
        await keys.acquire("m", tokens=1)
        waiters = [asyncio.create_task(keys.acquire("m", tokens=1)) for _ in range(4)]
        await asyncio.sleep(0)
        waiters[0].cancel()  # sleeps at the head of the queue
        waiters[2].cancel()  # waits behind it
        await fake.run(waiters[1])
        assert fake.now == pytest.approx(60, abs=0.1)
        await fake.run(waiters[3])
        assert fake.now == pytest.approx(120, abs=0.1)
        assert waiters[0].cancelled()
        assert waiters[2].cancelled()

    asyncio.run(main())


def test_unused_tokens_come_back_but_never_above_the_limit() -> None:
    async def main() -> None:
        keys = pool(fake := FakeTime(), tpm=600)
        key = await keys.acquire("m", tokens=600)
        keys.observe(key, model="m", headers={}, unused_tokens=500)
        await keys.acquire("m", tokens=500)
        assert fake.now == 0
        keys.observe(key, model="m", headers={}, unused_tokens=1e9)
        await keys.acquire("m", tokens=600)
        await fake.run(task := asyncio.create_task(keys.acquire("m", tokens=600)))
        assert task.done()
        assert fake.now == pytest.approx(60, abs=0.1)

    asyncio.run(main())


def test_an_uncontended_acquire_is_cheap() -> None:
    async def main() -> float:
        keys = KeyPool([Secret("sk")], variable="K", rates=Rates(tokens_per_minute=1e12))
        for _ in range(100):
            await keys.acquire("m", tokens=1)
        began = time.process_time()
        for _ in range(2_000):
            await keys.acquire("m", tokens=1)
        return (time.process_time() - began) / 2_000

    assert min(asyncio.run(main()) for _ in range(3)) < 30e-6


# ---- headers


def delay_after(
    headers: dict[str, str], *, rpm: float = 0, tpm: float = 0, tokens: float = 1
) -> float:
    """Seconds that the next request waits after one response with those headers."""

    async def main() -> float:
        keys = pool(fake := FakeTime(), rpm=rpm, tpm=tpm)
        key = await keys.acquire("m", tokens=0)
        fake.now += 1_000  # the bucket has long been full again
        keys.observe(key, model="m", headers=headers)
        began = fake.now
        await fake.run(task := asyncio.create_task(keys.acquire("m", tokens=tokens)))
        assert task.result() is key
        return fake.now - began

    return asyncio.run(main())


@pytest.mark.parametrize("prefix", ["anthropic-ratelimit-requests-{}", "x-ratelimit-{}-requests"])
def test_requests_are_learned_from_headers(prefix: str) -> None:
    headers = {prefix.format("limit"): "60", prefix.format("remaining"): "0"}
    assert delay_after(headers) == pytest.approx(1, abs=0.01)
    assert delay_after(headers, rpm=6) == pytest.approx(10, abs=0.01)  # configured stays the upper
    assert delay_after(headers, rpm=6_000) == pytest.approx(1, abs=0.01)
    assert delay_after({**headers, prefix.format("remaining"): "1"}) == 0


def test_headers_never_raise_what_is_left_or_what_is_configured() -> None:
    generous = {"x-ratelimit-limit-requests": "600", "x-ratelimit-remaining-requests": "599"}

    async def main() -> None:
        keys = pool(fake := FakeTime(), rpm=6)
        for _ in range(6):
            key = await keys.acquire("m", tokens=0)
            keys.observe(key, model="m", headers=generous)
        await fake.run(asyncio.create_task(keys.acquire("m", tokens=0)))
        assert fake.now == pytest.approx(10, abs=0.1)
        fake.now += 3_600  # a long pause saves up no more than the configured limit
        calls = [asyncio.create_task(keys.acquire("m", tokens=0)) for _ in range(7)]
        await fake.run(*calls)
        assert fake.now == pytest.approx(3_620, abs=0.1)

    asyncio.run(main())


@pytest.mark.parametrize(
    "prefix",
    [
        "anthropic-ratelimit-input-tokens-{}",
        "anthropic-ratelimit-tokens-{}",
        "x-ratelimit-{}-tokens",
    ],
)
def test_tokens_are_learned_from_headers(prefix: str) -> None:
    headers = {prefix.format("limit"): "6000", prefix.format("remaining"): "1000"}
    assert delay_after(headers, tokens=1_000) == 0
    assert delay_after(headers, tokens=1_500) == pytest.approx(5, abs=0.01)
    assert delay_after(headers, tokens=1e9) == pytest.approx(50, abs=0.01)


def test_prompt_tokens_go_before_the_tightest_limit_of_all() -> None:
    headers = {
        "anthropic-ratelimit-tokens-limit": "8000",
        "anthropic-ratelimit-tokens-remaining": "0",
        "anthropic-ratelimit-input-tokens-limit": "50000",
        "anthropic-ratelimit-input-tokens-remaining": "50000",
    }
    assert delay_after(headers, tokens=40_000) == 0


nonsense = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ["NaN", "inf", "-1", "1e9", "0x10", "١٢", "9" * 10_000, " 5", "5 ", "1_000", "1,000", ""]
    ),
)


@given(
    st.dictionaries(
        st.sampled_from(
            [
                f"{base.format(what)}"
                for base in (
                    "anthropic-ratelimit-requests-{}",
                    "anthropic-ratelimit-input-tokens-{}",
                    "x-ratelimit-{}-requests",
                    "x-ratelimit-{}-tokens",
                )
                for what in ("limit", "remaining")
            ]
        ),
        nonsense,
    )
)
@example({"x-ratelimit-limit-requests": "0", "x-ratelimit-remaining-requests": "0"})
@example({"x-ratelimit-limit-requests": "5", "x-ratelimit-remaining-requests": "500"})
def test_no_header_breaks_the_pool_or_raises_the_configured_limit(headers: dict[str, str]) -> None:
    async def main() -> None:
        keys = pool(fake := FakeTime(), rpm=2)
        key = await keys.acquire("m", tokens=1)
        keys.observe(key, model="m", headers=headers)
        for _ in range(2):
            await fake.run(asyncio.create_task(keys.acquire("m", tokens=1)))
        assert fake.now >= 29.99
        assert fake.now <= 120

    asyncio.run(main())


@pytest.mark.parametrize(
    "headers",
    [
        {"x-ratelimit-limit-requests": "NaN", "x-ratelimit-remaining-requests": "-1"},
        {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "61"},
        {"x-ratelimit-limit-requests": "0", "x-ratelimit-remaining-requests": "inf"},
        {"x-ratelimit-remaining-requests": "1e-9"},
        {"x-ratelimit-limit-requests": "٣", "x-ratelimit-remaining-requests": "٠"},
    ],
)
def test_nonsense_is_ignored(headers: dict[str, str]) -> None:
    assert delay_after(headers, rpm=60) == 0


# ---- keys


def test_free_keys_take_turns() -> None:
    async def main() -> list[str]:
        keys = pool(FakeTime(), "a", "b", "c")
        return [(await keys.acquire("m", tokens=1)).reveal() for _ in range(9)]

    assert asyncio.run(main()) == ["a", "b", "c"] * 3


def test_keys_add_up_and_the_one_free_soonest_is_used() -> None:
    served = times_of(fake := FakeTime(), pool(fake, "a", "b", "c", rpm=2), [1.0] * 9)
    assert [when for when, _ in served[:6]] == [0] * 6
    assert served[-1][0] == pytest.approx(30, abs=0.1)


def test_a_429_rests_that_key_and_model_only() -> None:
    async def main() -> None:
        keys = pool(fake := FakeTime(), "a", "b")
        first = await keys.acquire("m", tokens=1)
        keys.rest(first, model="m", seconds=20)
        for _ in range(3):
            assert (await keys.acquire("m", tokens=1)).reveal() == "b"
        assert {(await keys.acquire("n", tokens=1)).reveal() for _ in range(2)} == {"a", "b"}
        keys.rest(Secret("b"), model="m", seconds=50)
        await fake.run(task := asyncio.create_task(keys.acquire("m", tokens=1)))
        assert task.result().reveal() == "a"
        assert fake.now == pytest.approx(20, abs=0.1)

    asyncio.run(main())


def test_refused_keys_leave_and_the_last_one_names_the_variable_not_the_key() -> None:
    async def main() -> None:
        keys = pool(fake := FakeTime(), "sk-secret-a", "sk-secret-b")
        assert list(keys.keys) == [
            fingerprint(Secret("sk-secret-a")),
            fingerprint(Secret("sk-secret-b")),
        ]
        keys.retire(Secret("sk-secret-a"))
        assert (await keys.acquire("m", tokens=1)).reveal() == "sk-secret-b"
        keys.rest(Secret("sk-secret-b"), model="m", seconds=1_000)
        waiting = asyncio.create_task(keys.acquire("m", tokens=1))
        await asyncio.sleep(0)
        keys.retire(Secret("sk-secret-b"))
        await fake.run(waiting)
        assert fake.now <= 1.01  # those who wait learn of it soon
        with pytest.raises(ConfigError, match="SOME_API_KEY") as error:
            waiting.result()
        assert "secret" not in str(error.value)
        assert "secret" not in repr(vars(keys))

    asyncio.run(main())


def test_a_key_refused_for_one_model_serves_the_others() -> None:
    async def main() -> None:
        keys = pool(FakeTime(), "sk-a", "sk-b")
        keys.retire(Secret("sk-a"), model="m")
        for _ in range(3):
            assert (await keys.acquire("m", tokens=1)).reveal() == "sk-b"
        assert {(await keys.acquire("n", tokens=1)).reveal() for _ in range(2)} == {"sk-a", "sk-b"}
        assert keys.may_serve("m")
        keys.retire(Secret("sk-b"), model="m")
        assert not keys.may_serve("m")
        assert keys.may_serve("n")
        with pytest.raises(ModelError, match=r"refuses m with SOME_API_KEY.*under llm: models"):
            await keys.acquire("m", tokens=1)
        assert (await keys.acquire("n", tokens=1)).reveal() in {"sk-a", "sk-b"}
        for key in ("sk-a", "sk-b"):
            keys.retire(Secret(key))
        assert not keys.may_serve("n")
        with pytest.raises(ConfigError, match="SOME_API_KEY is empty or the service refused"):
            await keys.acquire("n", tokens=1)

    asyncio.run(main())


def test_no_key_at_all_is_said_in_words() -> None:
    empty = KeyPool([], variable="SOME_API_KEY", rates=Rates())
    with pytest.raises(ConfigError, match="SOME_API_KEY is empty"):
        asyncio.run(empty.acquire("m", tokens=1))


# ---- backoff


@given(
    attempt=st.integers(0, 10_000),
    asked=st.one_of(st.none(), st.floats()),
    cap=st.floats(0.1, 1_000),
    luck=st.floats(0, 1, exclude_max=True),
)
def test_backoff_obeys_the_service_and_the_cap(
    attempt: int, asked: float | None, cap: float, luck: float
) -> None:
    fault = Fault(kind="rate_limit", message="slow down", retry_after_s=asked)
    wait = backoff_s(attempt, fault, cap_s=cap, random=lambda: luck)
    assert 0 <= wait <= cap
    if asked is not None and asked > 0:
        assert wait >= min(asked, cap)
    else:
        assert wait == min(luck * min(0.5 * 2 ** min(attempt, 50), 8), cap)


# ---- the breaker


def breaker(fake: FakeTime, failures: int = 3) -> Breaker:
    rates = Rates(breaker_failures=failures, breaker_rest_s=30)
    return Breaker("some-model", rates=rates, timing=fake.timing)


def test_it_opens_after_faults_in_a_row_that_tell_of_the_service() -> None:
    async def main() -> None:
        watch = breaker(fake := FakeTime())
        for kind in ("rate_limit", "denied", "invalid"):
            for _ in range(10):
                watch.record(Fault(kind=kind, message=""))
        await watch.wait()
        assert fake.now == 0
        watch.record(DOWN)
        watch.record(DOWN)
        watch.record(None)
        watch.record(DOWN)
        watch.record(DOWN)
        await watch.wait()
        watch.record(DOWN)
        await fake.run(asyncio.create_task(watch.wait()))
        assert fake.now == 30

    asyncio.run(main())


def test_one_call_tries_and_its_success_lets_all_through() -> None:
    async def main() -> None:
        watch = breaker(fake := FakeTime(), failures=1)
        watch.record(DOWN)
        callers = [asyncio.create_task(watch.wait()) for _ in range(50)]
        await fake.run(callers[0])
        assert fake.now == 30
        assert sum(caller.done() for caller in callers) == 1
        watch.record(None)
        await fake.run(*callers)
        assert fake.now <= 31.01

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["rate_limit", "denied", "invalid"])
def test_a_try_that_is_answered_at_all_lets_all_through(kind: FaultKind) -> None:
    async def main() -> None:
        watch = breaker(fake := FakeTime(), failures=1)
        watch.record(DOWN)
        watch.record(Fault(kind=kind, message=""))  # of a call sent before; nobody has tried yet
        callers = [asyncio.create_task(watch.wait()) for _ in range(50)]
        await fake.run(callers[0])
        assert fake.now == 30
        watch.record(Fault(kind=kind, message=""))
        await fake.run(*callers)
        assert fake.now <= 31.01
        watch.record(DOWN)  # and counts from the start again
        await fake.run(asyncio.create_task(watch.wait()))
        assert 60 <= fake.now <= 62

    asyncio.run(main())


def test_after_three_rests_it_fails_fast_and_heals_later() -> None:
    async def main() -> None:
        watch = breaker(fake := FakeTime(), failures=1)
        watch.record(DOWN)
        for rest in (1, 2, 3):
            await fake.run(asyncio.create_task(watch.wait()))
            assert fake.now == pytest.approx(30 * rest)
            for _ in range(5):  # late answers of calls sent before count once per try
                watch.record(DOWN)
        for _ in range(2):
            with pytest.raises(ModelError, match="some-model has failed for 90 s") as error:
                await watch.wait()
        assert "what is done is kept" in str(error.value)
        assert "overloaded 529" in str(error.value)
        fake.now += 30
        await watch.wait()
        with pytest.raises(ModelError):
            await watch.wait()
        watch.record(None)
        await watch.wait()

    asyncio.run(main())


def test_a_try_that_vanishes_does_not_block_for_ever() -> None:
    async def main() -> None:
        watch = breaker(fake := FakeTime(), failures=1)
        watch.record(DOWN)
        callers = [asyncio.create_task(watch.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        callers[0].cancel()  # while it waits at the head
        await fake.run(callers[1])  # tries, and is never heard of again
        await fake.run(callers[2])
        assert fake.now == pytest.approx(60)

    asyncio.run(main())


# ---- off-peak


@pytest.mark.parametrize(
    "text",
    [
        "", "22-6 Europe/Berlin", "25:00-06:00", "22:00-06:60", "22:00-22:00", "22:00–06:00",
        "22:00-06:00 Europe/Atlantis", "22:00-06:00 ../../etc/passwd", "22:00-06:00-07:00",
        "22:00-06:00 Europe/Berlin Paris", "22:00Z-06:00Z", "22:00+02:00-06:00+02:00", "22-06",
        "22:00Z-06:00 Europe/Berlin", "22:00:30-06:00", "T22:00-06:00", "2200-0600", "22:00-24:00",
        "22:00Z", "22:00-06:00 +02:00", "22:00-06:00 UTC+2", "２２:00-06:00",
    ],
)  # fmt: skip
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"off_peak is .* e\.g\. 22:00-06:00 Europe/Berlin"):
        OffPeak.parse(text)


def test_utc_is_the_default_zone() -> None:
    assert OffPeak.parse("11:30-12:30").seconds_until_open(NOON) == 0
    assert OffPeak.parse("12:30-11:30").seconds_until_open(NOON) == 1_800
    assert OffPeak.parse("12:00-12:01").seconds_until_open(NOON + 60) == 86_400 - 60
    assert OffPeak.parse("12:30-11:30").seconds_until_open(NOON + 0.25) == 1_799.75


@pytest.mark.parametrize(
    ("text", "now", "opening"),
    [
        # the clock jumps from 02:00 to 03:00, so that 03:10 comes an hour early, 02:30 at 03:00
        ("03:10-06:00", "2026-03-29T01:50+01:00", "2026-03-29T03:10+02:00"),
        ("02:30-06:00", "2026-03-29T01:50+01:00", "2026-03-29T03:00+02:00"),
        # and from 03:00 back to 02:00, so that 02:30 comes twice and 03:10 an hour late
        ("03:10-06:00", "2026-10-25T02:50+02:00", "2026-10-25T03:10+01:00"),
        ("02:30-02:40", "2026-10-25T02:45+02:00", "2026-10-25T02:30+01:00"),
    ],
)
def test_it_opens_by_the_wall_clock_on_the_days_it_changes(
    text: str, now: str, opening: str
) -> None:
    start, end = (datetime.fromisoformat(moment).timestamp() for moment in (now, opening))
    fake = FakeTime()
    timing = fake.timing._replace(clock=lambda: start + fake.now)
    window = OffPeak.parse(f"{text} Europe/Berlin", timing=timing)

    async def main() -> None:
        await fake.run(asyncio.create_task(window.hold(lambda _: None)))

    asyncio.run(main())
    assert end - start <= fake.now < end - start + 1.01


@given(
    start=st.integers(0, 1_439),
    length=st.integers(1, 1_439),
    zone=st.sampled_from(["Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "UTC"]),
    # the year, and the days around both changes of Berlin's clocks
    base_and_minutes=st.one_of(
        st.tuples(st.just(datetime(2026, 1, 1, tzinfo=UTC)), st.integers(0, 365 * 1_440)),
        st.tuples(st.just(datetime(2026, 3, 29, 1, tzinfo=UTC)), st.integers(-2_000, 500)),
        st.tuples(st.just(datetime(2026, 10, 25, 1, tzinfo=UTC)), st.integers(-2_000, 500)),
        st.tuples(st.just(datetime(2026, 10, 25, 1, tzinfo=UTC)), st.integers(-90, 90)),
    ),
)
@settings(max_examples=300)
def test_it_is_open_by_the_wall_clock_and_the_wait_ends_at_the_next_opening(
    start: int, length: int, zone: str, base_and_minutes: tuple[datetime, int]
) -> None:
    now = base_and_minutes[0] + timedelta(minutes=base_and_minutes[1])
    end = (start + length) % 1_440
    text = f"{start // 60:02}:{start % 60:02}-{end // 60:02}:{end % 60:02} {zone}"
    window = OffPeak.parse(text)
    inside = {(start + i) % 1_440 for i in range(length)}

    def is_open(moment: datetime) -> bool:
        local = moment.astimezone(ZoneInfo(zone))
        return local.hour * 60 + local.minute in inside

    wait = timedelta(seconds=window.seconds_until_open(now.timestamp()))
    assert (wait == timedelta(0)) == is_open(now)
    before, after = (moment.astimezone(ZoneInfo(zone)) for moment in (now, now + wait))
    if before.utcoffset() == after.utcoffset():  # no clock changes meanwhile
        assert is_open(now + wait)
        assert wait == timedelta(0) or not is_open(now + wait - timedelta(minutes=1))


def test_a_campaign_is_held_until_the_window_opens_and_told_once() -> None:
    async def main() -> None:
        fake = FakeTime()
        window = OffPeak.parse("12:10-13:00", timing=fake.timing)
        told: list[str] = []
        await fake.run(*[asyncio.create_task(window.hold(told.append)) for _ in range(20)])
        assert fake.now == pytest.approx(600)
        assert told == ["held for 0:10:00 until 12:10-13:00 opens"]
        await window.hold(told.append)
        assert len(told) == 1

    asyncio.run(main())
