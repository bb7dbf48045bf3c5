from __future__ import annotations

import math
import random
import re
import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.core.errors import InputError
from workbench.llm.context import fit, lexical, safe_tokens

WORDS = st.sampled_from(["cat", "dog", "Fox", "owl", "eel", "éclair"])
DOCUMENTS = st.lists(st.lists(WORDS, max_size=12).map(" ".join), max_size=12)


def bm25_by_the_book(
    query: str, documents: list[str], k1: float = 1.2, b: float = 0.75
) -> list[float]:
    """The formula written out, term by term."""
    split = [re.findall(r"\w+", document.lower()) for document in documents]
    mean = sum(len(words) for words in split) / max(len(split), 1)
    scores = []
    for words in split:
        total = 0.0
        for term in sorted(set(re.findall(r"\w+", query.lower()))):
            n = sum(term in other for other in split)
            frequency = words.count(term)
            if frequency:
                idf = math.log(1 + (len(split) - n + 0.5) / (n + 0.5))
                length = 1 - b + b * len(words) / mean
                total += idf * frequency * (k1 + 1) / (frequency + k1 * length)
        scores.append(total)
    return scores


@given(query=st.lists(WORDS, max_size=5).map(" ".join), documents=DOCUMENTS)
def test_the_lexical_ranker_is_bm25(query: str, documents: list[str]) -> None:
    assert lexical(query, documents) == pytest.approx(bm25_by_the_book(query, documents))


@given(
    query=st.lists(WORDS, max_size=5).map(" ".join),
    documents=DOCUMENTS,
    budget=st.integers(1, 60),
)
def test_what_is_chosen_fits_and_nothing_more_relevant_would(
    query: str, documents: list[str], budget: int
) -> None:
    chosen = fit(documents, query=query, max_tokens=budget)
    assert sum(map(safe_tokens, chosen)) <= budget
    scores = lexical(query, documents)
    order = sorted(range(len(documents)), key=lambda i: (-scores[i], i))
    if any(safe_tokens(document) <= budget for document in documents):
        taken: list[str] = []
        for i in order:
            if sum(map(safe_tokens, [*taken, documents[i]])) <= budget:
                taken.append(documents[i])
        assert chosen == taken
        assert not Counter(chosen) - Counter(documents)


def test_a_document_too_long_is_passed_over_not_the_end() -> None:
    long, short, other = "cat " * 100 + "cat", "cat dog", "dog"
    assert fit([long, short, other], query="cat", max_tokens=4) == [short, other]


def test_where_none_fits_the_best_is_cut_after_a_sentence() -> None:
    text = 'The cat sat. It said "no." Then it left for 3.5 hours! And so on and on and on.'
    rest = "Nothing to see here whatsoever, and that without any full stop " * 3
    cut = fit([rest, text], query="cat", max_tokens=12, count=len)
    assert cut == ["The cat sat."]
    assert fit([text], query="cat", max_tokens=26, count=len) == ['The cat sat. It said "no."']
    assert fit([text], query="cat", max_tokens=54, count=len) == [text[:54]]
    assert fit([text], query="cat", max_tokens=5, count=len) == []
    assert fit(["猫在坐。它走了。" * 9], query="猫", max_tokens=7) == ["猫在坐。"]


def test_ranker_and_counter_can_be_passed_in() -> None:
    documents = ["a", "bb", "ccc"]
    chosen = fit(
        documents, query="", max_tokens=2, ranker=lambda _, texts: [len(t) for t in texts],
        count=lambda _: 1,
    )  # fmt: skip
    assert chosen == ["ccc", "bb"]


def test_ties_keep_the_order_given() -> None:
    assert fit(["b", "a", "c"], query="nothing", max_tokens=3) == ["b", "a", "c"]


def test_nothing_in_nothing_out_and_no_budget_is_refused() -> None:
    assert fit([], query="cat", max_tokens=5) == []
    assert fit(["", "  "], query="", max_tokens=5) == ["", "  "]
    with pytest.raises(InputError, match="max_tokens=0"):
        fit(["a"], query="a", max_tokens=0)


def test_lone_surrogates_are_counted_not_a_crash() -> None:
    assert safe_tokens("\ud800") == 1
    assert fit(["\ud800 cat"], query="cat", max_tokens=9) == ["\ud800 cat"]


def test_ten_thousand_documents_take_well_under_a_second() -> None:
    chance = random.Random(0)
    vocabulary = [f"word{i}" for i in range(5_000)]
    documents = [" ".join(chance.choices(vocabulary, k=80)) for _ in range(10_000)]
    began = time.process_time()
    chosen = fit(documents, query="word1 word2 word3 word4", max_tokens=4_000)
    assert time.process_time() - began < 0.8
    assert 10 < len(chosen) < 30
