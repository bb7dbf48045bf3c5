"""Closed forms: schedules, forward noising, samplers."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from beartype import beartype
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import jaxtyped

from workbench.core.errors import ConfigError
from workbench.diffusion import denoiser, process, sample, schedule
from workbench.diffusion.config import PHASE_PRESETS, PhaseConfig, preset

add_noise = jaxtyped(process.add_noise, typechecker=beartype)
ddim = jaxtyped(sample.ddim, typechecker=beartype)
signal_levels = jaxtyped(schedule.signal_levels, typechecker=beartype)


@given(steps=st.integers(1, 300))
@settings(max_examples=20, deadline=None)
def test_signal_falls_from_one_to_almost_nothing(steps: int) -> None:
    signal = signal_levels(steps=steps)
    assert signal.shape == (steps + 1,)
    assert signal[0] == 1
    assert (signal.diff() < 0).all()
    assert signal[-1] > 0
    assert steps < 25 or signal[-1] < 1e-2


def test_cosine_schedule_is_the_squared_cosine() -> None:
    signal = signal_levels(steps=1000)
    expected = math.cos((0.5 + 0.008) / 1.008 * math.pi / 2) ** 2
    expected /= math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    assert float(signal[500]) == pytest.approx(expected, rel=1e-9)


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


@pytest.mark.parametrize("steps", [1, 3, 50])
def test_ddim_with_a_perfect_guess_returns_the_truth(steps: int) -> None:
    truth, start = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(1))
    signal = signal_levels(steps=50)
    found = ddim(lambda *_: truth, truth, start=start, signal=signal, steps=steps)
    torch.testing.assert_close(found, truth)


def gaussian_guess(signal: torch.Tensor, *, mean: float, variance: float) -> process.Guess:
    """Posterior mean of normal data: what a perfectly trained denoiser says."""

    def guess(noisy: torch.Tensor, times: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        kept = signal[(times * (len(signal) - 1)).round().long()].to(noisy.dtype)[:, None]
        slope = kept.sqrt() * variance / (kept * variance + 1 - kept)
        return mean + slope * (noisy - kept.sqrt() * mean)

    return guess


def test_ddim_with_the_gaussian_posterior_gives_back_the_gaussian() -> None:
    signal = signal_levels(steps=200)
    guess = gaussian_guess(signal, mean=0.7, variance=0.25)
    start = torch.randn(40_000, 1, generator=torch.Generator().manual_seed(3))
    found = ddim(guess, start, start=start, signal=signal, steps=200)
    assert float(found.mean()) == pytest.approx(0.7, abs=0.02)
    assert float(found.std()) == pytest.approx(0.5, abs=0.02)


def test_one_step_from_zero_gives_the_mean_of_the_data() -> None:
    signal = signal_levels(steps=1000)
    guess = gaussian_guess(signal, mean=0.7, variance=0.25)
    zero = torch.zeros(3, 1)
    found = ddim(guess, zero, start=zero, signal=signal, steps=1)
    torch.testing.assert_close(found, torch.full((3, 1), 0.7), atol=1e-3, rtol=0)


@given(levels=st.integers(1, 2000), data=st.data())
def test_level_path_goes_down_from_top_to_zero(levels: int, data: st.DataObject) -> None:
    steps = data.draw(st.integers(1, levels))
    path = sample.level_path(levels=levels, steps=steps)
    assert (path[0], path[-1], len(path)) == (levels, 0, steps + 1)
    assert all(here > there for here, there in pairwise(path))


def test_wrong_shapes_are_caught() -> None:
    with pytest.raises(Exception, match=r"shape|hint|type"):
        add_noise(
            torch.zeros(3, 2),
            noise=torch.zeros(3, 2),
            levels=torch.zeros(4, dtype=torch.long),
            signal=torch.ones(5),
        )


def test_denoiser_starts_as_no_correction() -> None:
    config = PhaseConfig(dim=6, hidden=8)
    net = jaxtyped(denoiser.Denoiser(config).forward, typechecker=beartype)
    found = net(torch.randn(3, 6), torch.rand(3), torch.randn(3, 6))
    assert torch.equal(found, torch.zeros(3, 6))


def test_no_schedule_of_no_steps() -> None:
    with pytest.raises(ConfigError, match="steps is 0"):
        signal_levels(steps=0)


def test_bad_settings_are_refused_by_name() -> None:
    for changes, said in [
        ({"hidden": 0}, "hidden"),
        ({"hidden": 7}, "even"),
        ({"sampling_steps": 2000}, "sampling_steps"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"weight_decay": -1}, "weight_decay"),
        ({"seed": -1}, "seed"),
        ({"widht": 3}, "widht"),
    ]:
        with pytest.raises(ConfigError, match=said):
            preset("quickstart", **changes)
    with pytest.raises(ConfigError, match="phase-9"):
        preset("phase-9")


@pytest.mark.parametrize("name", sorted(PHASE_PRESETS))
def test_presets_survive_json(name: str) -> None:
    config = preset(name)
    assert PhaseConfig.from_json(config.to_json()) == config
