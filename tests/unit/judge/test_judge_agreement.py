"""The oracle of agreement between judges, on published tables and against another library."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from judge_agreement import cohen_kappa, krippendorff_alpha, votes_of

labels = st.integers(0, 2)


def grid(judges, *, missing=False):
    one = st.one_of(st.none(), labels) if missing else labels
    return st.integers(1, 12).flatmap(
        lambda n: st.lists(st.lists(one, min_size=n, max_size=n), min_size=judges, max_size=judges)
    )


def test_cohen_on_a_published_table():
    """Fifty grant proposals: 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no; kappa .4."""
    pairs = [("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15
    found = cohen_kappa(*zip(*pairs, strict=True))
    assert found == (pytest.approx(0.7), pytest.approx(0.4))


def test_krippendorff_on_the_published_example_with_missing_opinions():
    """Krippendorff 2011, section C: four observers, twelve units; nominal alpha .743."""
    votes = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    ]
    assert krippendorff_alpha(votes).beyond_chance == pytest.approx(0.743, abs=5e-4)


@given(grid(2))
def test_cohen_equals_sklearn(votes):
    found = cohen_kappa(*votes)
    if found.beyond_chance is not None:
        assert found.beyond_chance == pytest.approx(cohen_kappa_score(*votes))
    else:
        assert len({*votes[0], *votes[1]}) == 1  # chance alone would agree always


@given(grid(3, missing=True), st.permutations(range(3)))
def test_order_of_judges_and_items_nobody_judged_twice_change_nothing(votes, order):
    found = krippendorff_alpha(votes)
    assert krippendorff_alpha([votes[at][::-1] for at in order]) == pytest.approx(found)
    lone = [[*votes[0], 1], [*votes[1], None], [*votes[2], None]]
    assert krippendorff_alpha(lone) == pytest.approx(found)
    if found.beyond_chance is not None:
        assert found.beyond_chance <= 1
        assert (found.beyond_chance == 1) == (found.observed == 1)


def test_what_is_undefined_is_none():
    assert cohen_kappa([None, 1], [1, None]) == (None, None)
    assert cohen_kappa([], []) == (None, None)
    assert cohen_kappa([1, 1], [1, 1]) == (1.0, None)
    assert krippendorff_alpha([[1, None], [None, 0]]) == (None, None)


def test_votes_of_stored_scores():
    scores = [{"a": 0.9, "b": 0.4}, {"a": 0.1, "c": 0.2}, {"a": 0.5, "b": 0.3, "c": 0.9}, {}]
    votes = votes_of(scores, thresholds={"a": 0.5, "b": 0.3, "c": 0.3})
    assert votes == {
        "a": [True, False, True, None],
        "b": [True, None, True, None],
        "c": [None, False, True, None],
    }
