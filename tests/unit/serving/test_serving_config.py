"""Limits that make no sense are refused, and so are bodies."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.core.errors import ConfigError
from workbench.diffusion.condition import Condition
from workbench.serving.bodies import parse_sanitize
from workbench.serving.config import ServeConfig
from workbench.serving.refusal import Refusal

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
NAMES = st.sampled_from(["text", "texts", "gain", "context", "detail", "domain", "language", "x"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_texts": 0}, {"queue_s": math.nan}, {"gain": -1.0}, {"gain": math.inf},
        {"shadow_share": 1.5}, {"is_open": True, "host": "0.0.0.0"}, {"max_body_bytes": -1},
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(wrong) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong)).removeprefix("is_")):
        ServeConfig(**wrong)


@given(body=st.dictionaries(NAMES, JSON, max_size=4))
def test_any_body_is_understood_or_refused(body) -> None:
    refused, understood = None, None
    try:
        understood = parse_sanitize(body, gain=1.0)
    except Refusal as error:
        refused = error
    if understood is None:
        assert refused.status_code == 422
        assert refused.detail.isprintable()
        return
    texts, condition, gain = understood
    assert all(isinstance(one, str) for one in texts)
    assert condition.row()
    assert 0 <= gain < math.inf


def test_a_body_says_texts_condition_and_gain() -> None:
    body = {"texts": ["a", "b"], "context": "research", "detail": 0, "language": "en", "gain": 2}
    known = Condition(context="research", detail=0, language="en")
    assert parse_sanitize(body, gain=1.0) == (["a", "b"], known, 2.0)
    assert parse_sanitize({"text": "a"}, gain=0.5) == (["a"], Condition(), 0.5)
