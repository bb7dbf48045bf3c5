"""Bodies, queries and cursors: whatever is sent, it is as the schema says or it is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from workbench.server.bodies import check, parse_body, parse_query
from workbench.server.problems import Refusal
from workbench.server.routes import read_cursor, write_cursor
from workbench.server.schemas import CURSOR, EXECUTE, GENERATE, LIMIT

JSON = "application/json"
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(), one, max_size=3),
    max_leaves=8,
)
CONFIG = st.fixed_dictionaries(
    {}, optional={"max_tests": ANY, "seed": ANY, "plugins": ANY, "explore": ANY, "other": ANY}
)
FREE = {"type": "object"}


def outcome(run, *arguments, **more):
    """Return what is returned, or the refusal."""
    try:
        return run(*arguments, **more)
    except Refusal as refused:
        return refused


def refusal(run, *arguments, **more):
    with pytest.raises(Refusal) as caught:
        run(*arguments, **more)
    return caught.value


@given(CONFIG)
def test_a_body_is_taken_exactly_if_its_schema_says_so(config):
    body = {"config": config}
    try:
        text = json.dumps(body, allow_nan=False)
        text.encode()
    except (ValueError, UnicodeEncodeError):
        return
    is_valid = Draft202012Validator(GENERATE).is_valid(json.loads(text))
    found = outcome(parse_body, text.encode(), media_type=JSON, schema=GENERATE)
    if isinstance(found, Refusal):
        assert found.status_code == 400
        assert not is_valid or "surrogate" in found.detail
    else:
        assert is_valid
        assert found == body


@given(st.binary(max_size=200))
def test_bytes_are_a_body_or_refused(raw):
    found = outcome(parse_body, raw, media_type=JSON, schema=FREE)
    assert isinstance(found, dict) or found.status_code == 400


@pytest.mark.parametrize("depth", [14, 15, 16, 17, 40, 100_000])
def test_bodies_are_not_nested_deep(depth):
    raw = b'{"a":' + b"[" * depth + b"]" * depth + b"}"
    if depth < 16:
        assert parse_body(raw, media_type=JSON, schema=FREE)
    else:
        assert refusal(parse_body, raw, media_type=JSON, schema=FREE).status_code == 400


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "json"])
def test_a_form_is_no_body(kind):
    assert refusal(parse_body, b"{}", media_type=kind, schema=FREE).status_code == 415


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8"])
def test_json_is_a_body(kind):
    assert parse_body(b"{}", media_type=kind, schema=FREE) == {}


def test_whole_numbers_are_integers_however_they_are_written():
    body = parse_body(b'{"config": {"max_tests": 1e1}}', media_type=JSON, schema=GENERATE)
    assert repr(body["config"]["max_tests"]) == "10"


def test_a_misspelt_field_is_named_with_the_one_that_was_meant():
    assert "did you mean 'config'" in refusal(check, {"confg": 1}, GENERATE, where="body").detail


def test_a_pattern_does_not_let_a_line_end_pass():
    good = {"datasetId": "a" * 64, "providers": ["bare"]}
    check(good, EXECUTE, where="body")
    for wrong in ({"datasetId": "a" * 64 + "\n"}, {"providers": ["bare\n"]}):
        refusal(check, {**good, **wrong}, EXECUTE, where="body")


@given(st.dictionaries(st.sampled_from(["limit", "cursor", "x", "token"]),
                       st.lists(st.binary(max_size=8), min_size=1, max_size=2)))  # fmt: skip
def test_queries_have_known_names_and_values_as_their_schema_says(given_):
    schemas = {"limit": LIMIT, "cursor": CURSOR}
    found = outcome(parse_query, given_, schemas=schemas)
    if isinstance(found, Refusal):
        assert found.status_code == 400
        return
    assert "x" not in given_
    assert set(found) == {"limit", "cursor"}
    assert 1 <= found["limit"] <= 200


@given(st.lists(st.one_of(st.text(st.characters(categories=["L", "N", "P"]), max_size=40),
                          st.integers(0, 2**53 - 1)), max_size=3))  # fmt: skip
def test_a_cursor_is_read_as_it_was_written(place):
    kinds = [type(one) for one in place]
    text = write_cursor(*place)
    assert read_cursor(text, *kinds) == place
    if place:
        refusal(read_cursor, text, *kinds, str)


@given(st.text(max_size=60))
def test_no_text_makes_a_cursor_that_raises_anything_else(text):
    found = outcome(read_cursor, text, int)
    if isinstance(found, Refusal):
        assert found.status_code == 422
    else:
        assert 0 <= (found or [0])[0] < 2**53


def test_an_object_that_names_a_field_twice_is_refused():
    raw = b'{"a": 1, "b": {"c": 1, "c": 2}}'
    found = refusal(parse_body, raw, media_type=JSON, schema=FREE)
    assert found.status_code == 400
    assert "'c' is given twice" in found.detail
