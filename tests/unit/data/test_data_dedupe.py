"""Near-duplicates against an exact oracle, on planted ones and on texts that share templates."""

import math
import time
import tracemalloc
from functools import cache
from itertools import combinations
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.data.dedupe import (
    SAME_WRAPPER,
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


def planted(number, size=150):
    """Texts, some with a word or two changed, and templates around different cores."""
    draw = Random(number)
    texts = [sentence(draw) for _ in range(size)]
    for text in texts[: size * 8 // 15]:
        words = text.split()
        for _ in range(draw.randint(1, 3)):
            words[draw.randrange(len(words))] = draw.choice(WORDS)
        texts.append(" ".join(words))
    frame = sentence(draw, 20)
    texts += [f"{frame} {sentence(draw, 6)}" for _ in range(size * 6 // 15)]
    draw.shuffle(texts)
    return texts


@cache
def similarities(texts):
    return {(i, j): oracle(a, b) for (i, a), (j, b) in combinations(enumerate(texts), 2)}


def links_by_force(texts, labels=None, threshold=THRESHOLD):
    return {
        (i, j)
        for (i, j), similarity in similarities(tuple(texts)).items()
        if similarity >= threshold and (labels is None or labels[i] == labels[j])
    }


def repeats_by_force(texts, labels):
    """Whether each text is like an earlier one that is kept."""
    kept, found = [], []
    for text, label in zip(texts, labels, strict=True):
        found.append(any(label == one and oracle(text, other) >= THRESHOLD for other, one in kept))
        if not found[-1]:
            kept.append((text, label))
    return found


SOME = st.text(st.sampled_from("ab \0é日\ud800😀"), max_size=14)
LETTERS = st.text("abcdefgh ", min_size=40, max_size=60)


@st.composite
def near(draw):
    """Texts that are a few edits apart, so that similarities lie on both sides of a threshold."""
    base = draw(LETTERS)
    texts = [base]
    for _ in range(draw(st.integers(1, 14))):
        text = draw(st.sampled_from(texts))
        at = draw(st.integers(0, len(text)))
        texts.append(
            text[:at] + draw(st.text("abxy", max_size=5)) + text[at + draw(st.integers(0, 5)) :]
        )
    return draw(st.permutations(texts))


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("size", [150, 280], ids=["all compared", "hashed"])
def test_links_equal_the_oracle(number, size):
    texts = planted(number, size)
    assert (len(texts) <= 512) == (size == 150)
    expected = links_by_force(texts)
    assert len(expected) > 20
    found = near_links(texts)
    assert len(found) == len(set(found))
    assert set(found) <= expected
    assert len(found) >= (1 if size == 150 else 0.99) * len(expected)


@pytest.mark.parametrize("threshold", [0.45, SAME_WRAPPER, 0.9])
def test_hashed_links_at_other_thresholds(threshold):
    texts = planted(0, 280)
    # Texts of one frame, of 26 words, make long runs, in which not all are compared.
    expected = {
        pair
        for pair in links_by_force(texts, threshold=threshold)
        if all(len(texts[index].split()) == 30 for index in pair)
    }
    found = set(near_links(texts, threshold=threshold))
    assert all(oracle(texts[i], texts[j]) >= threshold for i, j in found)
    assert len(found & expected) >= 0.98 * len(expected)


@given(near(), st.sampled_from([0.3, SAME_WRAPPER, THRESHOLD, 1.0]), st.data())
def test_small_sets_are_compared_without_loss(texts, threshold, data):
    labels = data.draw(st.lists(st.sampled_from("ab"), min_size=len(texts), max_size=len(texts)))
    found = near_links(texts, within=labels, threshold=threshold)
    assert sorted(found) == sorted(links_by_force(texts, labels, threshold))


@given(near(), st.data())
def test_removed_are_those_like_an_earlier_kept_one(texts, data):
    labels = data.draw(st.lists(st.sampled_from("ab"), min_size=len(texts), max_size=len(texts)))
    repeats = near_duplicates(texts, within=labels).tolist()
    assert [origin >= 0 for origin in repeats] == repeats_by_force(texts, labels)
    for index, origin in enumerate(repeats):
        if origin >= 0:
            assert origin < index
            assert repeats[origin] < 0
            assert labels[origin] == labels[index]
            assert oracle(texts[origin], texts[index]) >= THRESHOLD


@given(SOME, SOME)
def test_a_link_is_exactly_at_the_threshold(left, right):
    similarity = oracle(left, right)
    if similarity > 0:
        assert near_links([left, right], threshold=similarity) == [(0, 1)]
    if similarity < 1:
        assert near_links([left, right], threshold=math.nextafter(similarity, 2)) == []


def test_more_characters_than_fit_into_an_integer():
    alphabet = "".join(map(chr, range(0x4E00, 0x4E00 + 5000)))
    texts = [alphabet, alphabet[400:], alphabet[1100:]]
    assert near_links(texts) == [(0, 1), (1, 2)]


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


@pytest.mark.parametrize("count", [500, 5_000])
def test_more_copies_than_are_compared_in_full(count):
    text = sentence(Random(1))
    assert near_duplicates([text] * count).tolist() == [-1] + [0] * (count - 1)


def test_crowds_of_like_texts_take_linear_time():
    draw = Random(6)
    texts = [f"{sentence(Random(at % 3), 40)} {sentence(draw, 1)} {at}" for at in range(40_000)]
    started = time.process_time()
    repeats = near_duplicates(texts)
    assert time.process_time() - started < 20  # about 2 s alone on a laptop core
    assert np.flatnonzero(repeats < 0).tolist() == [0, 1, 2]
    assert (repeats[3:] == np.arange(3, len(texts)) % 3).all()


def test_large_buckets_and_blocks_equal_the_oracle(monkeypatch):
    monkeypatch.setattr("workbench.data.dedupe._BLOCK", 150)
    monkeypatch.setattr("workbench.data.dedupe._SMALL", 64)
    texts = planted(0, 280)
    draw = Random(8)
    labels = [draw.choice(("large", "larger", "larger", str(at // 9))) for at in range(len(texts))]
    expected = repeats_by_force(texts, labels)
    repeats = near_duplicates(texts, within=labels)
    assert sum(expected) > 20
    assert ((repeats >= 0) == expected).mean() > 0.998
    for index in np.flatnonzero(repeats >= 0):
        origin = repeats[index]
        assert labels[origin] == labels[index]
        assert origin < index
        assert repeats[origin] < 0
        assert oracle(texts[origin], texts[index]) >= THRESHOLD
    assert set(near_links(texts, within=labels)) <= links_by_force(texts, labels)


def test_memory_is_bounded_where_one_long_text_repeats_itself():
    texts = ["a" * 200_000, "a" * 150_000]
    texts += [f"{sentence(Random(at // 2))} {at}" for at in range(2, 202)]
    tracemalloc.start()
    repeats = near_duplicates(texts, within=[str(at // 2) for at in range(202)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert repeats.tolist() == [at - 1 if at % 2 else -1 for at in range(202)]
    assert peak < 60e6


def test_short_texts_and_none():
    assert near_links([]) == []
    assert near_duplicates([]).tolist() == []
    assert near_duplicates(["", "a", "", "a\0\0\0\0", "a"]).tolist() == [-1, -1, 0, -1, 1]


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


def test_resembles_any_of_many():
    texts = planted(5, 400)
    known, keys = texts[:500], texts[500:]
    found = resembles_any(keys, known)
    expected = [any(oracle(key, one) >= THRESHOLD for one in known) for key in keys]
    assert sum(expected) > 20
    assert not (found & ~np.array(expected)).any()
    assert sum(found) >= 0.99 * sum(expected)


def test_fast_enough_for_a_laptop():
    draw = Random(5)
    texts = [sentence(draw, 20) for _ in range(20_000)]
    started = time.process_time()
    near_duplicates(texts)
    assert time.process_time() - started < 6  # about 0.5 s alone on a laptop core
