"""Which pairs train, and the arrays that they become."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge as SklearnRidge

from workbench.core.errors import ConfigError, DataError
from workbench.diffusion.arrays import (
    TrainingArrays,
    at_most,
    encode_pairs,
    harmless,
    select_pairs,
    shared_pairs,
    training_arrays,
)
from workbench.diffusion.baselines import Ridge, mean_loss


@pytest.fixture(scope="module")
def arrays(frame: pd.DataFrame, encoder: object) -> TrainingArrays:
    rows = select_pairs(frame, wrapper_families=6, pairs=0, seed=0)
    return training_arrays(rows, validation=frame[frame.split == "validation"], encoder=encoder)


def test_smaller_selections_are_nested_and_counts_equal(frame: pd.DataFrame) -> None:
    pairs = shared_pairs(frame, smallest=2)
    assert pairs == 2 * 12
    families, sizes, plain = [], [], []
    for count in (2, 5, 9):
        rows = select_pairs(frame, wrapper_families=count, pairs=pairs, seed=3)
        assert set(rows.split) == {"train"}
        families.append(set(rows.wrapper_family) - {""})
        sizes.append(len(rows))
        plain.append(list(rows.id[rows.wrapper_family == ""]))
    assert [len(one) for one in families] == [2, 5, 9]
    assert families[0] < families[1] < families[2]
    assert sizes == [pairs + 20] * 3
    assert plain[0] == plain[1] == plain[2]


def test_no_number_of_families_takes_all_of_them(frame: pd.DataFrame) -> None:
    for pairs in (0, -1):
        rows = select_pairs(frame, wrapper_families=0, pairs=pairs, seed=0)
        assert set(rows.id) == set(frame.id[frame.split == "train"])


def test_selection_is_balanced_and_depends_on_the_seed_only(frame: pd.DataFrame) -> None:
    one = select_pairs(frame, wrapper_families=6, pairs=25, seed=1)
    again = select_pairs(frame.sample(frac=1, random_state=0), wrapper_families=6, pairs=25, seed=1)
    other = select_pairs(frame, wrapper_families=6, pairs=25, seed=2)
    assert set(one.id) == set(again.id) != set(other.id)
    counts = one[one.wrapper_family != ""].wrapper_family.value_counts()
    assert sorted(counts) == [4, 4, 4, 4, 4, 5]


def test_requests_are_nested_too_and_come_with_and_without_wrappers(frame: pd.DataFrame) -> None:
    grouped = frame.assign(group=frame["core"])
    picked = [
        set(select_pairs(grouped, wrapper_families=0, pairs=-1, seed=1, requests=count).group)
        for count in (5, 15)
    ]
    assert picked[0] < picked[1]
    assert [len(one) for one in picked] == [5, 15]
    rows = select_pairs(grouped, wrapper_families=0, pairs=-1, seed=1, requests=5)
    train = grouped[grouped.split == "train"]
    assert set(rows.id) == set(train.id[train.group.isin(picked[0])])


def test_too_many_families_or_pairs_are_refused(frame: pd.DataFrame) -> None:
    grouped = frame.assign(group=frame["core"])
    with pytest.raises(ConfigError, match="requests is 99; the pair set trains on 32"):
        select_pairs(grouped, wrapper_families=0, pairs=0, seed=0, requests=99)
    for families in (-1, 10):
        with pytest.raises(ConfigError, match="choose 1 to 9"):
            select_pairs(frame, wrapper_families=families, pairs=0, seed=0)
    with pytest.raises(ConfigError, match="24 training pairs"):
        select_pairs(frame, wrapper_families=2, pairs=25, seed=0)


def test_no_pairs_and_unequal_sides_are_refused(arrays: TrainingArrays) -> None:
    with pytest.raises(DataError, match="grow the pair set"):
        dataclasses.replace(arrays, adversarial=arrays.adversarial[:0], clean=arrays.clean[:0])
    with pytest.raises(DataError, match="do not match"):
        dataclasses.replace(arrays, clean=arrays.clean[1:])


def test_every_side_counts_for_the_id(arrays: TrainingArrays) -> None:
    changed = {
        dataclasses.replace(arrays, **{one.name: getattr(arrays, one.name)[::-1].copy()}).id
        for one in dataclasses.fields(arrays)
    }
    assert len(changed | {arrays.id}) == 5
    assert dataclasses.replace(arrays).id == arrays.id


def test_prompts_become_their_clean_sides_or_their_requests(frame, encoder) -> None:
    rows = frame.head(3)
    for target in ("clean", "core"):
        prompts, goals = encode_pairs(rows, encoder=encoder, target=target)
        np.testing.assert_array_equal(prompts, encoder.encode(list(rows.adversarial)))
        np.testing.assert_array_equal(goals, encoder.encode(list(rows[target])))


def test_texts_that_must_stay_are_the_benign_ones_or_else_the_clean_sides(frame) -> None:
    plain = frame[frame.relation == "identity"]
    assert harmless(frame) == list(plain.adversarial)
    attacks = frame[frame.relation != "identity"]
    assert harmless(attacks) == list(attacks.clean)


def test_at_most_so_many_of_each_split_are_measured_always_the_same(frame) -> None:
    few = at_most(frame, 7)
    assert set(few.split.value_counts()) == {7}
    assert set(few.id) == set(at_most(frame.sample(frac=1, random_state=0), 7).id)
    assert set(few.id) < set(at_most(frame, 8).id)
    assert len(at_most(frame, 10**6)) == len(frame)


def test_ridge_agrees_with_sklearn(arrays: TrainingArrays) -> None:
    ours = Ridge.fit(arrays, penalties=[0.7])
    theirs = SklearnRidge(alpha=0.7).fit(
        arrays.adversarial.astype(float), (arrays.clean - arrays.adversarial).astype(float)
    )
    np.testing.assert_allclose(ours.weights, theirs.coef_.T, atol=1e-4)
    np.testing.assert_allclose(ours.offset, theirs.intercept_, atol=1e-4)


def test_ridge_takes_the_penalty_that_validation_likes(arrays: TrainingArrays) -> None:
    def loss(penalties: list[float]) -> float:
        ridge = Ridge.fit(arrays, penalties=penalties)
        return mean_loss(ridge.vectors(arrays.validation_adversarial), arrays.validation_clean)

    each = [loss([penalty]) for penalty in (0.01, 1.0, 100.0)]
    assert loss([0.01, 1.0, 100.0]) == min(each) < max(each)
