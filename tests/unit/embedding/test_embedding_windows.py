from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from workbench.embedding.windows import STRIDE_TOKENS, WINDOW_TOKENS, merge, windows


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


@given(st.integers(0, 3000))
def test_merging_windows_gives_back_each_token_once(count):
    rows = np.arange(count, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(merge(windows(rows)), rows)


def test_the_seam_lies_in_the_middle_of_what_two_windows_saw():
    one, other = np.zeros((254, 1), np.float32), np.ones((254, 1), np.float32)
    merged = merge([one, other])
    assert len(merged) == 190 + 254
    assert merged[:222].max() == 0  # 190 to 253 were seen twice
    assert merged[222:].min() == 1
