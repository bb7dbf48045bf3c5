"""Samplers against closed forms: known marginals on the way, Gaussians at the end."""

from __future__ import annotations

import math

import pytest
import torch
from beartype import beartype
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import jaxtyped

from workbench.diffusion import sample
from workbench.diffusion.schedule import bridge_levels, signal_levels

SAMPLERS = {
    name: jaxtyped(sampler, typechecker=beartype)
    for name, sampler in (sample.NOISE_SAMPLERS | sample.BRIDGE_SAMPLERS).items()
}
MEAN, DEVIATION, ROWS = 0.7, 0.5, 40_000


def levels_of(name: str, *, steps: int = 1_000, kind: str = "cosine") -> torch.Tensor:
    if name == "bridge":
        return bridge_levels(steps=steps)
    return signal_levels(steps=steps, kind=kind)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian_guess(levels: torch.Tensor, *, is_bridge: bool = False):
    """Posterior mean of normal data: what a perfectly trained network says."""

    def guess(noisy: torch.Tensor, times: torch.Tensor, prompt: object) -> torch.Tensor:
        kept = levels[(times * (len(levels) - 1)).round().long()][..., None]
        signal = kept if is_bridge else kept.sqrt()
        noise = kept * (1 - kept) if is_bridge else 1 - kept
        # a bridge's top says nothing of the data: the limit of 0 / 0 is its mean
        slope = signal * DEVIATION**2 / (signal**2 * DEVIATION**2 + noise).clamp(min=1e-30)
        return MEAN + slope * (noisy - signal * MEAN)

    return guess


def affine(name: str, *, steps: int, kind: str = "cosine") -> tuple[float, float]:
    """Return mean and deviation of what a deterministic sampler makes of standard noise."""
    levels = levels_of(name, kind=kind)
    start = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    found = SAMPLERS[name](
        gaussian_guess(levels), None, start=start, signal=levels, steps=steps
    ).flatten()
    return float(found[0]), float(found[1] - found[0])


@pytest.mark.parametrize("kind", ["cosine", "linear"])
@pytest.mark.parametrize("name", ["ddim", "dpm_solver_pp"])
def test_a_deterministic_sampler_turns_noise_into_the_gaussian(name: str, kind: str) -> None:
    mean, deviation = affine(name, steps=1_000, kind=kind)
    assert mean == pytest.approx(MEAN, abs=0.02)
    assert deviation == pytest.approx(DEVIATION, abs=0.005)


def test_the_second_order_sampler_needs_fewer_steps() -> None:
    first = {n: abs(affine("ddim", steps=n)[1] - DEVIATION) for n in (20, 40, 80)}
    second = {n: abs(affine("dpm_solver_pp", steps=n)[1] - DEVIATION) for n in (20, 40, 80)}
    assert second[20] < first[80]
    assert 1.6 < first[40] / first[80] < 2.4
    assert second[80] < first[80] / 10


