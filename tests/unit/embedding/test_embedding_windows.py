from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from workbench.embedding.windows import STRIDE_TOKENS, WINDOW_TOKENS, windows


@given(st.integers(0, 3000))
def test_windows_cover_every_token_and_overlap(count):
    tokens = list(range(count))
    cut = windows(tokens)
    assert {token for window in cut for token in window} == set(tokens)
    assert all(len(window) <= WINDOW_TOKENS for window in cut)
    assert all(len(window) == WINDOW_TOKENS for window in cut[:-1])
    for before, after in pairwise(cut):
        assert list(before[STRIDE_TOKENS:]) == list(after[: WINDOW_TOKENS - STRIDE_TOKENS])


@given(st.integers(0, WINDOW_TOKENS))
def test_a_text_that_fits_is_one_window(count):
    assert windows(list(range(count))) == [list(range(count))]


def test_no_window_holds_only_tokens_seen_before():
    for count in range(WINDOW_TOKENS + 1, 1200):
        assert len(windows(list(range(count)))[-1]) > WINDOW_TOKENS - STRIDE_TOKENS
