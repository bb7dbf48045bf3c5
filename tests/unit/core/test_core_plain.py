"""Text of others is one line that a terminal shows and nothing obeys."""

from hypothesis import given
from hypothesis import strategies as st

from workbench.core.plain import one_line


@given(st.text())
def test_one_printable_line_that_stays_as_it_is(text):
    shown = one_line(text)
    assert shown.isprintable()
    assert shown == one_line(shown) == shown.strip()


def test_words_stay_and_codes_go():
    assert one_line("tea\x1b]0;PWNED\x07\u202e\nmilk  é漢") == "tea ]0;PWNED milk é漢"
