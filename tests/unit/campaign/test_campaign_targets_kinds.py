"""Pacing, functions, models and guards: targets without a network."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace

import pytest

from workbench.campaign.targets.base import ASKED_FOR, PassThrough, Response
from workbench.campaign.targets.config import TargetSpec
from workbench.campaign.targets.guarded import REFUSAL, GuardedTarget
from workbench.campaign.targets.pacing import Pacer, TargetError
from workbench.campaign.targets.sanitizer import SanitizerTarget
from workbench.campaign.targets.spec import open_targets, parse_target, services_of
from workbench.core.errors import BudgetError, ConfigError, InputError, ModelError
from workbench.llm.config import GatewayConfig, Rates
from workbench.llm.gateway import open_gateway
from workbench.llm.messages import Fault, Reply, Usage
from workbench.llm.scripted import ScriptedTransport
from workbench.llm.timing import Timing
from workbench.store.budgets import Budgets

# -- pacing


class FakeTime:
    def __init__(self, at: str = "2026-03-02T00:00:00") -> None:
        self.start = self.now = datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp()

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)

    @property
    def timing(self) -> Timing:
        return Timing(clock=lambda: self.now, monotonic=lambda: self.now, sleep=self.sleep)

    @property
    def passed_s(self) -> float:
        return self.now - self.start


@pytest.mark.parametrize(
    ("at", "hours_held"),
    [("07:59:00", 0), ("08:00:00", 8), ("12:00:00", 4), ("15:59:30", 1 / 120), ("16:00:00", 0)],
)
def test_nothing_starts_in_quiet_hours(at, hours_held):
    clock, told = FakeTime(f"2026-03-02T{at}"), []  # 09:00-17:00 in Berlin is 08:00-16:00 in UTC
    pacer = Pacer("shop", quiet="09:00-17:00 Europe/Berlin", timing=clock.timing, tell=told.append)
    asyncio.run(pacer.start())
    assert clock.passed_s == pytest.approx(hours_held * 3600, abs=1.1)
    assert len(told) == (hours_held > 0)
    assert not told or "shop, quiet 09:00-17:00 Europe/Berlin" in told[0]


def test_calls_start_evenly_and_in_order():
    clock, order = FakeTime(), []
    pacer = Pacer("t", requests_per_minute=30, timing=clock.timing)

    async def call(number):
        await pacer.start()
        order.append((number, clock.passed_s))

    async def run():
        await asyncio.gather(*map(call, range(5)))

    asyncio.run(run())
    assert [number for number, _ in order] == list(range(5))
    assert [at for _, at in order] == pytest.approx([0, 2, 4, 6, 8])


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_attempts_end_and_only_faults_that_pass_are_tried_again(attempts):
    clock, calls = FakeTime(), []
    pacer = Pacer("t", max_attempts=attempts, timing=clock.timing, random=lambda: 1.0)

    async def send(*, is_retryable):
        calls.append(clock.passed_s)
        raise TargetError("nope", kind="unavailable", is_retryable=is_retryable)

    with pytest.raises(TargetError, match=rf"nope \({attempts} attempts\)"):
        asyncio.run(pacer.attempts(lambda: send(is_retryable=True)))
    assert calls == [0, 0.5, 1.5, 3.5, 7.5][:attempts]
    calls.clear()
    with pytest.raises(TargetError, match=r"nope$"):
        asyncio.run(pacer.attempts(lambda: send(is_retryable=False)))
    assert len(calls) == 1


# -- functions

SOURCE = """
import asyncio, sys, time

def prompt_only(prompt): return f"p {prompt}"
def messages_only(messages): return "m " + " | ".join(one["content"] for one in messages)
def both(prompt, messages, mood="calm"): return f"b {prompt} {len(messages)} {mood}"
def other(question): return f"q {question}"
async def later(prompt):
    await asyncio.sleep(0)
    return f"l {prompt}"
def fails(prompt): raise ValueError("first line\\nsecond")
def stops(prompt): raise StopIteration
def exits(prompt): sys.exit(3)
async def exits_later(prompt): sys.exit(3)
def number(prompt): return 5
def hangs(prompt): time.sleep(2)
async def hangs_later(prompt): await asyncio.sleep(60)
def own_timeout(prompt): raise TimeoutError("mine")
def changes(messages):
    messages.clear()
    return "changed"
class Bot:
    @staticmethod
    def answer(prompt): return f"s {prompt}"
