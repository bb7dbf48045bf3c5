"""Schedules: closed forms, and the same course at any number of levels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from beartype import beartype
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import jaxtyped

from workbench.core.errors import ConfigError
from workbench.diffusion import schedule

signal_levels = jaxtyped(schedule.signal_levels, typechecker=beartype)
bridge_levels = jaxtyped(schedule.bridge_levels, typechecker=beartype)

ROADMAP_STEPS = (1_000, 2_000, 5_000)


@given(steps=st.integers(1, 300), kind=st.sampled_from(["cosine", "linear"]))
@settings(max_examples=30, deadline=None)
def test_signal_falls_from_one_and_stays_above_zero(steps: int, kind: str) -> None:
    signal = signal_levels(steps=steps, kind=kind)
    assert signal.shape == (steps + 1,)
    assert signal[0] == 1
    assert (signal.diff() < 0).all()
    assert signal[-1] > 0


@pytest.mark.parametrize("kind", ["cosine", "linear"])
@pytest.mark.parametrize("steps", ROADMAP_STEPS)
def test_the_end_is_nearly_noise_at_every_step_count(kind: str, steps: int) -> None:
    assert float(signal_levels(steps=steps, kind=kind)[-1]) < 1e-4


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_the_course_is_the_same_at_every_step_count(kind: str) -> None:
    coarse, middle, fine = (signal_levels(steps=n, kind=kind)[:: n // 100] for n in ROADMAP_STEPS)
    torch.testing.assert_close(coarse, fine, atol=5e-3, rtol=0)
    torch.testing.assert_close(middle, fine, atol=5e-3, rtol=0)


def test_the_linear_schedule_of_the_paper_is_the_product_of_its_betas() -> None:
    expected = np.cumprod(1 - np.linspace(1e-4, 0.02, 1_000))
    found = signal_levels(steps=1_000, kind="linear")[1:]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


@given(steps=st.integers(1, 300))
@settings(max_examples=30, deadline=None)
def test_a_bridge_falls_from_one_end_to_the_other_alike_from_both(steps: int) -> None:
    weights = bridge_levels(steps=steps)
    assert (weights[0], weights[-1]) == (1, 0)
    assert (weights.diff() < 0).all()
    torch.testing.assert_close(weights + weights.flip(0), torch.ones_like(weights))


def test_a_bridge_moves_least_at_its_ends() -> None:
    moves = -bridge_levels(steps=100).diff()
    assert moves[0] < moves[25] < moves[49]
    assert moves[99] < moves[75] < moves[50]


@pytest.mark.parametrize("make", [signal_levels, bridge_levels])
def test_no_schedule_of_no_steps(make) -> None:
    with pytest.raises(ConfigError, match="steps is 0"):
        make(steps=0)
