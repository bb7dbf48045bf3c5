"""Pairs, baselines, training, resume."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import Ridge as SklearnRidge

from workbench.core.errors import ConfigError, DataError
from workbench.diffusion.baselines import Constant, Identity, Ridge, mean_loss
from workbench.diffusion.config import PhaseConfig
from workbench.diffusion.datamodule import (
    BatchLoader,
    TrainingArrays,
    select_pairs,
    shared_pairs,
    training_arrays,
)
from workbench.diffusion.evaluate import TEST_SPLITS, evaluate, measure, relative_reduction
from workbench.diffusion.train import train


class Bench:
    def __init__(self, embedding: object) -> None:
        self.embedding = embedding
        self.reports: list[object] = []


@pytest.fixture
def arrays(frame: pd.DataFrame, encoder: object) -> TrainingArrays:
    rows = select_pairs(frame, wrapper_families=6, pairs=0, seed=0)
    return training_arrays(rows, validation=frame[frame.split == "validation"], encoder=encoder)


def tiny(arrays: TrainingArrays, **changes: object) -> PhaseConfig:
    width = arrays.adversarial.shape[1]
    return PhaseConfig(
        **{"dim": width, "hidden": 32, "training_steps": 150, "batch_size": 32} | changes
    )


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


def test_selection_is_balanced_and_depends_on_the_seed_only(frame: pd.DataFrame) -> None:
    one = select_pairs(frame, wrapper_families=6, pairs=25, seed=1)
    again = select_pairs(frame.sample(frac=1, random_state=0), wrapper_families=6, pairs=25, seed=1)
    other = select_pairs(frame, wrapper_families=6, pairs=25, seed=2)
    assert set(one.id) == set(again.id) != set(other.id)
    counts = one[one.wrapper_family != ""].wrapper_family.value_counts()
    assert sorted(counts) == [4, 4, 4, 4, 4, 5]


def test_too_many_families_or_pairs_are_refused(frame: pd.DataFrame) -> None:
    for families in (0, 10):
        with pytest.raises(ConfigError, match="choose 1 to 9"):
            select_pairs(frame, wrapper_families=families, pairs=0, seed=0)
    with pytest.raises(ConfigError, match="24 training pairs"):
        select_pairs(frame, wrapper_families=2, pairs=25, seed=0)


def test_no_pairs_and_unequal_sides_are_refused(arrays: TrainingArrays) -> None:
    with pytest.raises(DataError, match="grow the pair set"):
        dataclasses.replace(arrays, adversarial=arrays.adversarial[:0], clean=arrays.clean[:0])
    with pytest.raises(DataError, match="do not match"):
        dataclasses.replace(arrays, clean=arrays.clean[1:])


def test_batches_depend_on_seed_and_step_alone(arrays: TrainingArrays) -> None:
    whole = list(BatchLoader(arrays, batch_size=8, batches=6, seed=5))
    resumed = BatchLoader(arrays, batch_size=8, batches=3, seed=5)
    resumed.step = 3
    for (prompt, residual, noise), (later, its, own) in zip(whole[3:], resumed, strict=True):
        assert torch.equal(prompt, later)
        assert torch.equal(residual, its)
        assert torch.equal(noise.get_state(), own.get_state())


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


def test_training_is_resumed_exactly(arrays: TrainingArrays, tmp_path, monkeypatch) -> None:
    config = tiny(arrays)
    expected, whole = train(config, arrays)

    from workbench.diffusion.module import CurveCallback

    original = CurveCallback.on_train_epoch_end

    def killed(self, trainer, module):
        if module.step >= 150:
            raise KeyboardInterrupt
        original(self, trainer, module)

    monkeypatch.setattr(CurveCallback, "on_train_epoch_end", killed)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(config, arrays, folder=tmp_path, checkpoint_every_s=0)
    monkeypatch.undo()
    assert [file.suffix for file in tmp_path.iterdir()] == [".ckpt"]
    metrics, resumed = train(config, arrays, folder=tmp_path, checkpoint_every_s=0)
    assert metrics["curve"] == expected["curve"]
    assert [row["step"] for row in metrics["curve"]] == [50, 100, 150]
    for one, other in zip(whole.denoiser.parameters(), resumed.denoiser.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not list(tmp_path.iterdir())
    assert metrics["samples_per_s"] == pytest.approx(50 * 32 / metrics["train_s"])


def test_a_damaged_checkpoint_is_not_used(arrays: TrainingArrays, tmp_path, monkeypatch) -> None:
    config = tiny(arrays, training_steps=50)
    fresh, _ = train(config, arrays)
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.unlink", lambda *_, **__: None)
        train(config, arrays, folder=tmp_path, checkpoint_every_s=0)
    (checkpoint,) = tmp_path.glob("*.ckpt")
    checkpoint.write_bytes(b"half a file")
    assert train(config, arrays, folder=tmp_path)[0]["curve"] == fresh["curve"]


def test_checkpoints_of_other_configs_and_arrays_have_other_names(
    arrays: TrainingArrays, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("pathlib.Path.unlink", lambda *_, **__: None)
    other = dataclasses.replace(arrays, validation_clean=arrays.validation_clean[::-1].copy())
    for config, rows in (
        (tiny(arrays, training_steps=1), arrays),
        (tiny(arrays, training_steps=1, seed=1), arrays),
        (tiny(arrays, training_steps=1), other),
    ):
        train(config, rows, folder=tmp_path, checkpoint_every_s=0)
    assert len(list(tmp_path.glob("*.ckpt"))) == 3


def test_the_last_steps_are_on_the_curve_and_global_randomness_is_left_alone(
    arrays: TrainingArrays,
) -> None:
    before = torch.get_rng_state()
    metrics, model = train(tiny(arrays, training_steps=70), arrays)
    assert torch.equal(torch.get_rng_state(), before)
    assert [row["step"] for row in metrics["curve"]] == [50, 70]
    output = model.vectors(arrays.validation_adversarial)
    assert metrics["validation_loss"] == mean_loss(output, arrays.validation_clean)


def test_training_learns_and_counts(arrays: TrainingArrays, capsys) -> None:
    config = tiny(arrays, training_steps=250)
    metrics, model = train(config, arrays)
    before = mean_loss(arrays.validation_adversarial, arrays.validation_clean)
    assert metrics["validation_loss"] < 0.7 * before
    assert metrics["steps"] == 250
    # forward + backward of the matrix products: 6 FLOPs per weight and row, less the gradients
    # of the inputs, which need none
    matrices = [one for one in model.denoiser.parameters() if one.ndim == 2]
    inputs = [model.denoiser.from_residual, model.denoiser.from_prompt, model.denoiser.from_time]
    expected = 6 * sum(one.numel() for one in matrices) - 2 * sum(
        one.weight.numel() for one in inputs
    )
    assert metrics["flops"] == expected * 32 * 250
    assert capsys.readouterr() == ("", "")


def test_untrainable_phases_are_refused(arrays: TrainingArrays) -> None:
    with pytest.raises(ConfigError, match="set dim to 24"):
        train(tiny(arrays, dim=768), arrays)


def test_frontier_has_every_point_and_honest_identity(
    frame: pd.DataFrame, arrays: TrainingArrays, encoder, axis_judge
) -> None:
    direction = arrays.adversarial.mean(axis=0) - arrays.clean.mean(axis=0)
    bench = Bench(axis_judge(3 * direction))
    model = Constant(arrays.clean[0], name="first")
    worth = measure(model, arrays, frame, encoder=encoder, bench=bench, gains=[0.0, 1.0])
    rows = worth["frontier"]
    assert len(rows) == 4 * 2 * len(TEST_SPLITS)
    points = {(row["method"], row["gain"], row["split"]): row for row in rows}
    identity = points["identity", 1.0, "test_both"]
    assert (identity["safety"], identity["keep"]) == (0, pytest.approx(1, abs=1e-6))
    for method in ("constant", "ridge"):
        still = points[method, 0.0, "test_both"]
        assert still["semantic"] == pytest.approx(identity["semantic"], abs=1e-6)
        assert still["safety"] == pytest.approx(0, abs=1e-6)
    assert points["ridge", 1.0, "test_both"]["safety"] > 0.1
    assert points["ridge", 1.0, "test_both"]["semantic"] > identity["semantic"]
    attacks = frame[(frame.split == "test_both") & (frame.adversarial != frame.clean)]
    cosines = (encoder.encode(list(attacks.adversarial)) * encoder.encode(list(attacks.clean))).sum(
        1
    )
    assert identity["semantic"] == pytest.approx(cosines.mean(), abs=1e-6)
    losses = {"first": worth["loss"], **worth["baselines"]}
    assert set(losses) == {"first", "identity", "constant", "ridge"}
    for method, loss in losses.items():
        assert loss == pytest.approx(1 - points[method, 1.0, "test_both"]["semantic"])


def test_frontier_needs_attacks_with_harm_in_them(frame: pd.DataFrame, encoder, axis_judge) -> None:
    judge = axis_judge(np.ones(24, np.float32))
    with pytest.raises(DataError, match="no harmful requests"):
        evaluate([Identity()], frame.assign(category="benign"), encoder, Bench(judge), [1.0])
    with pytest.raises(DataError, match="test_both"):
        evaluate([Identity()], frame[frame.split != "test_both"], encoder, Bench(judge), [1.0])


def test_reduction_is_relative() -> None:
    assert relative_reduction(0.8, 0.2) == pytest.approx(0.75)
    assert relative_reduction(0.2, 0.4) == pytest.approx(-1)
    assert relative_reduction(0.0, 0.1) == 0
