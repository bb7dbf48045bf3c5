"""What every target promises."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from decimal import Decimal
from types import SimpleNamespace
from typing import get_args

import pytest
from yarl import URL

from hostile_target import HostileTarget
from workbench.campaign.targets.base import Decision, Kind, PassThrough, Target
from workbench.campaign.targets.callable import CallableTarget
from workbench.campaign.targets.config import TargetSpec
from workbench.campaign.targets.guarded import GuardedTarget
from workbench.campaign.targets.http import HttpTarget
from workbench.campaign.targets.model import ModelTarget
from workbench.campaign.targets.sanitizer import SanitizerTarget
from workbench.campaign.targets.websocket import WebSocketTarget
from workbench.core.errors import ConfigError
from workbench.llm.gateway import open_gateway
from workbench.llm.scripted import ScriptedTransport, echo

PROMPTS = ["a", "two\nlines", "漢字 😀", '"}, {"role": "system"', "{{prompt}}", "a"]
MESSAGES = {"prompt": "{{prompt}}", "messages": "{{messages}}"}
KINDS = (
    "bare", "sanitizer@0", "sanitizer@1.5", "http", "websocket", "callable", "model", "guarded",
    "two guards",
)  # fmt: skip


class Upper:
    """A sanitizer that shouts; at gain 0 it does nothing."""

    id = "model-1"
    judge = None

    def __call__(self, prompts, *, gain):
        return [
            SimpleNamespace(
                text=prompt.upper() if gain else prompt,
                decision="redirect" if gain else "pass",
                latency_ms={"read": 1.5, "redirect": 0.5},
            )
            for prompt in prompts
        ]


@asynccontextmanager
async def opened(kind, store):
    """Give a target of a kind, ready to be asked."""
    if kind == "bare":
        yield PassThrough()
    elif kind.startswith("sanitizer"):
        yield SanitizerTarget(Upper(), gain=float(kind.partition("@")[2]))
    elif kind == "two guards":
        yield GuardedTarget(SanitizerTarget(Upper()), SanitizerTarget(Upper()))
    elif kind == "model":
        transport = ScriptedTransport(default=echo)
        async with open_gateway(
            store, phase="execution", transport=transport, tell=lambda _: None
        ) as gateway:
            spec = TargetSpec(type="model", model="claude-haiku-5-5")
            yield ModelTarget(spec, gateway=gateway, service="anthropic")
    elif kind == "callable":
        sys.modules["contract_target"] = SimpleNamespace(answer=lambda prompt: f"heard {prompt}")
        yield CallableTarget(TargetSpec(type="python", function="contract_target:answer"))
    else:
        async with HostileTarget().serve() as server:
            url = URL(server.url + ("/ws" if kind == "websocket" else "/echo"))
            make = WebSocketTarget if kind == "websocket" else HttpTarget
            spec = TargetSpec(
                type="http", url=str(url), body=MESSAGES, usd_per_call=Decimal("0.01")
            )
            target = make(spec, url=url)
            yield GuardedTarget(SanitizerTarget(Upper()), target) if kind == "guarded" else target
            await target.close()


def plain(answers):
    """Return responses without their latencies, which differ."""
    return [(one.text, one.decision, one.replies) for one in answers]


@pytest.mark.parametrize("kind", KINDS)
def test_one_response_per_conversation_in_order(kind, store):
    async def check():
        async with opened(kind, store) as target:
            conversations = [(prompt,) for prompt in PROMPTS]
            together = await target.respond(conversations)
            assert len(together) == len(PROMPTS)
            alone = [(await target.respond([one]))[0] for one in conversations]
            assert plain(together) == plain(alone)
            assert {answer.decision for answer in together} <= set(get_args(Decision))
            assert all(answer.latency_ms >= 0 for answer in together)
            assert all(not answer.replies for answer in together)
            assert await target.respond([]) == []
            check_face(target)
            await target.close()

    asyncio.run(check())


def check_face(target: Target) -> None:
    assert target.name
    assert target.name.isprintable()
    assert len(target.identity) == 64 or target.identity == "pass-through/1"
    assert target.kind in get_args(Kind)
    assert isinstance(target.defends, bool)
    assert isinstance(target.is_metered, bool)
    assert target.parallel >= 1
    assert target.batch >= 1
    assert target.usd_per_call >= 0


@pytest.mark.parametrize("kind", KINDS)
def test_every_turn_of_a_conversation_is_answered(kind, store):
    async def check():
        async with opened(kind, store) as target:
            (answer,) = await target.respond([("first", "second", "third")])
            if target.kind == "model":
                assert len(answer.replies) == 2
                assert "third" in answer.text.lower()
                assert "first" in answer.replies[0].lower()
                assert answer.usd == 3 * target.usd_per_call or target.is_metered
            else:
                assert answer.text.lower().split("\n") == ["first", "second", "third"]

    asyncio.run(check())


@pytest.mark.parametrize("kind", ["bare", "sanitizer@0", "sanitizer@1.5"])
def test_passed_prompts_are_unchanged(kind, store):
    async def check():
        async with opened(kind, store) as target:
            answers = await target.respond([(prompt,) for prompt in PROMPTS])
            for prompt, answer in zip(PROMPTS, answers, strict=True):
                assert answer.decision != "pass" or answer.text == prompt

    asyncio.run(check())


def test_names_and_identities_differ_where_answers_could() -> None:
    other = Upper()
    other.id = "model-2"
    judged = Upper()
    judged.judge = SimpleNamespace(threshold=0.5)
    targets = [PassThrough(), *(SanitizerTarget(Upper(), gain=gain) for gain in (1.0, 1.5))]
    assert [target.name for target in targets] == ["bare", "sanitizer@1.0", "sanitizer@1.5"]
    targets += [SanitizerTarget(other, gain=1.0), SanitizerTarget(judged, gain=1.0)]
    targets += [GuardedTarget(guard, PassThrough()) for guard in targets[1:]]
    assert targets[5].name == "guarded@1.0(bare)"
    assert len({target.identity for target in targets}) == 9
    assert SanitizerTarget(Upper(), gain=1).identity == SanitizerTarget(Upper(), gain=1.0).identity
    assert [target.defends for target in targets] == [False, *[True] * 8]


def test_identities_of_services_hold_what_decides_and_nothing_else() -> None:
    def identity(**changes) -> str:
        return TargetSpec(**{"type": "http", "url": "http://localhost/a", **changes}).identity

    same = [
        identity(), identity(name="n"), identity(parallel=3), identity(timeout_s=5),
        identity(usd_per_call=Decimal(1)), identity(quiet="09:00-17:00"), identity(staging=True),
    ]  # fmt: skip
    assert len(set(same)) == 1
    others = [
        identity(url="http://localhost/b"), identity(body={"q": "{{prompt}}"}),
        identity(response_path="a.b"), identity(headers={"X-Mode": "1"}), identity(method="PUT"),
        identity(block_status=(403,)), identity(type="websocket"),
    ]  # fmt: skip
    assert len({*others, same[0]}) == 8


def test_latencies_of_stages_add_up() -> None:
    (answer,) = asyncio.run(SanitizerTarget(Upper(), gain=1.0).respond([("a",)]))
    assert answer.latency_ms == 2.0


@pytest.mark.parametrize("gain", [-0.1, float("nan")])
def test_a_gain_that_makes_no_sense_is_refused(gain: float) -> None:
    with pytest.raises(ConfigError, match="gain is"):
        SanitizerTarget(Upper(), gain=gain)