@pytest.mark.parametrize("name", ["ddpm", "bridge"])
def test_a_drawing_sampler_gives_the_gaussian(name: str) -> None:
    levels = levels_of(name, steps=200)
    start = torch.zeros(ROWS, 1)
    if name == "ddpm":
        start.normal_(generator=generator(1))
    found = SAMPLERS[name](
        gaussian_guess(levels, is_bridge=name == "bridge"),
        None,
        start=start,
        signal=levels.float(),
        steps=200,
        generator=generator(),
    )
    assert float(found.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(found.std()) == pytest.approx(DEVIATION, abs=0.015)


def states_on_the_way(name: str, truth: float, *, drawn: bool) -> list[tuple[float, torch.Tensor]]:
    """Return the level's value and the states at each step, the clean end being known."""
    levels = levels_of(name, steps=100)
    seen = []

    def guess(noisy: torch.Tensor, times: torch.Tensor, prompt: object) -> torch.Tensor:
        seen.append((float(levels[round(float(times[0]) * 100)]), noisy))
        return torch.full_like(noisy, truth)

    kept = float(levels[-1])
    start = torch.zeros(ROWS, 1, dtype=torch.float64)
    if name != "bridge":
        start.normal_(generator=generator(2)).mul_((1 - kept) ** 0.5).add_(kept**0.5 * truth)
    noise = generator() if drawn else None
    SAMPLERS[name](guess, None, start=start, signal=levels, steps=5, generator=noise)
    return seen


@pytest.mark.parametrize("name", ["ddpm", "ddim"])
def test_states_keep_the_marginals_of_the_forward_process(name: str) -> None:
    for kept, states in states_on_the_way(name, 1.5, drawn=True):
        assert float(states.mean()) == pytest.approx(1.5 * kept**0.5, abs=0.02)
        assert float(states.var()) == pytest.approx(1 - kept, rel=0.03)


def test_states_of_a_bridge_keep_its_marginals() -> None:
    for weight, states in states_on_the_way("bridge", 1.5, drawn=True):
        assert float(states.mean()) == pytest.approx(1.5 * weight, abs=0.02)
        assert float(states.var()) == pytest.approx(weight * (1 - weight), rel=0.03, abs=1e-12)


def test_a_bridge_without_noise_is_a_straight_line() -> None:
    for weight, states in states_on_the_way("bridge", 1.5, drawn=False):
        torch.testing.assert_close(states, torch.full_like(states, 1.5 * weight))


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 3, 50])
def test_a_perfect_guess_returns_the_truth(name: str, steps: int) -> None:
    truth, start = torch.randn(2, 5, 3, 4, generator=generator())
    found = SAMPLERS[name](
        lambda *_: truth,
        None,
        start=start,
        signal=levels_of(name, steps=50),
        steps=steps,
        generator=generator(),
    )
    torch.testing.assert_close(found, truth)


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_step_is_the_guess_at_the_top(name: str) -> None:
    start = torch.randn(6, 2, generator=generator())

    def guess(noisy: torch.Tensor, times: torch.Tensor, prompt: str) -> torch.Tensor:
        assert prompt == "asked"
        assert (times == 1).all()
        return 2 * noisy + 1

    found = SAMPLERS[name](
        guess, "asked", start=start, signal=levels_of(name), steps=1, generator=generator()
    )
    torch.testing.assert_close(found, 2 * start + 1)


@pytest.mark.parametrize("name", ["ddpm", "bridge"])
def test_noise_comes_from_the_generator_alone(name: str) -> None:
    levels = levels_of(name)

    def draw(noise: torch.Generator | None) -> torch.Tensor:
        guess = gaussian_guess(levels, is_bridge=name == "bridge")
        start = torch.zeros(4, 3, dtype=torch.float64)
        return SAMPLERS[name](guess, None, start=start, signal=levels, steps=4, generator=noise)

    assert torch.equal(draw(generator(5)), draw(generator(5)))
    assert not torch.equal(draw(generator(5)), draw(generator(6)))
    assert torch.equal(draw(None), draw(None))


@given(kept=st.floats(0.01, 0.5), gap=st.floats(0.05, 0.4))
@settings(max_examples=25, deadline=None)
def test_the_last_but_one_ancestral_step_is_bayes_rule(kept: float, gap: float) -> None:
    """Two levels: the mean of x_s given x_t and x_0, from the joint normal distribution."""
    kept_next = kept + gap
    levels = torch.tensor([1.0, kept_next, kept], dtype=torch.float64)
    truth, start, seen = -0.8, 1.3, []

    def guess(noisy: torch.Tensor, times: torch.Tensor, prompt: object) -> torch.Tensor:
        seen.append(float(noisy))
        return torch.full_like(noisy, truth)

    state = torch.tensor([[start]], dtype=torch.float64)
    SAMPLERS["ddpm"](guess, None, start=state, signal=levels, steps=2)
    covariance = math.sqrt(kept / kept_next) * (1 - kept_next)
    expected = math.sqrt(kept_next) * truth
    expected += covariance / (1 - kept) * (start - math.sqrt(kept) * truth)
    assert seen[1] == pytest.approx(expected)
