import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from workbench.core.errors import ConfigError
from workbench.judge.agreement import (
    agreement_of,
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha,
    votes_of,
)

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


def test_fleiss_on_a_published_table():
    """Fourteen raters, ten subjects, five categories; P = .378, kappa = .210."""
    counts = [
        (0, 0, 0, 0, 14), (0, 2, 6, 4, 2), (0, 0, 3, 5, 6), (0, 3, 9, 2, 0), (2, 2, 8, 1, 1),
        (7, 7, 0, 0, 0), (3, 2, 6, 3, 0), (2, 5, 3, 2, 2), (6, 5, 2, 1, 0), (0, 2, 2, 3, 7),
    ]  # fmt: skip
    items = [
        [category for category, count in enumerate(row) for _ in range(count)] for row in counts
    ]
    observed, kappa = fleiss_kappa(list(zip(*items, strict=True)))
    assert observed == pytest.approx(0.378, abs=5e-4)
    assert kappa == pytest.approx(0.210, abs=5e-4)


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


@given(grid(4))
def test_alpha_is_fleiss_corrected_for_small_samples(votes):
    """Without gaps, 1 - alpha = (1 - kappa) * (N - 1) / N for N opinions in all."""
    kappa, alpha = fleiss_kappa(votes).beyond_chance, krippendorff_alpha(votes).beyond_chance
    assert (kappa is None) == (alpha is None)
    if kappa is not None:
        n = 4 * len(votes[0])
        assert 1 - alpha == pytest.approx((1 - kappa) * (n - 1) / n)


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
    assert fleiss_kappa([[1, 0]]) == (None, None)
    assert krippendorff_alpha([[1, None], [None, 0]]) == (None, None)


def test_judges_of_other_items_are_refused():
    for measure in (cohen_kappa, lambda *votes: fleiss_kappa(votes)):
        with pytest.raises(ConfigError, match="judged 1, 2 items"):
            measure([1], [1, 2])
    with pytest.raises(ConfigError, match="use krippendorff_alpha"):
        fleiss_kappa([[1, None], [1, 1]])


def test_agreement_of_stored_scores():
    scores = [{"a": 0.9, "b": 0.4}, {"a": 0.1, "c": 0.2}, {"a": 0.5, "b": 0.3, "c": 0.9}, {}]
    votes = votes_of(scores, thresholds={"a": 0.5, "b": 0.3, "c": 0.3})
    assert votes == {
        "a": [True, False, True, None],
        "b": [True, None, True, None],
        "c": [None, False, True, None],
    }
    rows = agreement_of(votes)
    assert [(row["judges"], row["n"]) for row in rows] == [
        (["a", "b"], 2), (["a", "c"], 2), (["b", "c"], 1), (["a", "b", "c"], 3),
    ]  # fmt: skip
    assert rows[1]["beyond_chance"] == rows[3]["beyond_chance"] == 1
    assert len(agreement_of({"a": [True], "b": [False]})) == 1
