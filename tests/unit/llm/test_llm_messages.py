from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.core.errors import InputError
from workbench.llm.messages import MAX_PROMPT_BYTES, Answer, Request, Turn, Usage

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
PROMPT = TEXT.filter(str.strip)
TURNS = st.lists(st.builds(Turn, st.sampled_from(["user", "assistant"]), PROMPT), max_size=3)
SCHEMA = st.none() | st.dictionaries(TEXT, st.integers() | TEXT, min_size=1, max_size=3)
DECIDING: dict[str, st.SearchStrategy[Any]] = {
    "prompt": PROMPT,
    "system": TEXT,
    "history": TURNS.map(tuple),
    "namespace": TEXT.filter(bool).filter(str.isprintable),
    "variant": st.integers(0, 99),
    "max_tokens": st.integers(1, 99),
    "schema": SCHEMA,
}
PLACE = {"service": "anthropic", "model": "m"}


@pytest.mark.parametrize("prompt", ["", " \n\t", "\u2003"])
def test_an_empty_prompt_is_refused(prompt: str) -> None:
    with pytest.raises(InputError, match="prompt is empty"):
        Request(prompt=prompt)


@pytest.mark.parametrize("field", ["task", "namespace", "model"])
@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "\u202e", "\x00", "\ud800", "n" * 201])
def test_a_name_that_cannot_be_kept_or_deceives_a_terminal_is_refused(
    field: str, name: str
) -> None:
    with pytest.raises(InputError, match=f"{field} .*plain text, <= 200 characters"):
        Request(**{"prompt": "x", field: name})
    Request(**{"prompt": "x", field: "n" * 200})


def test_an_empty_turn_is_refused() -> None:
    with pytest.raises(InputError, match="a turn of a request's history is empty"):
        Request(prompt="x", history=(Turn("user", "a"), Turn("assistant", " \n")))


LOOP: dict[str, Any] = {}
LOOP["a"] = LOOP


@pytest.mark.parametrize(
    "schema",
    [
        {"a": {1, 2}},
        {"a": b"x"},
        {("a",): 1},
        {"a": float("nan")},
        MappingProxyType({"a": 1}),
        LOOP,
    ],
)
def test_a_schema_that_is_no_json_is_refused(schema: Any) -> None:
    with pytest.raises(InputError, match="schema is no JSON"):
        Request(prompt="x", schema=schema)


@pytest.mark.parametrize(
    "texts",
    [
        {"prompt": "ab\ud800"},
        {"prompt": "x", "system": "ab\udfff"},
        {"prompt": "x", "history": (Turn("user", "ab\udc80"),)},
    ],
)
def test_a_lone_surrogate_is_refused_where_it_stands(texts: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="lone surrogate at character 2"):
        Request(**texts)


@pytest.mark.parametrize("field", ["prompt", "system"])
def test_ten_megabytes_are_refused(field: str) -> None:
    with pytest.raises(InputError, match=r"10,000,00\d bytes exceeds 2,000,000.*context\.fit"):
        Request(**{"prompt": "x", field: "y" * 10_000_000})


def test_the_limit_counts_bytes_of_all_texts() -> None:
    half = "é" * (MAX_PROMPT_BYTES // 4)
    assert Request(prompt=half, system=half).size_bytes == MAX_PROMPT_BYTES
    with pytest.raises(InputError):
        Request(prompt=half, system=half, history=(Turn("user", "x"),))
    with pytest.raises(InputError):
        Request(prompt=half, system=half, schema={"x": 1})


@pytest.mark.parametrize("fields", [{"max_tokens": 0}, {"max_tokens": -1}, {"variant": -1}])
def test_numbers_out_of_range_are_refused(fields: dict[str, int]) -> None:
    with pytest.raises(InputError, match="must be >= 1 and >= 0"):
        Request(prompt="x", **fields)


@given(fields=st.fixed_dictionaries(DECIDING))
def test_equal_requests_have_equal_keys(fields: dict[str, Any]) -> None:
    first, second = Request(**fields), Request(**fields)
    assert first.key(**PLACE) == second.key(**PLACE)
    assert len(first.key(**PLACE)) == 64


@given(fields=st.fixed_dictionaries(DECIDING), data=st.data())
def test_each_field_that_decides_the_answer_changes_the_key(
    fields: dict[str, Any], data: st.DataObject
) -> None:
    request = Request(**fields)
    name = data.draw(st.sampled_from(sorted(DECIDING)))
    other = replace(request, **{name: data.draw(DECIDING[name])})
    is_same = getattr(other, name) == getattr(request, name)
    assert (other.key(**PLACE) == request.key(**PLACE)) is is_same


@given(fields=st.fixed_dictionaries(DECIDING), other=TEXT)
def test_texts_cannot_be_shifted_between_fields(fields: dict[str, Any], other: str) -> None:
    request = Request(**fields)
    moved = replace(request, system=request.system + request.prompt, prompt="x" + other)
    assert moved.key(**PLACE) != request.key(**PLACE)


def test_provider_model_occurrence_and_task_change_the_key() -> None:
    request = Request(prompt="x")
    keys = {
        request.key(**PLACE),
        request.key(service="openai", model="m"),
        request.key(service="anthropic", model="n"),
        request.key(**PLACE, occurrence=1),
        replace(request, task="summary").key(**PLACE),
        replace(request, variant=1).key(**PLACE),
    }
    assert len(keys) == 6


def test_a_namespace_shares_answers_between_tasks() -> None:
    one = Request(prompt="x", task="summary", namespace="vulnerability")
    two = Request(prompt="x", task="report", namespace="vulnerability", difficulty="complex")
    assert one.key(**PLACE) == two.key(**PLACE)
    assert Request(prompt="x", task="summary").key(**PLACE) == Request(
        prompt="x", namespace="summary"
    ).key(**PLACE)


@given(st.lists(st.integers(0, 10**9), min_size=5, max_size=5))
def test_usage_adds_up(counts: list[int]) -> None:
    fresh, read, write_5m, write_1h, output = counts
    usage = Usage(
        input_tokens=fresh, cache_read_tokens=read, cache_write_5m_tokens=write_5m,
        cache_write_1h_tokens=write_1h, output_tokens=output,
    )  # fmt: skip
    assert usage.prompt_tokens == sum(counts) - output
    assert usage.total_tokens == sum(counts)


def test_a_refusal_is_a_verdict() -> None:
    assert Answer(text="", stop_reason="refusal", model="m", usage=Usage()).is_refusal
    assert not Answer(text="", stop_reason="end_turn", model="m", usage=Usage()).is_refusal
