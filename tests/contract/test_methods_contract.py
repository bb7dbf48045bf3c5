"""Every method of the frontier: unit rows out, gain 0 is the prompt, the same twice."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from workbench.diffusion.baselines import Constant, Identity, Ridge, Translator
from workbench.diffusion.config import PhaseConfig
from workbench.diffusion.datamodule import TrainingArrays
from workbench.diffusion.denoiser import Denoiser
from workbench.diffusion.translator import DiffusionTranslator

DIM = 16


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


ROWS = unit(np.random.default_rng(0).normal(size=(40, DIM)))
CLEAN = unit(np.random.default_rng(1).normal(size=(40, DIM)))
ARRAYS = TrainingArrays(
    adversarial=ROWS, clean=CLEAN, validation_adversarial=ROWS, validation_clean=CLEAN
)


def diffusion() -> DiffusionTranslator:
    torch.manual_seed(0)
    config = PhaseConfig(dim=DIM, hidden=8, diffusion_steps=50, sampling_steps=3)
    denoiser = Denoiser(config)
    torch.nn.init.normal_(denoiser.to_residual.weight, std=0.3)
    return DiffusionTranslator(config, denoiser)


METHODS = {
    "identity": Identity,
    "constant": lambda: Constant.fit(CLEAN),
    "ridge": lambda: Ridge.fit(ARRAYS),
    "diffusion": diffusion,
}


@pytest.fixture(params=sorted(METHODS))
def method(request: pytest.FixtureRequest) -> Translator:
    return METHODS[request.param]()


@pytest.mark.parametrize("gain", [0.0, 0.5, 1.0, 2.0])
def test_unit_rows_of_the_same_shape_and_the_same_twice(method: Translator, gain: float) -> None:
    found = method.vectors(ROWS, gain=gain)
    assert found.shape == ROWS.shape
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(found, method.vectors(ROWS, gain=gain))


def test_gain_zero_is_the_prompt(method: Translator) -> None:
    np.testing.assert_allclose(method.vectors(ROWS, gain=0.0), ROWS, atol=1e-6)


def test_rows_do_not_depend_on_their_neighbours(method: Translator) -> None:
    np.testing.assert_allclose(method.vectors(ROWS[:3]), method.vectors(ROWS)[:3], atol=1e-5)


def test_input_is_left_alone_and_no_rows_give_no_rows(method: Translator) -> None:
    before = ROWS.copy()
    method.vectors(ROWS, gain=1.5)
    np.testing.assert_array_equal(ROWS, before)
    assert method.vectors(ROWS[:0]).shape == (0, DIM)


def test_the_name_is_the_one_in_the_report(method: Translator) -> None:
    assert method.name in {"identity", "constant", "ridge", "diffusion"}
