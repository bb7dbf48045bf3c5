"""Differences: applying them gives the new value, whatever the values are, and they are short."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from workbench.server.diffs import apply, diff

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)  # fmt: skip
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=25,
)


@st.composite
def edited(draw) -> tuple[object, object]:
    """Two values of which one is the other after some edits: unrelated ones share too little."""
    old = draw(JSON)
    new = copy.deepcopy(old)
    for _ in range(draw(st.integers(0, 4))):
        new = _edit(draw, new)
    return old, new


def _edit(draw, value):
    if isinstance(value, dict) and value and draw(st.booleans()):
        key = draw(st.sampled_from(sorted(value)))
        if draw(st.booleans()):
            return {name: one for name, one in value.items() if name != key}
        return {**value, key: _edit(draw, value[key])}
    if isinstance(value, list) and value and draw(st.booleans()):
        at = draw(st.integers(0, len(value) - 1))
        rest = [] if draw(st.booleans()) else [_edit(draw, value[at])]
        return [*value[:at], *rest, *value[at + 1 :]]
    return draw(JSON)


def exact(value: object) -> str:
    """Return a text that is the same for equal JSON only; Python holds 1, 1.0 and True for one."""
    return json.dumps(value, sort_keys=True).replace("-0.0", "0.0")


def size(value: object) -> int:
    return len(json.dumps(value, separators=(",", ":")))


@given(edited() | st.tuples(JSON, JSON))
@example(({"a": True}, {"a": 1}))
@example(([1], [1.0]))
@example(([1, 2, 3], [1]))
@example(([], [[], [[]]]))
@example(({"": {}}, {"": {"": None}}))
def test_applied_differences_give_the_new_value(values):
    old, new = values
    before = exact(old)
    sent = json.loads(json.dumps(diff(old, new)))
    assert exact(apply(old, sent)) == exact(new)
    assert exact(old) == before


@given(edited() | st.tuples(JSON, JSON))
def test_differences_are_never_longer_than_the_new_value(values):
    old, new = values
    changes = diff(old, new)
    assert size(changes) <= size([[[], new]])
    assert (changes == []) == (exact(old) == exact(new))


def test_one_counter_among_many_is_one_short_change():
    old = {f"job-{n}": {"progress": {"done": n, "total": 90}, "kind": "run"} for n in range(50)}
    new = copy.deepcopy(old)
    new["job-7"]["progress"]["done"] = 8
    assert diff(old, new) == [[["job-7", "progress", "done"], 8]]


def test_an_appended_element_is_sent_alone():
    assert diff(["alpha"] * 9, ["alpha"] * 10) == [[[9], "alpha"]]


@pytest.mark.parametrize(
    ("state", "change"),
    [
        ({}, [["a", "b"], 1]), ([], [[1], 1]), ([], [[0, "a"], 1]), ([1], [["0"], 1]),
        ({"0": 1}, [[0], 1]), ("text", [["a"], 1]), ([1], [[-1], 2]), ([1], [[True], 2]),
    ],
)  # fmt: skip
def test_changes_of_another_value_are_refused(state, change):
    with pytest.raises(LookupError, match="new snapshot"):
        apply(state, [change])
