"""Closed forms of the forward process and of the correction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from beartype import beartype
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import jaxtyped

from workbench.diffusion import process
from workbench.diffusion.schedule import signal_levels

add_noise = jaxtyped(process.add_noise, typechecker=beartype)


@pytest.mark.parametrize("level", [1, 20, 60, 100])
def test_noising_has_the_closed_form_mean_and_variance(level: int) -> None:
    generator = torch.Generator().manual_seed(0)
    signal = signal_levels(steps=100)
    residual = torch.full((200_000, 1), 1.5)
    noise = torch.randn(residual.shape, generator=generator)
    noisy = add_noise(residual, noise=noise, levels=torch.full((200_000,), level), signal=signal)
    kept = float(signal[level])
    assert float(noisy.mean()) == pytest.approx(1.5 * kept**0.5, abs=0.01)
    assert float(noisy.var()) == pytest.approx(1 - kept, rel=0.02)


def test_wrong_shapes_are_caught() -> None:
    with pytest.raises(Exception, match=r"shape|hint|type"):
        add_noise(
            torch.zeros(3, 2),
            noise=torch.zeros(3, 2),
            levels=torch.zeros(4, dtype=torch.long),
            signal=torch.ones(5),
        )


@given(gain=st.floats(0, 3), seed=st.integers(0, 99))
def test_a_correction_is_followed_by_its_gain_on_the_sphere(gain: float, seed: int) -> None:
    rows, goals = np.random.default_rng(seed).normal(size=(2, 5, 7)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    moved = process.apply_correction(rows, goals, gain=gain)
    line = rows + gain * (goals - rows)
    expected = line / np.linalg.norm(line, axis=1, keepdims=True)
    np.testing.assert_allclose(moved, expected, atol=1e-4)


def test_a_correction_to_nowhere_is_no_division_by_zero() -> None:
    row = np.eye(3, dtype=np.float32)[:1]
    assert not process.apply_correction(row, np.zeros_like(row), gain=1.0).any()
