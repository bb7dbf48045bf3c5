"""What every registered transform promises."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.data.transforms import TRANSFORMS

NAMES = TRANSFORMS.names()
TEXT = "Please bake a loaf of rye bread, then tell me how long it keeps."
# These reach every character; the others promise their inverse for ASCII only, as they turn
# letters into look-alikes that a text may hold already.
EXACT = {"base64", "hex", "rot13", "reversal", "spacing", "html_entities", "url_encode"}
EXACT_ON_ASCII = {"homoglyph", "zero_width", "full_width"}
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
ASCII = st.text(string.printable, max_size=60)


def test_the_promised_ones_are_there():
    others = {"leetspeak", "pig_latin", "morse", "payload_splitting"}
    assert set(NAMES) >= EXACT | EXACT_ON_ASCII | others


@pytest.mark.parametrize("name", NAMES)
def test_name_change_and_determinism(name):
    transform = TRANSFORMS.get(name)
    assert transform.name == name
    assert transform.apply(TEXT, seed=1) != TEXT
    assert transform.apply(TEXT, seed=1) == transform.apply(TEXT, seed=1)


@pytest.mark.parametrize("name", NAMES)
@given(text=ANY_TEXT, seed=st.integers(-5, 5))
def test_any_text_is_taken(name, text, seed):
    changed = TRANSFORMS.get(name).apply(text, seed=seed)
    assert changed.encode().decode() == changed  # no lone surrogates: it can be stored and sent


@pytest.mark.parametrize("name", NAMES)
@given(text=ANY_TEXT, seed=st.integers(-5, 5))
def test_inverse(name, text, seed):
    transform = TRANSFORMS.get(name)
    if name in EXACT_ON_ASCII:
        text = text.encode("ascii", "ignore").decode()
    back = transform.invert(transform.apply(text, seed=seed))
    assert back == (text if name in EXACT | EXACT_ON_ASCII else None)


@given(text=ASCII, seed=st.integers(0, 99))
def test_splitting_loses_nothing(text, seed):
    split = TRANSFORMS.get("payload_splitting").apply(text, seed=seed)
    for word in text.split():
        assert word in split


def test_known_outputs():
    def apply(name, text):
        return TRANSFORMS.get(name).apply(text, seed=0)

    assert apply("morse", "SOS now") == "... --- ... / -. --- .--"
    assert apply("pig_latin", "hello apple") == "ellohay appleway"
    assert apply("rot13", "Hello") == "Uryyb"
    assert apply("full_width", "Hi 1") == "Ｈｉ　１"
    assert apply("spacing", "abc") == "a b c"
