"""Ids are a function of content alone, and of all of it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.core.identity import (
    canonical_json,
    content_id,
    file_sha256,
    new_id,
    sorted_ids_hash,
    stable_fraction,
    text_id,
)

# every character JSON can carry; lone surrogates have no UTF-8 form and get a test of their own
texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_canonical_json_reads_back_and_is_a_fixed_point(value):
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text


@given(st.dictionaries(texts, values, max_size=6))
def test_order_of_keys_does_not_count(mapping):
    backwards = dict(reversed(list(mapping.items())))
    assert content_id(backwards) == content_id(mapping)


@given(st.lists(texts), st.lists(texts))
def test_text_ids_are_equal_only_for_equal_parts(one, two):
    assert (text_id(*one) == text_id(*two)) == (one == two)


@pytest.mark.parametrize(
    ("one", "two"), [(("ab", "c"), ("a", "bc")), (("a",), ("a", "")), (("a\0b",), ("a", "b"))]
)
def test_the_boundary_between_parts_counts(one, two):
    assert text_id(*one) != text_id(*two)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_what_json_cannot_say_is_refused(number):
    with pytest.raises(ValueError, match="JSON compliant"):
        content_id({"deep": [number]})


def test_a_lone_surrogate_has_an_id():
    assert text_id("\ud800") != text_id("\ud801")


@given(st.binary(max_size=4096))
def test_file_hash_is_that_of_hashlib(tmp_path_factory, data):
    file = tmp_path_factory.getbasetemp() / "hashed"
    file.write_bytes(data)
    assert file_sha256(file) == hashlib.sha256(data).hexdigest()


def test_a_file_larger_than_a_chunk_is_hashed_whole(tmp_path):
    data = bytes(range(256)) * 4096 * 3 + b"rest"
    file = tmp_path / "large"
    file.write_bytes(data)
    assert file_sha256(file) == hashlib.sha256(data).hexdigest()


@given(st.lists(texts, max_size=6), st.randoms())
def test_order_of_arrival_does_not_count_but_repetition_does(ids, dice):
    shuffled = list(ids)
    dice.shuffle(shuffled)
    assert sorted_ids_hash(shuffled) == sorted_ids_hash(ids)
    assert sorted_ids_hash([*ids, "more"]) != sorted_ids_hash(ids)


@given(texts)
def test_a_fraction_is_in_range_and_repeats(text):
    assert 0.0 <= stable_fraction("split", text) < 1.0
    assert stable_fraction("split", text) == stable_fraction("split", text)


def test_fractions_are_spread_evenly():
    found = [stable_fraction("even", str(number)) for number in range(4000)]
    for edge in (0.1, 0.25, 0.5, 0.9):
        share = sum(fraction < edge for fraction in found) / len(found)
        assert share == pytest.approx(edge, abs=4 * (edge * (1 - edge) / len(found)) ** 0.5)


def test_new_ids_differ_and_sort_by_time(monkeypatch):
    assert len({new_id("run") for _ in range(1000)}) == 1000
    clock = iter([1_000_000 * ms for ms in (1, 2**31, 2**40)])
    monkeypatch.setattr("time.time_ns", lambda: next(clock))
    ids = [new_id("run") for _ in range(3)]
    assert ids == sorted(ids)


def test_another_process_with_another_hash_seed_gives_the_same_ids():
    code = (
        "from workbench.core.identity import *;"
        "print(content_id({'b': [1, 'é'], 'a': {}}), sorted_ids_hash({'x', 'y', 'z'}))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    expected = content_id({"a": {}, "b": [1, "é"]}), sorted_ids_hash("zyx")
    assert outputs == {" ".join(expected) + "\n"}
