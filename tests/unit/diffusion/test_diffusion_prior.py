"""The prior: conversions, its promises at sampling, and one claim about several answers."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from workbench.core.errors import ConfigError
from workbench.diffusion.ensemble import Ensemble, ambiguity, diversity
from workbench.diffusion.networks import Prompt
from workbench.diffusion.prior import PROCESSES, Prior, PriorBatch, PriorConfig
from workbench.diffusion.process import add_bridge_noise, add_noise, prediction_target, to_clean
from workbench.diffusion.schedule import bridge_levels

DIM, CONDITIONS = 8, 3
CONFIG = PriorConfig(
    network="mlp", dim=DIM, conditions=CONDITIONS, hidden=32, blocks=1, levels=50, hypotheses=4
)
WAYS = [
    (process, sampler)
    for process in PROCESSES
    for sampler in (replace(CONFIG, process=process).samplers or (None,))
]


def unit(rows: torch.Tensor) -> torch.Tensor:
    return nn.functional.normalize(rows, dim=-1)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def prompts(rows: int = 6, *, seed: int = 0) -> Prompt:
    none = torch.zeros(rows, 0, DIM), torch.zeros(rows, 0, dtype=torch.bool)
    pooled = unit(noise(rows, DIM, seed=seed))
    return Prompt(pooled, *none, noise(rows, CONDITIONS, seed=seed + 1))


def make(process: str, *, shaken: bool = False, **changes: Any) -> Prior:
    torch.manual_seed(0)
    prior = Prior(replace(CONFIG, process=process, **changes))
    if shaken:
        for one in prior.parameters():
            nn.init.normal_(one, std=0.2)
    return prior


def sample(prior: Prior, prompt: Prompt, sampler: str | None, **options: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(options.pop("seed", 0))
    return prior.sample(prompt, sampler=sampler, steps=4, generator=generator, **options)


@given(
    kept=st.floats(1e-4, 1 - 1e-4),
    prediction=st.sampled_from(["x0", "eps", "v"]),
    seed=st.integers(0, 999),
)
@settings(max_examples=60, deadline=None)
def test_what_is_predicted_converts_back_to_the_clean_residual(
    kept: float, prediction: str, seed: int
) -> None:
    residual, drawn = noise(2, 3, DIM, seed=seed).double()
    signal = torch.tensor([1, kept], dtype=torch.float64)
    noisy = add_noise(residual, noise=drawn, levels=torch.ones(3).long(), signal=signal)
    share = torch.full((3, 1), kept, dtype=torch.float64)
    output = prediction_target(residual, noise=drawn, kept=share, prediction=prediction)
    found = to_clean(output, noisy=noisy, kept=share, prediction=prediction)
    torch.testing.assert_close(found, residual)


def test_the_velocity_is_the_derivative_of_the_noisy_state_by_the_angle() -> None:
    residual, drawn = noise(2, 3, DIM).double()
    angle, small = 0.4, 1e-6

    def state(at: float) -> torch.Tensor:
        signal = torch.tensor([np.cos(at) ** 2], dtype=torch.float64)
        return add_noise(residual, noise=drawn, levels=torch.zeros(3).long(), signal=signal)

    slope = (state(angle + small) - state(angle - small)) / (2 * small)
    kept = torch.full((3, 1), np.cos(angle) ** 2, dtype=torch.float64)
    found = prediction_target(residual, noise=drawn, kept=kept, prediction="v")
    torch.testing.assert_close(found, slope, atol=1e-8, rtol=0)


def test_a_bridge_begins_at_the_prompt_and_ends_at_the_target() -> None:
    residual, drawn = noise(2, 3, DIM)
    for level, expected in ((0, residual), (50, torch.zeros_like(residual))):
        found = add_bridge_noise(
            residual,
            noise=drawn,
            levels=torch.full((3,), level),
            signal=bridge_levels(steps=50),
        )
        assert torch.equal(found, expected)


@pytest.mark.parametrize("process", PROCESSES)
def test_an_untrained_prior_is_the_identity(process: str) -> None:
    prior, prompt = make(process), prompts()
    for sampler in prior.config.samplers or (None,):
        found = prior.sample(prompt, sampler=sampler, steps=3)[:, 0]
        cosines = (found * prompt.pooled).sum(dim=-1)
        assert float(cosines.min()) > (0.999 if process == "hypotheses" else 1 - 1e-6)


@pytest.mark.parametrize("process", PROCESSES)
def test_gated_tokens_move_answers_by_themselves_where_clean_residuals_are_said(
    process: str,
) -> None:
    prior = make(process, network="gate")
    nn.init.normal_(prior.network.gate.score.weight)
    prompt = prompts()._replace(tokens=noise(6, 5, DIM), mask=torch.ones(6, 5).bool())
    sampler = next(iter(prior.config.samplers), None)
    found = prior.sample(prompt, sampler=sampler, steps=3)[:, 0]
    moved = float((found * prompt.pooled).sum(dim=-1).mean()) < 0.98
    assert moved == (process not in ("eps", "v"))


@pytest.mark.parametrize(("process", "sampler"), WAYS)
def test_answers_are_unit_vectors_that_the_seed_decides(process: str, sampler: str | None) -> None:
    prior, prompt = make(process, shaken=True), prompts()
    several = 1 if process == "regression" else 3
    found = sample(prior, prompt, sampler, candidates=several)
    assert found.shape == (6, several, DIM)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(6, several))
    assert torch.equal(found, sample(prior, prompt, sampler, candidates=several))


@pytest.mark.parametrize(("process", "sampler"), WAYS)
def test_guidance_one_is_the_condition_and_zero_is_none(process: str, sampler: str | None) -> None:
    prior, prompt = make(process, shaken=True), prompts()
    blank = prompt._replace(condition=torch.zeros_like(prompt.condition))
    found = {weight: sample(prior, prompt, sampler, guidance=weight) for weight in (0, 1, 3)}
    torch.testing.assert_close(found[0], sample(prior, blank, sampler))
    torch.testing.assert_close(found[1], sample(prior, prompt, sampler))
    assert not torch.allclose(found[1], found[0], atol=1e-3)
    assert not torch.allclose(found[1], found[3], atol=1e-3)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "bridge"])
def test_without_a_generator_there_is_no_noise(sampler: str) -> None:
    prior = make("bridge" if sampler == "bridge" else "x0", shaken=True)
    found = prior.sample(prompts(), sampler=sampler, steps=4, candidates=2)
    torch.testing.assert_close(found[:, 0], found[:, 1])


@pytest.mark.parametrize("process", PROCESSES)
def test_the_loss_depends_on_its_generator_alone(process: str) -> None:
    prior, batch = make(process, shaken=True), PriorBatch(prompts(), unit(noise(6, DIM, seed=5)))
    losses = [
        float(prior.loss(batch, torch.Generator().manual_seed(seed)).detach()) for seed in (0, 0, 1)
    ]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


@pytest.mark.parametrize("process", PROCESSES)
def test_every_weight_takes_part_in_training(process: str) -> None:
    prior, batch = make(process, shaken=True), PriorBatch(prompts(), unit(noise(6, DIM, seed=5)))
    prior.loss(batch, torch.Generator().manual_seed(0)).backward()
    assert [name for name, one in prior.named_parameters() if one.grad is None] == []


def test_some_training_rows_do_not_show_their_condition() -> None:
    rows = 2_000
    batch = PriorBatch(prompts(rows), unit(noise(rows, DIM, seed=5)))
    prior = make("regression", condition_dropout=0.3)
    seen = []
    prior.network.from_condition.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    prior.loss(batch, torch.Generator().manual_seed(0))
    assert float((seen[0] == 0).all(dim=1).float().mean()) == pytest.approx(0.3, abs=0.04)


def trained(process: str, targets: torch.Tensor, prompt: Prompt, **changes: Any) -> Prior:
    """Return a prior trained on a prompt's answers, each as likely."""
    prior = make(process, **changes)
    optimizer = torch.optim.AdamW(prior.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(0)
    batch = Prompt(*(part[:1].expand(128, *part.shape[1:]) for part in prompt))
    for _ in range(250):
        drawn = torch.randint(len(targets), (128,), generator=generator)
        optimizer.zero_grad()
        prior.loss(PriorBatch(batch, targets[drawn]), generator).backward()
        optimizer.step()
    return prior.eval()


@pytest.mark.parametrize(
    ("process", "sampler"),
    [("x0", "ddim"), ("v", "ddpm"), ("bridge", "bridge"), ("hypotheses", None)],
)
def test_several_answers_come_out_whole_and_not_as_their_mean(
    process: str, sampler: str | None
) -> None:
    prompt = prompts(1)
    targets = torch.linalg.qr(noise(DIM, DIM, seed=7))[0][:2]
    prior = trained(process, targets, prompt)
    options: dict[str, Any] = {"generator": torch.Generator().manual_seed(0)}
    count = 2 if process == "hypotheses" else 64
    found = prior.sample(prompt, sampler=sampler, steps=10, candidates=count, **options)[0]
    cosines = found @ targets.T
    assert float((cosines.max(dim=1).values > 0.9).float().mean()) > 0.85
    assert set(cosines.argmax(dim=1).tolist()) == {0, 1}


def test_regression_answers_with_the_mean_of_several() -> None:
    prompt = prompts(1)
    targets = torch.linalg.qr(noise(DIM, DIM, seed=7))[0][:2]
    found = trained("regression", targets, prompt).sample(prompt)[0, 0]
    assert float(found @ unit(targets.sum(dim=0))) > 0.98


@pytest.mark.parametrize("process", PROCESSES)
def test_configs_survive_json(process: str) -> None:
    config = replace(CONFIG, process=process)
    assert PriorConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"network": "conv"}, "network is 'conv'"),
        ({"process": "gan"}, "process is 'gan'"),
        ({"schedule": "sqrt"}, "schedule is 'sqrt'"),
        ({"hidden": 0}, "hidden is 0"),
        ({"hidden": 36, "heads": 8}, "36 with 8 heads"),
        ({"hidden": 144, "heads": 9}, "9 heads"),
        ({"process": "hypotheses", "hypotheses": 1}, "at least 2"),
        ({"condition_dropout": 1.0}, "condition_dropout is 1.0"),
        ({"latent_scale": 0.0}, "latent_scale is 0.0"),
        ({"widht": 3}, "widht"),
    ],
)
def test_a_bad_config_is_refused_by_name(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        PriorConfig.from_json(fields)


@pytest.mark.parametrize(
    ("process", "options", "said"),
    [
        ("x0", {"sampler": "bridge"}, "ddim"),
        ("x0", {}, "sampler is None"),
        ("bridge", {"sampler": "ddim"}, "bridge"),
        ("regression", {"sampler": "ddim"}, "None"),
        ("x0", {"sampler": "ddim", "steps": 51}, "steps is 51"),
        ("x0", {"sampler": "ddim", "candidates": 0}, "candidates is 0"),
        ("regression", {"candidates": 2}, "candidates is 2"),
        ("hypotheses", {"candidates": 5}, "choose 1 to 4"),
    ],
)
def test_sampling_that_does_not_fit_is_refused(
    process: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        make(process).sample(prompts(), **options)


def test_prompts_of_another_width_are_refused() -> None:
    with pytest.raises(ConfigError, match="this prior takes"):
        make("x0", conditions=5).sample(prompts(), sampler="ddim")


class AxisJudge:
    id = "axis"

    def score_vectors(self, vectors: np.ndarray) -> np.ndarray:
        return vectors[:, 0].astype(np.float64)


@given(members=st.integers(2, 5), seed=st.integers(0, 999))
@settings(max_examples=30, deadline=None)
def test_an_ensemble_errs_by_its_members_less_their_ambiguity(members: int, seed: int) -> None:
    answers = unit(noise(members, 9, DIM, seed=seed))
    found = ambiguity(answers, unit(noise(9, DIM, seed=seed + 1)))
    assert found.ensemble == pytest.approx(found.members - found.ambiguity, rel=1e-5)
    assert found.ambiguity > 0


def test_diversity_counts_pairs_of_members() -> None:
    basis = torch.eye(DIM)[:3, None].expand(3, 4, DIM)
    assert diversity(basis) == pytest.approx(1)
    assert diversity(basis[:1].expand(5, 4, DIM)) == pytest.approx(0, abs=1e-6)
    assert diversity(torch.cat([basis[:1], basis[:2]])) == pytest.approx(2 / 3)


def test_an_ensemble_answers_with_the_mean_of_its_members() -> None:
    members = [make("regression", shaken=True) for _ in range(3)]
    for number, member in enumerate(members):
        nn.init.constant_(member.network.output.bias, float(number))
    prompt = prompts()
    expected = unit(torch.stack([member.sample(prompt)[:, 0] for member in members]).mean(dim=0))
    torch.testing.assert_close(Ensemble(members).sample(prompt)[:, 0], expected)


def test_an_ensemble_needs_members_of_one_width() -> None:
    wide = Prior(replace(CONFIG, process="regression", dim=16))
    for members in ([make("regression")], [make("regression"), wide]):
        with pytest.raises(ConfigError, match="at least 2 members"):
            Ensemble(members)
