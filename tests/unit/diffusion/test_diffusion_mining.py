"""Hard rows weigh more within their family; rounds keep the best."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from workbench.core.errors import ConfigError, DataError
from workbench.diffusion.mining import hard_rows, rounds
from workbench.diffusion.trainer import train
from workbench.diffusion.training_config import TrainingConfig
from workbench.diffusion.training_data import TensorData


def test_hard_are_benign_rows_that_look_harmful_and_harmful_ones_that_do_not() -> None:
    harm = [0.1, 0.9, 0.2, 0.3, 0.8, 0.05, 0.7, 0.6]
    harmful = [False] * 4 + [True] * 4
    weights = hard_rows(harm, harmful=harmful, families=["a"] * 8, share=0.25, times=4)
    assert weights.tolist() == pytest.approx(np.array([1, 4, 1, 1, 1, 4, 1, 1]) * 8 / 14)


def test_each_family_has_its_own_hard_rows() -> None:
    # every row of the loud family looks more harmful than any of the quiet one
    harm = [0.91, 0.93, 0.92, 0.94, 0.11, 0.14, 0.12, 0.13]
    families = ["loud"] * 4 + ["quiet"] * 4
    weights = hard_rows(harm, harmful=[False] * 8, families=families, share=0.25)
    assert (weights > 1).nonzero().flatten().tolist() == [3, 5]


@settings(deadline=None, max_examples=40)
@given(
    rows=st.lists(
        st.tuples(st.floats(0, 1), st.booleans(), st.sampled_from("abc")), min_size=1, max_size=40
    ),
    share=st.floats(0.05, 1),
    times=st.floats(1, 9),
)
def test_weights_are_one_on_average_and_follow_the_ranking(rows, share, times) -> None:
    harm, harmful, families = zip(*rows, strict=True)
    weights = hard_rows(harm, harmful=harmful, families=families, share=share, times=times)
    assert float(weights.mean()) == pytest.approx(1)
    assert float(weights.max() / weights.min()) in (pytest.approx(1), pytest.approx(times))
    for side, family in set(zip(harmful, families, strict=True)):
        own = [i for i in range(len(rows)) if (harmful[i], families[i]) == (side, family)]
        hard = weights[own] == weights.max()
        if times > 1:
            assert int(hard.sum()) == np.ceil(share * len(own))
        errors = torch.tensor([-harm[i] if side else harm[i] for i in own])
        if hard.any() and not hard.all():
            assert errors[hard].min() >= errors[~hard].max()


def test_what_cannot_be_mined_is_refused() -> None:
    with pytest.raises(DataError, match=r"\(2, 1, 2\) scores"):
        hard_rows([0.1, 0.2], harmful=[True], families=["a", "b"])
    with pytest.raises(DataError, match="finite"):
        hard_rows([float("nan")], harmful=[True], families=["a"])
    for wrong in ({"share": 0.0}, {"share": 1.5}, {"times": 0.5}):
        with pytest.raises(ConfigError, match="at least 1"):
            hard_rows([0.1], harmful=[True], families=["a"], **wrong)


def scripted(scores: list[float]):
    """Return a training that scores so, and what it was called with."""
    calls: list[tuple] = []

    def train_once(data, start):
        calls.append((data, start))
        number = len(calls) - 1
        return {"best": scores[number]}, {"round": torch.tensor(number)}

    return train_once, calls


def test_rounds_keep_the_best_and_go_on_from_it() -> None:
    train_once, calls = scripted([3.0, 1.0, 2.0, 1.5])
    best, done = rounds(train_once, lambda weights: f"mined for {int(weights['round'])}", 4)
    assert (best.number, best.metrics["best"]) == (1, 1.0)
    assert [one.number for one in done] == [0, 1, 2, 3]
    assert [data for data, _ in calls] == [None, "mined for 0", "mined for 1", "mined for 1"]
    assert [start and int(start["round"]) for _, start in calls] == [None, 0, 1, 1]


def test_one_round_mines_nothing_and_none_is_refused() -> None:
    train_once, _ = scripted([1.0])
    best, done = rounds(train_once, lambda _: pytest.fail("mined"), 1)
    assert [best] == done
    with pytest.raises(ConfigError, match="n is 0"):
        rounds(train_once, lambda _: None, 0)


class Columns(NamedTuple):
    given: Tensor
    wanted: Tensor


class Slope(nn.Module):
    """One slope per input; with too few steps only what is drawn often is learned."""

    def __init__(self) -> None:
        super().__init__()
        self.slopes = nn.Parameter(torch.zeros(16))

    def errors(self, columns: Columns) -> Tensor:
        return (columns.given @ self.slopes - columns.wanted).square()

    def loss(self, batch: Columns, generator: torch.Generator) -> Tensor:
        return self.errors(batch).mean()


def test_mined_rounds_of_real_training_help_the_rows_that_were_worst() -> None:
    everything = Columns(torch.eye(16), torch.linspace(0.1, 1.6, 16))
    config = TrainingConfig(
        steps=30, batch_size=4, learning_rate=0.02, validate_every=10, accelerator="cpu", devices=1
    )

    def train_once(weights: Tensor | None, start):
        model = Slope()
        metrics = train(
            model,
            TensorData(everything, weights=weights),
            config,
            validate=lambda one: {"worst": float(one.errors(everything).max())},
            metric="worst",
            start=start,
        )
        return metrics, {name: one.clone() for name, one in model.state_dict().items()}

    def mine(weights) -> Tensor:
        model = Slope()
        model.load_state_dict(weights)
        harm = model.errors(everything).detach()
        return hard_rows(harm, harmful=[False] * 16, families=[""] * 16, share=0.3, times=8)

    mined, done = rounds(train_once, mine, 4)
    plain, _ = rounds(train_once, lambda _: None, 4)
    assert mined.metrics["best"] < plain.metrics["best"] < done[0].metrics["best"]
