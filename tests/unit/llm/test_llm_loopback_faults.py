"""The loopback server's dice, limits and answers."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from itertools import islice
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.core.errors import InputError
from workbench.llm.loopback.answers import Answers
from workbench.llm.loopback.faults import Faults, Limits, RefusalError, draws, parse_faults
from workbench.llm.loopback.wire import read_call


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
    ],
)
def test_wrong_faults_are_refused(text, message):
    with pytest.raises(InputError, match=message):
        parse_faults(text)


def test_faults_come_as_often_as_asked_and_the_same_for_a_seed():
    faults = Faults(rates={"429": 0.2, "drop": 0.1, "errored": 0.5})
    drawn, again = (list(islice(draws(faults, seed=3), 5000)) for _ in range(2))
    assert drawn == again
    assert drawn.count("429") == pytest.approx(1000, abs=120)
    assert drawn.count("drop") == pytest.approx(500, abs=90)
    assert drawn.count("errored") == pytest.approx(2500, abs=150)


def test_a_script_is_played_before_chance_decides():
    faults = Faults(script=["429", "", "drop"], rates={"slow": 1.0})
    assert list(islice(draws(faults, seed=0), 5)) == ["429", "", "drop", "slow", "slow"]


def _take(limits: Limits, tokens: int = 10, *, scope: str = "key/model", is_openai: bool = False):
    return limits.take(scope, tokens=tokens, is_openai=is_openai)


def test_limits_are_told_and_enforced():
    limits = Limits(requests=3, tokens=1000)
    for left in (2, 1, 0):
        told = _take(limits)
        assert told["anthropic-ratelimit-requests-limit"] == "3"
        assert told["anthropic-ratelimit-requests-remaining"] == str(left)
        assert told["anthropic-ratelimit-requests-reset"].endswith("Z")
    with pytest.raises(RefusalError) as refused:
        _take(limits)
    assert refused.value.status == 429
    assert refused.value.headers["retry-after"] == "20"
    assert refused.value.headers["anthropic-ratelimit-input-tokens-remaining"] == "970"
    _take(limits, scope="key/another model")


def test_tokens_are_limited_and_told_as_openai_tells_them():
    limits = Limits(requests=0, tokens=1000)
    assert _take(limits, 900, is_openai=True)["x-ratelimit-remaining-tokens"] == "100"
    with pytest.raises(RefusalError):
        _take(limits, 900)


def test_without_limits_nothing_is_told():
    limits = Limits(requests=0, tokens=0)
    assert [_take(limits, 10**9) for _ in range(3)] == [{}] * 3


@given(st.lists(st.tuples(st.floats(0, 90), st.integers(0, 1500))), st.integers(1, 2000))
def test_no_more_is_admitted_than_a_full_minute_and_what_came_in_since(takes, rate):
    now, admitted, limits = 0.0, 0, Limits(requests=0, tokens=rate)
    for pause_s, tokens in takes:
        now += pause_s
        with patch("time.monotonic", return_value=1000.0 + now), suppress(RefusalError):
            _take(limits, tokens)
            admitted += tokens
        assert admitted <= rate * (1 + now / 60) + 1


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


def _write(asked, *, prompt="p", seed=0, max_tokens=100_000, times=1):
    messages = [{"role": "user", "content": prompt}]
    body = {"model": "claude-haiku-4-5", "max_tokens": max_tokens, "messages": messages} | asked
    call = read_call(body, dialect="batch")
    answers = Answers(seed=seed, answer=None)
    return [answers.write(call) for _ in range(times)][-1]


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


def test_items_carry_the_ids_of_the_prompt():
    prompt = "".join(f'<item id="r&amp;{number}">text</item>\n' for number in range(200))
    body = {"output_config": {"format": {"type": "json_schema", "schema": _ITEMS}}}
    items = json.loads(_write(body, prompt=prompt)[0])["items"]
    assert [item["id"] for item in items] == [f"r&{number}" for number in range(200)]
    assert all(item["text"] for item in items)


def test_importing_the_server_loads_no_http_library():
    code = (
        "import sys, workbench.llm.loopback, workbench.llm.loopback.__main__\n"
        "print([name for name in ('aiohttp', 'anthropic', 'openai') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