def two(first, second): return ""
def none(): return ""
value = 5
"""


@pytest.fixture
def functions(tmp_path):
    (tmp_path / "bot.py").write_text(SOURCE)
    return tmp_path


def target_of(functions, name, **fields):
    spec = replace(parse_target(f"python:bot.py:{name}", folder=functions), **fields)
    from workbench.campaign.targets.callable import CallableTarget

    return CallableTarget(spec)


@pytest.mark.parametrize(
    ("name", "answer"),
    [("prompt_only", "p b"), ("messages_only", "m a | m a | b"), ("both", "b b 3 calm"),
     ("other", "q b"), ("later", "l b"), ("Bot.answer", "s b")],
)  # fmt: skip
def test_functions_answer(functions, name, answer):
    target = target_of(functions, name, usd_per_call=Decimal("0.1"))
    (got,) = asyncio.run(target.respond([("a", "b")]))
    assert got.text == answer
    assert got.usd == Decimal("0.2")
    assert target.name == f"python:{name}"


@pytest.mark.parametrize(
    ("name", "message"),
    [("fails", "raised ValueError: first line second"), ("stops", "raised StopIteration"),
     ("exits", "raised SystemExit"), ("exits_later", "raised SystemExit"),
     ("number", "returned int"), ("own_timeout", "raised TimeoutError: mine")],
)  # fmt: skip
def test_what_a_function_raises_fails_its_attempt_alone(functions, name, message):
    with pytest.raises(TargetError) as caught:
        asyncio.run(target_of(functions, name).respond([("a",)]))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("name", ["hangs", "hangs_later"])
def test_a_function_that_hangs_is_given_up(functions, name):
    started = time.monotonic()
    with pytest.raises(TargetError, match="no answer within"):
        asyncio.run(target_of(functions, name, timeout_s=0.1).respond([("a",)]))
    assert time.monotonic() - started < 1.5
    assert all(one.daemon for one in threading.enumerate() if one.name.startswith("python:"))


def test_a_function_cannot_change_the_conversation(functions):
    (got,) = asyncio.run(target_of(functions, "changes").respond([("a", "b")]))
    assert got.replies == ("changed",)


@pytest.mark.parametrize("name", ["two", "none", "value", "missing", "Bot.missing"])
def test_what_is_no_such_function_is_refused(functions, name):
    with pytest.raises(ConfigError, match=r"python:bot\.py"):
        target_of(functions, name)


@pytest.mark.parametrize("line", ["python:no_such_module_x:f", "python:none.py:f", "python:f"])
def test_modules_that_cannot_be_loaded_are_refused(functions, line, store):
    with pytest.raises(ConfigError, match="python:"):
        open_targets([parse_target(line, folder=functions)], store=store, config=GatewayConfig())


def test_the_identity_of_a_function_is_its_source(functions):
    first, other = (target_of(functions, name).identity for name in ("both", "other"))
    assert first != other
    assert target_of(functions, "both").identity == first
    (functions / "bot.py").write_text(SOURCE + "\n")
    assert target_of(functions, "both").identity != first


# -- models

MODEL = "claude-haiku-5-5"


def reply(text, reason="end_turn"):
    usage = Usage(input_tokens=10, output_tokens=10)
    return Reply(text=text, stop_reason=reason, usage=usage, model=MODEL)


@asynccontextmanager
async def asking(store, *script, work="w", config=None, guard=None, **fields):
    """Give a model target, maybe behind a guard, and the transport behind it."""
    transport = ScriptedTransport(*script, default=lambda request: f"re: {request.prompt}")
    spec = TargetSpec(type="model", model=MODEL, **fields)
    (config,) = services_of([spec], config or GatewayConfig()).values()
    async with open_gateway(
        store, phase="execution", work=work, config=config, transport=transport,
        tell=lambda _: None,
    ) as gateway:  # fmt: skip
        outer = TargetSpec(type="guarded", gain=guard, target=spec) if guard else spec
        (target,) = open_targets(
            [outer], store=store, config=config, gateway=gateway, sanitizer=Words()
        )
        yield target, transport


def count(store, conversations, *, work, execution="", case="", trial=0, **fields):
    """Return how many requests were sent for conversations."""

    async def run():
        async with asking(store, work=work, **fields) as (target, transport):
            ASKED_FOR.set((execution, case, trial))
            await asyncio.gather(*(target.respond([one]) for one in conversations))
            return len(transport.requests)

    return asyncio.run(run())


def test_only_the_same_execution_and_trial_finds_what_was_paid(store):
    conversations = [("a",), ("b",), ("a", "c")]
    assert count(store, conversations, work="1", execution="1") == 4
    assert count(store, conversations, work="1", execution="1") == 0  # resumed
    assert count(store, conversations, work="1", execution="1", trial=1) == 4
    assert count(store, conversations, work="2", execution="2") == 4
    assert count(store, conversations, work="1", execution="2") == 4
    assert count(store, conversations, work="1") == 4
    assert count(store, conversations, work="1") == 4


@pytest.mark.parametrize(
    "other",
    [{"case": "b"}, {"name": "second"}, {"guard": 1.0}, {"guard": 1.0, "name": "second"}],
)
def test_no_case_and_no_target_is_given_what_another_was_answered(store, other):
    mine = {"work": "1", "execution": "1", "case": "a"}
    for _ in range(2):  # the first time, and resumed
        assert count(store, [("same",)], **{**mine, **other}) == (_ == 0)
    assert count(store, [("same",)], **mine) == 1
    assert count(store, [("same",)], **{**mine, "guard": 2.0}) == 1
    assert count(store, [("same",)], **mine) == 0


def test_names_of_targets_may_be_as_long_as_they_may(store):
    names = {"name": "n" * 100, "guard": 1.0}
    assert count(store, [("a",)], work="1", execution="e" * 64, case="c" * 64, **names) == 1


def test_a_guard_leaves_no_trace_of_itself():
    target = guarded()

    async def run():
        ASKED_FOR.set(("e", "c", 2))
        await target.respond([("a",)])
        return ASKED_FOR.get()

    assert asyncio.run(run()) == ("e", "c", 2)


def test_equal_cases_are_asked_each(store):
    assert count(store, [("a",), ("a",), ("a",)], work="1", execution="1") == 3


def test_every_turn_carries_the_models_own_replies(store):
    async def run():
        async with asking(store, "one!", "two!", "three!", system="Be kind.") as (target, wire):
            (got,) = await target.respond([("1", "2", "3\ud800")])
            return got, wire.requests

    got, requests = asyncio.run(run())
    assert (got.replies, got.text) == (("one!", "two!"), "three!")
    assert [tuple(turn) for turn in requests[2].history] == [
        ("user", "1"), ("assistant", "one!"), ("user", "2"), ("assistant", "two!"),
    ]  # fmt: skip
    assert (requests[2].prompt, requests[2].system) == ("3?", "Be kind.")
    assert got.usd > 0


def test_a_refusal_is_a_block_and_ends_the_conversation(store):
    async def run():
        async with asking(store, "fine", reply("I won't", "refusal")) as (target, wire):
            (got,) = await target.respond([("1", "2", "3")])
            return got, wire.requests

    got, requests = asyncio.run(run())
    assert (got.decision, got.text, got.replies) == ("block", "I won't", ("fine",))
    assert len(requests) == 2


def test_faults_of_models_fail_the_attempt_and_budgets_stop(store):
    async def run(*script, prompt="a", **config):
        config = GatewayConfig(rates=Rates(max_attempts=1), **config)
        async with asking(store, *script, config=config) as (target, _):
            return await target.respond([(prompt,)])

    with pytest.raises(ModelError):
        asyncio.run(run(Fault(kind="invalid", message="no", is_retryable=False)))
    with pytest.raises(InputError):
        asyncio.run(run(prompt=""))
    with pytest.raises(BudgetError):
        asyncio.run(run(budgets=Budgets(run=Decimal("0.0000001"))))


# -- guards


class Words:
    """A sanitizer that goes by words; remembers what it saw together."""

    id = "words"
    judge = None

    def __init__(self, *, delay_s: float = 0.0) -> None:
        self.batches: list[list[str]] = []
        self._delay_s = delay_s

    def __call__(self, prompts, *, gain):
        self.batches.append(list(prompts))
        time.sleep(self._delay_s)
        if "crash" in prompts:
            raise RuntimeError("crash")
        return [self._made(prompt) for prompt in prompts]

    def _made(self, prompt):
        decision, text = "pass", prompt
        if "bad" in prompt:
            decision, text = "block", ""
        elif "wrapped" in prompt:
            decision, text = "dewrap", prompt.replace("wrapped ", "")
        return SimpleNamespace(text=text, decision=decision, latency_ms={"read": 2.0})


class Inner(PassThrough):
    """Answers each message and remembers conversations."""

    name, kind, parallel, batch = "inner", "model", 8, 1
    usd_per_call, is_metered = Decimal("0.5"), False

    def __init__(self, decision="pass"):
        self.seen, self.closed, self._decision = [], False, decision

    async def respond(self, conversations):
        self.seen += conversations
        return [
            Response(
                text=f"re {turns[-1]}", decision=self._decision, latency_ms=1.0,
                usd=self.usd_per_call * len(turns),
                replies=tuple(f"re {turn}" for turn in turns[:-1]),
            )
            for turns in conversations
        ]  # fmt: skip

    async def close(self):
        self.closed = True


def guarded(inner=None, sanitizer=None):
    return GuardedTarget(SanitizerTarget(sanitizer or Words(), gain=4), inner or Inner())


@pytest.mark.parametrize(
    ("turns", "sent", "text", "decision", "replies"),
    [
        (("a",), ("a",), "re a", "pass", ()),
        (("wrapped a",), ("a",), "re a", "dewrap", ()),
        (("wrapped a", "b"), ("a", "b"), "re b", "dewrap", ("re a",)),
        (("bad",), None, REFUSAL, "block", ()),
        (("a", "bad", "c"), ("a",), REFUSAL, "block", ("re a",)),
        (("a", "b", "bad"), ("a", "b"), REFUSAL, "block", ("re a", "re b")),
    ],
)
def test_each_message_goes_through_the_sanitizer(turns, sent, text, decision, replies):
    inner = Inner()
    (got,) = asyncio.run(guarded(inner).respond([turns]))
    assert inner.seen == ([sent] if sent else [])
    assert (got.text, got.decision, got.replies) == (text, decision, replies)
    assert got.usd == Decimal("0.5") * len(sent or ())
    assert got.latency_ms >= 2.0


def test_what_the_target_behind_declines_is_a_block():
    (got,) = asyncio.run(guarded(Inner("block")).respond([("wrapped a",)]))
    assert (got.text, got.decision) == ("re a", "block")


def test_conversations_are_sanitized_together():
    words = Words(delay_s=0.05)
    target = guarded(sanitizer=words)

    async def run():
        return await asyncio.gather(*(target.respond([(f"p{n}",)]) for n in range(32)))

    got = asyncio.run(run())
    assert [one[0].text for one in got] == [f"re p{n}" for n in range(32)]
    assert len(words.batches) <= 3
    assert sorted(text for batch in words.batches for text in batch) == sorted(
        f"p{n}" for n in range(32)
    )


def test_a_cancelled_caller_leaves_the_others_waiting():
    target = guarded(sanitizer=Words(delay_s=0.05))

    async def run():
        tasks = [asyncio.create_task(target.respond([(f"p{n}",)])) for n in range(4)]
        await asyncio.sleep(0.01)
        tasks[0].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    got = asyncio.run(run())
    assert isinstance(got[0], asyncio.CancelledError)
    assert [one[0].text for one in got[1:]] == ["re p1", "re p2", "re p3"]


def test_a_sanitizer_that_fails_sends_nothing_on():
    inner = Inner()
    target = guarded(inner)

    async def run():
        with pytest.raises(RuntimeError, match="crash"):
            await target.respond([("crash",)])
        return await target.respond([("fine",)])

    assert asyncio.run(run())[0].text == "re fine"
    assert inner.seen == [("fine",)]


def test_a_message_that_the_sanitizer_cannot_read_fails_alone():
    words, inner = Words(delay_s=0.02), Inner()
    target = guarded(inner, words)
    texts = [f"p{n}" for n in range(60)]
    texts[37] = "crash"

    async def run():
        return await asyncio.gather(
            *(target.respond([(text,)]) for text in texts), return_exceptions=True
        )

    got = asyncio.run(run())
    assert any(len(batch) > 50 for batch in words.batches)
    assert [at for at, one in enumerate(got) if isinstance(one, Exception)] == [37]
    assert len(inner.seen) == 59


def test_callers_that_gave_up_hold_up_nobody():
    target = guarded(sanitizer=Words(delay_s=0.02))

    async def run():
        tasks = [asyncio.create_task(target.respond([(f"p{n}",)])) for n in range(80)]
        while len(target._waiting) < 80:  # the first is with the sanitizer, the others wait
            await asyncio.sleep(0)
        for task in tasks[1:-1]:
            task.cancel()
        return await asyncio.wait_for(tasks[-1], 5)

    assert asyncio.run(run())[0].text == "re p79"


@pytest.mark.parametrize("turns", [("a",), ("bad",), ("a", "bad")])
def test_two_guards_are_a_guard(turns):
    target = guarded(PassThrough())
    assert target.kind == "guard"
    (got,) = asyncio.run(target.respond([turns]))
    assert (got.text, got.decision) == (("", "block") if "bad" in turns else ("a", "pass"))


def test_a_guard_shows_the_face_of_what_it_guards():
    inner = Inner()
    target = guarded(inner)
    assert target.name == "guarded@4.0(inner)"
    assert (target.parallel, target.batch, target.kind, target.defends) == (8, 1, "model", True)
    assert (target.usd_per_call, target.is_metered) == (Decimal("0.5"), False)
    asyncio.run(target.close())
    assert inner.closed
