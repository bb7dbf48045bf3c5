"""Every method of the table: unit rows out, gain 0 is the prompt, the same twice."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from workbench.core.errors import ConfigError
from workbench.diffusion.arrays import TrainingArrays
from workbench.diffusion.baselines import Translator
from workbench.diffusion.methods import METHODS, fit_ensemble, fit_method, fit_methods
from workbench.diffusion.prior import PriorConfig
from workbench.diffusion.trainer import TrainingMetrics
from workbench.diffusion.training_config import TrainingConfig

DIM = 16


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


ROWS = unit(np.random.default_rng(0).normal(size=(40, DIM)))
CLEAN = unit(ROWS[:, ::-1] + np.eye(DIM)[0])
ARRAYS = TrainingArrays(
    adversarial=ROWS, clean=CLEAN, validation_adversarial=ROWS, validation_clean=CLEAN
)
TRAINING = TrainingConfig(steps=20, batch_size=16, learning_rate=3e-2, ema_decay=0.5)
SIZES = PriorConfig(hidden=8, levels=20, hypotheses=3)


def fit(name: str) -> tuple[Translator, TrainingMetrics | None]:
    return fit_method(name, ARRAYS, TRAINING, sizes=SIZES)


@cache
def fitted(name: str) -> Translator:
    return fit(name)[0]


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> Translator:
    return fitted(request.param)


@pytest.mark.parametrize("gain", [0.0, 0.5, 1.0, 2.0])
def test_unit_rows_of_the_same_shape_and_the_same_twice(method: Translator, gain: float) -> None:
    found = method.vectors(ROWS, gain=gain)
    assert found.shape == ROWS.shape
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(found, method.vectors(ROWS, gain=gain))


def test_gain_zero_is_the_prompt(method: Translator) -> None:
    np.testing.assert_allclose(method.vectors(ROWS, gain=0.0), ROWS, atol=1e-6)


def test_all_but_the_identity_move_the_prompt(method: Translator) -> None:
    moved = np.abs(method.vectors(ROWS) - ROWS).max()
    assert (moved < 1e-3) == (method.name == "identity")


def test_rows_do_not_depend_on_their_neighbours(method: Translator) -> None:
    np.testing.assert_allclose(method.vectors(ROWS[:3]), method.vectors(ROWS)[:3], atol=1e-5)


def test_input_is_left_alone_and_no_rows_give_no_rows(method: Translator) -> None:
    before = ROWS.copy()
    method.vectors(ROWS, gain=1.5)
    np.testing.assert_array_equal(ROWS, before)
    assert method.vectors(ROWS[:0]).shape == (0, DIM)


@pytest.mark.parametrize("name", METHODS)
def test_fitted_twice_it_is_the_same_and_says_what_training_measured(name: str) -> None:
    again, metrics = fit(name)
    np.testing.assert_array_equal(again.vectors(ROWS), fitted(name).vectors(ROWS))
    assert again.name == name  # the one in the report
    assert (metrics is None) == (name in {"identity", "constant", "ridge"})
    if metrics:
        assert metrics["steps"] == TRAINING.steps
        found = again.vectors(ROWS)
        assert metrics["best"] == pytest.approx(1 - (found * CLEAN).sum(1).mean(), abs=1e-5)


def test_methods_come_in_the_order_asked_and_unknown_ones_are_refused() -> None:
    names = ["ridge", "identity"]
    found = fit_methods(names, ARRAYS, TRAINING, sizes=SIZES)
    assert [one.name for one in found] == names
    with pytest.raises(ConfigError, match="'magic'; known: identity, constant"):
        fit("magic")


@pytest.mark.parametrize("name", ["mlp", "x0"])
def test_specialists_answer_together_and_keep_the_contract(name: str) -> None:
    specialties = ["violence", "fraud", "other", "violence"] * 10
    options = {"sizes": SIZES, "specialties": specialties}
    together, spread = fit_ensemble(name, 3, ARRAYS, TRAINING, **options)
    assert together.name == f"{name}-x3"
    found = together.vectors(ROWS)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(together.vectors(ROWS, gain=0.0), ROWS, atol=1e-6)
    again, _ = fit_ensemble(name, 3, ARRAYS, TRAINING, **options)
    np.testing.assert_array_equal(again.vectors(ROWS), found)
    assert spread["diversity"] > 0
    assert spread["ensemble"] == pytest.approx(spread["members"] - spread["ambiguity"], rel=1e-4)
    with pytest.raises(ConfigError, match="at least 2 members"):
        fit_ensemble(name, 1, ARRAYS, TRAINING, **options)
