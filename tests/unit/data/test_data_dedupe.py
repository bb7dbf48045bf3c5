"""Near-duplicates against an exact oracle, on planted ones and on texts that share templates."""

import time
from functools import cache
from itertools import combinations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.data.dedupe import (
    THRESHOLD,
    jaccard,
    near_duplicates,
    near_links,
    normalize,
    resembles_any,
)

WORDS = [f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in ("rt", "nd", "sk", "ll", "m")]


def sentence(draw, words=30):
    return " ".join(draw.choices(WORDS, k=words))


@cache
def grams(text):
    return {text[i : i + 5] for i in range(max(1, len(text) - 4))}


def oracle(left, right):
    a, b = grams(left), grams(right)
    return len(a & b) / len(a | b)


def planted(number):
    """Texts, some with a word or two changed, and templates around different cores."""
    draw = Random(number)
    texts = [sentence(draw) for _ in range(150)]
    for text in texts[:80]:
        words = text.split()
        for _ in range(draw.randint(1, 3)):
            words[draw.randrange(len(words))] = draw.choice(WORDS)
        texts.append(" ".join(words))
    frame = sentence(draw, 20)
    texts += [f"{frame} {sentence(draw, 6)}" for _ in range(60)]
    draw.shuffle(texts)
    return texts


@pytest.mark.parametrize("number", range(3))
def test_links_equal_the_oracle(number):
    texts = planted(number)
    expected = {
        (i, j) for (i, a), (j, b) in combinations(enumerate(texts), 2) if oracle(a, b) >= THRESHOLD
    }
    assert len(expected) > 20
    found = set(near_links(texts))
    assert found <= expected
    assert len(found) >= 0.99 * len(expected)


@given(st.text(max_size=40), st.text(max_size=40))
def test_jaccard(left, right):
    assert jaccard(left, right) == oracle(left, right)


@given(st.lists(st.text(max_size=30), max_size=12))
def test_equal_texts_are_always_found_and_links_always_true(texts):
    keys = [normalize(text) for text in texts]
    links = set(near_links(keys))
    for i, j in combinations(range(len(keys)), 2):
        if keys[i] == keys[j]:
            assert (i, j) in links
    assert all(i < j and oracle(keys[i], keys[j]) >= THRESHOLD for i, j in links)


def test_greedy_keeps_the_first_and_never_points_at_a_removed_text():
    texts = planted(9)
    repeats = near_duplicates(texts)
    for index, origin in enumerate(repeats):
        assert origin < index
        assert origin < 0 or repeats[origin] < 0
    kept = [text for text, origin in zip(texts, repeats, strict=True) if origin < 0]
    assert not near_links(kept)


def test_a_chain_breaks_where_its_middle_is_removed():
    words = sentence(Random(2), 40).split()
    first, middle, last = (" ".join(["zzzzz"] * n + words[n:]) for n in (0, 3, 7))
    assert min(oracle(first, middle), oracle(middle, last)) >= THRESHOLD > oracle(first, last)
    assert near_duplicates([first, middle, last]).tolist() == [-1, 0, -1]


def test_within_keeps_buckets_apart():
    text = sentence(Random(1))
    assert near_duplicates([text] * 3, within=["a", "b", "a"]).tolist() == [-1, -1, 0]


def test_more_copies_than_are_compared_in_full():
    text = sentence(Random(1))
    assert near_duplicates([text] * 500).tolist() == [-1] + [0] * 499


def test_normalize_sees_through_disguise():
    plain = normalize("How do I bake")
    assert normalize("Ｈｏｗ  ｄｏ I\n BAKE") == plain
    assert normalize("H\u200bo\u2060w do I ba\u00adke\ufeff") == plain


def test_resembles_any():
    draw = Random(3)
    known = [sentence(draw) for _ in range(5)]
    texts = [known[2] + " a", sentence(draw)]
    assert resembles_any(texts, known).tolist() == [True, False]
    assert resembles_any(texts, []).tolist() == [False, False]
    assert resembles_any([], known).tolist() == []


def test_fast_enough_for_a_laptop():
    draw = Random(5)
    texts = [sentence(draw, 20) for _ in range(20_000)]
    started = time.process_time()
    near_duplicates(texts)
    assert time.process_time() - started < 6  # about 0.5 s alone on a laptop core
