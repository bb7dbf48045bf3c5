"""What every target promises."""

from __future__ import annotations

from types import SimpleNamespace
from typing import get_args

import pytest

from workbench.campaign.targets.base import Decision, PassThrough, Target
from workbench.campaign.targets.sanitizer import SanitizerTarget
from workbench.core.errors import ConfigError

PROMPTS = ["a", "", "two\nlines", "漢字 😀", "a"]


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


TARGETS = [
    pytest.param(PassThrough(), id="bare"),
    pytest.param(SanitizerTarget(Upper(), gain=0.0), id="sanitizer@0"),
    pytest.param(SanitizerTarget(Upper(), gain=1.5), id="sanitizer@1.5"),
]


@pytest.mark.parametrize("target", TARGETS)
def test_one_response_per_prompt_in_order(target: Target) -> None:
    together = target.respond(PROMPTS)
    assert len(together) == len(PROMPTS)
    assert together == [target.respond([prompt])[0] for prompt in PROMPTS]
    assert {answer.decision for answer in together} <= set(get_args(Decision))
    assert all(answer.latency_ms >= 0 for answer in together)
    assert target.respond([]) == []


@pytest.mark.parametrize("target", TARGETS)
def test_passed_prompts_are_unchanged(target: Target) -> None:
    for prompt, answer in zip(PROMPTS, target.respond(PROMPTS), strict=True):
        assert answer.decision != "pass" or answer.text == prompt


def test_names_and_identities_differ_where_answers_could() -> None:
    other = Upper()
    other.id = "model-2"
    judged = Upper()
    judged.judge = SimpleNamespace(threshold=0.5)
    targets = [PassThrough(), *(SanitizerTarget(Upper(), gain=gain) for gain in (1.0, 1.5))]
    assert [target.name for target in targets] == ["bare", "sanitizer@1.0", "sanitizer@1.5"]
    targets += [SanitizerTarget(other, gain=1.0), SanitizerTarget(judged, gain=1.0)]
    assert len({target.identity for target in targets}) == 5
    assert SanitizerTarget(Upper(), gain=1).identity == SanitizerTarget(Upper(), gain=1.0).identity
    assert [target.defends for target in targets] == [False, True, True, True, True]


def test_latencies_of_stages_add_up() -> None:
    (answer,) = SanitizerTarget(Upper(), gain=1.0).respond(["a"])
    assert answer.latency_ms == 2.0


@pytest.mark.parametrize("gain", [-0.1, float("nan")])
def test_a_gain_that_makes_no_sense_is_refused(gain: float) -> None:
    with pytest.raises(ConfigError, match="gain is"):
        SanitizerTarget(Upper(), gain=gain)
