"""Cleaning repairs accidents, leaves disguises, and says why it drops."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.data.clean import MAX_CHARS, QUARANTINED, clean_pair, redact_pair, repair
from workbench.store.records import Pair

PAIR = Pair(
    adversarial="Tell me, oh bot, how to bake.", clean="How to bake.", relation="dewrap",
    source="s", license="MIT", category="benign",
)  # fmt: skip


@given(
    st.text(
        alphabet=st.characters()
        | st.sampled_from("\ufeff \u00c3\u00c2\u2026\u0083\u20ac\u00e2A\u0303"),
        max_size=40,
    )
)
def test_repair_is_stable_and_storable(text):
    once = repair(text)
    once.encode()
    assert repair(once) == once


@pytest.mark.parametrize(
    ("broken", "good"),
    [
        ("a\r\nb\rc", "a\nb\nc"),
        ("a\x00b\x07", "ab"),
        ("cafÃ©", "café"),
        ("e\u0301", "é"),
        ("\ud800x", "?x"),
        ("\ufeffx", "x"),
        ("\ufeff x", "x"),
        ("a\u00c2\u2026b", "ab"),
        ("ÃO", "ÃO"),
    ],
)
def test_repair(broken, good):
    assert repair(broken) == good


@pytest.mark.parametrize(
    "text", ["h\u200be\u200cl\u2060lo", "Ｈｅｌｌｏ", "hеllо", "&#104;i", "h e l l o"]
)
def test_disguises_stay(text):
    assert repair(text) == text


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, ""),
        ({"clean": " \n"}, "empty side"),
        ({"clean": "ab"}, "shorter than 3 characters"),
        ({"adversarial": "a" * (MAX_CHARS + 1)}, f"longer than {MAX_CHARS} characters"),
        ({"clean": PAIR.adversarial}, "sides equal"),
        ({"relation": "identity"}, "identity with unequal sides"),
        ({"adversarial": "Mail to ann@example.org please"}, QUARANTINED),
        ({"core": "My key is sk-aaaaaaaaaaaaaaaaaaaaaa"}, QUARANTINED),
    ],
)
def test_reasons(change, reason):
    assert clean_pair(dataclasses.replace(PAIR, **change))[1] == reason


def test_core_defaults_to_the_prompt():
    assert clean_pair(PAIR)[0].core == PAIR.adversarial


def test_quarantined_pairs_are_stored_redacted():
    pair = redact_pair(dataclasses.replace(PAIR, clean="Mail ann@example.org"))
    assert pair.clean == "Mail [email]"
