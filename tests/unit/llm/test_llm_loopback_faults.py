"""The loopback server's dice, limits and answers."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.core.errors import InputError
from workbench.llm.loopback_answers import Answers
from workbench.llm.loopback_faults import Dice, Faults, Limits, Refusal, parse_faults


def test_faults_are_read_from_text():
    assert parse_faults("") == Faults()
    expected = Faults(rates={"429": 0.05, "drop": 0.02}, retry_after_s=0.1, lost_answers_bill=True)
    assert parse_faults("429=0.05,drop=0.02,retry_after_s=0.1,lost_answers_bill=1") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("418=0.1", "unknown fault '418'"),
        ("drop", "write name=number"),
        ("drop=0.6,429=0.6", "add up to 1.2"),
        ("drop=-0.1", "in 0..1"),
        ("drop=nan", "in 0..1"),
        ("spoil_items=2", "in 0..1"),
    ],
)
def test_wrong_faults_are_refused(text, message):
    with pytest.raises(InputError, match=message):
        parse_faults(text)


def test_faults_come_as_often_as_asked_and_the_same_for_a_seed():
    faults = Faults(rates={"429": 0.2, "drop": 0.1, "errored": 0.5})
    dice, again = Dice(faults, seed=3), Dice(faults, seed=3)
    drawn = [dice.draw() for _ in range(5000)]
    assert drawn == [again.draw() for _ in range(5000)]
    assert drawn.count("429") == pytest.approx(1000, abs=120)
    assert drawn.count("drop") == pytest.approx(500, abs=90)
    assert "errored" not in drawn
    assert [dice.draw(in_batch=True) for _ in range(1000)].count("errored") > 400


def test_a_script_is_played_before_the_dice_roll():
    dice = Dice(Faults(script=["429", "", "drop"], rates={"slow": 1.0}), seed=0)
    assert [dice.draw() for _ in range(4)] == ["429", "", "drop", "slow"]


def _take(limits: Limits, tokens: int = 10, *, is_openai: bool = False):
    return limits.take(organization="o", model="m", tokens=tokens, is_openai=is_openai)


def test_limits_are_told_and_enforced():
    limits = Limits(requests=3, tokens=1000)
    for left in (2, 1, 0):
        told = _take(limits)
        assert told["anthropic-ratelimit-requests-limit"] == "3"
        assert told["anthropic-ratelimit-requests-remaining"] == str(left)
        assert told["anthropic-ratelimit-requests-reset"].endswith("Z")
    refused = _take(limits)
    assert isinstance(refused, Refusal)
    assert refused.status == 429
    assert refused.headers["retry-after"] == "20"
    assert refused.headers["anthropic-ratelimit-input-tokens-remaining"] == "970"
    assert not isinstance(
        limits.take(organization="p", model="m", tokens=1, is_openai=False), Refusal
    )


def test_tokens_are_limited_and_told_as_openai_tells_them():
    limits = Limits(requests=0, tokens=1000)
    assert _take(limits, 900, is_openai=True)["x-ratelimit-remaining-tokens"] == "100"
    assert isinstance(_take(limits, 900), Refusal)


_leaves = st.sampled_from(
    [
        {"type": "string"}, {"type": "integer", "minimum": 1, "maximum": 5}, {"type": "boolean"},
        {"type": "number"}, {"enum": ["high", "low"]}, {"type": ["string", "null"]},
        {"anyOf": [{"type": "null"}, {"type": "string"}]}, {"const": 4},
    ]
)  # fmt: skip


def _nest(inner):
    arrays = inner.map(lambda items: {"type": "array", "items": items})
    fields = st.dictionaries(st.sampled_from("xyz"), inner, min_size=1)
    objects = fields.map(
        lambda found: {"type": "object", "properties": found, "required": sorted(found)}
    )
    return arrays | objects


def _conforms(value, schema) -> bool:
    if "anyOf" in schema:
        return any(_conforms(value, part) for part in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return value in schema.get("enum", [schema.get("const")])
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    types = {
        "string": str, "integer": int, "number": float, "boolean": bool, "array": list,
        "object": dict, "null": type(None),
    }  # fmt: skip
    if not any(isinstance(value, types[kind]) for kind in kinds):
        return False
    if isinstance(value, dict):
        parts = schema["properties"]
        return set(value) == set(parts) and all(
            _conforms(value[name], parts[name]) for name in parts
        )
    if isinstance(value, list):
        return all(_conforms(item, schema["items"]) for item in value)
    return True


def _write(body, *, prompt="p", seed=0, max_tokens=100_000, spoil=0.0, times=1):
    answers = Answers(seed=seed, spoil_items=spoil, answer=None)
    for _ in range(times):
        written = answers.write(
            body, prompt=prompt, digest=prompt, model="m", max_tokens=max_tokens
        )
    return written


@given(schema=st.recursive(_leaves, _nest, max_leaves=8), seed=st.integers(0, 9))
def test_json_meets_the_schema_that_was_asked_for(schema, seed):
    for body in (
        {"output_config": {"format": {"type": "json_schema", "schema": schema}}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}},
    ):
        assert _conforms(json.loads(_write(body, seed=seed)[0]), schema)


@given(limit=st.integers(0, 200), prompt=st.text(max_size=300))
def test_an_answer_keeps_to_its_limit_and_says_when_it_was_cut(limit, prompt):
    text, stop, tokens = _write({}, prompt=prompt, max_tokens=limit)
    assert tokens <= limit
    assert len(text.encode()) <= 4 * limit
    assert (stop == "max_tokens") == (limit == 0 or text != _write({}, prompt=prompt)[0])


def test_answers_repeat_for_a_seed_and_differ_from_call_to_call():
    assert _write({}, times=2) == _write({}, times=2)
    assert len({_write({}), _write({}, times=2), _write({}, seed=1), _write({}, prompt="q")}) == 4


_ITEMS = {
    "type": "object",
    "properties": {
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"id": {"type": "string"}, "text": {"type": "string"}},
                "required": ["id", "text"],
            },
        }
    },
}


def test_items_carry_the_ids_of_the_prompt_and_some_are_spoiled_on_demand():
    prompt = "".join(f'<item id="r&amp;{number}">text</item>\n' for number in range(200))
    body = {"output_config": {"format": {"type": "json_schema", "schema": _ITEMS}}}
    items = json.loads(_write(body, prompt=prompt)[0])["items"]
    assert [item["id"] for item in items] == [f"r&{number}" for number in range(200)]
    assert all(item["text"] for item in items)
    spoiled = json.loads(_write(body, prompt=prompt, spoil=0.4)[0])["items"]
    whole = [item for item in spoiled if "text" in item]
    assert 200 - len(spoiled) == pytest.approx(40, abs=20)
    assert 200 - len(whole) == pytest.approx(80, abs=25)


def test_importing_the_server_loads_no_http_library():
    code = (
        "import sys, workbench.llm.loopback\n"
        "print([name for name in ('aiohttp', 'anthropic', 'openai') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
