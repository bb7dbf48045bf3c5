"""Networks: what they must not depend on, what they can find, and how they begin."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from beartype import beartype
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import jaxtyped
from torch import nn

from workbench.core.errors import ConfigError
from workbench.diffusion.condition import CONDITION_DIM, Condition, condition_rows
from workbench.diffusion.hypotheses import MultiHypothesis, winner_takes_most
from workbench.diffusion.networks import NETWORKS, Network, Prompt, time_features

DIM = 12
SIZES = {"dim": DIM, "conditions": CONDITION_DIM, "hidden": 16, "blocks": 2, "heads": 4}


def make(kind: str, *, seed: int = 0, pulls: bool = True, shaken: bool = False) -> Network:
    """Return a network; ``shaken`` has random weights where training would begin at zero."""
    torch.manual_seed(seed)
    network = Network(kind, pulls=pulls, **SIZES)
    if shaken:
        for one in network.parameters():
            nn.init.normal_(one, std=0.3)
    return network.eval()


def prompts(rows: int = 5, tokens: int = 6, *, seed: int = 0) -> Prompt:
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    mask = torch.rand(rows, tokens, generator=generator) < 0.7
    pooled = nn.functional.normalize(noise(rows, DIM), dim=-1)
    return Prompt(pooled, noise(rows, tokens, DIM), mask, noise(rows, CONDITION_DIM))


def ask(network: Network, prompt: Prompt, *, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    noisy = torch.randn(prompt.pooled.shape, generator=generator)
    times = torch.rand(len(noisy), generator=generator)
    forward = jaxtyped(network.forward, typechecker=beartype)
    return forward(noisy, times, prompt)


@pytest.mark.parametrize("kind", NETWORKS)
def test_an_untrained_network_corrects_nothing(kind: str) -> None:
    found = ask(make(kind), prompts())
    torch.testing.assert_close(found, torch.zeros(5, DIM), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_weight_gets_a_gradient(kind: str) -> None:
    network = make(kind, shaken=True)
    ask(network, prompts()).square().sum().backward()
    silent = [name for name, one in network.named_parameters() if one.grad is None]
    assert silent == []


@pytest.mark.parametrize("kind", NETWORKS)
@given(padding=st.integers(1, 9), seed=st.integers(0, 99))
@settings(max_examples=5, deadline=None)
def test_padding_changes_nothing(kind: str, padding: int, seed: int) -> None:
    network, prompt = make(kind, shaken=True), prompts(seed=seed)
    junk = 1e3 * torch.randn(5, padding, DIM, generator=torch.Generator().manual_seed(seed))
    padded = prompt._replace(
        tokens=torch.cat([prompt.tokens, junk], dim=1),
        mask=nn.functional.pad(prompt.mask, (0, padding)),
    )
    torch.testing.assert_close(ask(network, padded), ask(network, prompt), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_row_does_not_depend_on_the_rows_beside_it(kind: str) -> None:
    network, prompt = make(kind, shaken=True), prompts()
    reading = network.read(prompt)
    noisy = torch.randn(5, 3, DIM, generator=torch.Generator().manual_seed(2))
    times = torch.rand(5, 3, generator=torch.Generator().manual_seed(3))
    together = network.predict(noisy, times, reading)
    for row in range(5):
        alone = Prompt(*(part[row : row + 1] for part in prompt))
        for candidate in range(3):
            found = network(noisy[row : row + 1, candidate], times[row : row + 1, candidate], alone)
            torch.testing.assert_close(found[0], together[row, candidate], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("tokens", [0, 4])
def test_a_prompt_without_tokens_is_answered_all_the_same(kind: str, tokens: int) -> None:
    prompt = prompts(tokens=tokens)._replace(mask=torch.zeros(5, tokens, dtype=torch.bool))
    assert ask(make(kind, shaken=True), prompt).isfinite().all()


@pytest.mark.parametrize("kind", ["gate", "attention"])
def test_tokens_are_read_as_a_set(kind: str) -> None:
    network, prompt = make(kind, shaken=True), prompts()
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    shuffled = prompt._replace(tokens=prompt.tokens[:, order], mask=prompt.mask[:, order])
    found, expected = ask(network, shuffled), ask(network, prompt)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["gate", "attention"])
def test_the_marked_token_is_found(kind: str) -> None:
    """The answer is one token of eight, which only a mark in its first component tells."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(512, 8, DIM, generator=generator)
    tokens[..., 0] = 0
    marked = torch.randint(8, (512,), generator=generator)
    tokens[torch.arange(512), marked, 0] = 3
    wanted = nn.functional.normalize(tokens[torch.arange(512), marked], dim=-1)
    pooled = nn.functional.normalize(tokens.mean(dim=1), dim=-1)
    everything = Prompt(pooled, tokens, torch.ones(512, 8).bool(), torch.zeros(512, CONDITION_DIM))
    train, test = (
        Prompt(*(part[rows] for part in everything)) for rows in (slice(384), slice(384, 512))
    )

    def cosine(network: Network, prompt: Prompt, target: torch.Tensor) -> torch.Tensor:
        output = network.direct(network.read(prompt))[:, 0] / DIM**0.5
        return nn.functional.cosine_similarity(prompt.pooled + output, target).mean()

    network = make(kind).train()
    before = float(cosine(network, test, wanted[384:]).detach())
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        (1 - cosine(network, train, wanted[:384])).backward()
        optimizer.step()
    assert before < 0.6
    assert float(cosine(network, test, wanted[384:]).detach()) > 0.95


@pytest.mark.parametrize("heads", [1, 2, 4, 8])
def test_attention_takes_one_to_eight_heads(heads: int) -> None:
    network = Network("attention", pulls=True, **SIZES | {"heads": heads})
    assert ask(network, prompts()).shape == (5, DIM)


def test_one_knob_sets_the_size() -> None:
    def parameters(kind: str, **sizes: Any) -> int:
        network = Network(kind, pulls=True, **SIZES | {"dim": 384, "heads": 4} | sizes)
        return sum(one.numel() for one in network.parameters())

    for kind in NETWORKS:
        small, large = parameters(kind, hidden=64), parameters(kind, hidden=256)
        assert 3 < large / small < 16
    assert parameters("mlp") < parameters("gate") < parameters("attention")


def test_time_features_tell_neighboring_levels_of_five_thousand_apart() -> None:
    rows = time_features(torch.arange(5_001) / 5_000, width=32)
    assert float((rows[1:] - rows[:-1]).norm(dim=1).min()) > 0.1


def modes(count: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(4)))[0][
        :count
    ]


def test_several_hypotheses_recover_the_modes_and_their_frequencies() -> None:
    torch.manual_seed(0)
    network = MultiHypothesis("mlp", pulls=True, hypotheses=8, **SIZES)
    answers = modes(3) * DIM**0.5
    shares = torch.tensor([0.6, 0.3, 0.1])
    prompt = Prompt(*(part[:1].expand(64, *part.shape[1:]) for part in prompts()))
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        drawn = torch.multinomial(shares, 64, replacement=True, generator=generator)
        optimizer.zero_grad()
        residuals, scores = network(network.read(prompt))
        winner_takes_most(residuals, scores, answers[drawn]).backward()
        optimizer.step()
    residuals, scores = (part[0].detach() for part in network(network.read(prompt)))
    cosines = nn.functional.cosine_similarity(answers[:, None], residuals[None], dim=-1)
    assert float(cosines.max(dim=1).values.min()) > 0.97
    believed = torch.zeros(3).index_add(0, cosines.argmax(dim=0), scores.softmax(dim=-1))
    torch.testing.assert_close(believed, shares, atol=0.08, rtol=0)


@given(seed=st.integers(0, 999))
@settings(max_examples=20, deadline=None)
def test_the_nearest_hypothesis_bears_nearly_all_of_the_loss(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    residuals = torch.randn(1, 4, DIM, generator=generator, requires_grad=True)
    target = residuals[:, 2].detach() + 0.01
    winner_takes_most(residuals, torch.zeros(1, 4), target).backward()
    pulls = residuals.grad[0].norm(dim=-1) / (residuals[0] - target).norm(dim=-1)
    others = pulls[[0, 1, 3]]
    torch.testing.assert_close(pulls[2] / others, torch.full((3,), 0.95 / (0.05 / 3)).detach())


def test_what_is_unknown_is_zero_and_differs_from_every_known_value() -> None:
    known = [
        Condition(context="research"), Condition(context="general"), Condition(domain="medical"),
        Condition(domain="general"), Condition(language="en"), Condition(language="de"),
        Condition(chars=1), Condition(detail=0), Condition(detail=1),
    ]  # fmt: skip
    rows = condition_rows([Condition(), Condition(domain="astrology"), *known])
    assert rows.shape == (11, CONDITION_DIM)
    assert torch.equal(rows[:2], torch.zeros(2, CONDITION_DIM))
    assert len({tuple(row.tolist()) for row in rows}) == 10
    assert float(rows.abs().max()) <= 1
    assert condition_rows([]).shape == (0, CONDITION_DIM)


def test_languages_of_the_seeds_are_told_apart() -> None:
    tags = ("en", "ar", "de", "es", "fr", "hi", "it", "pt", "ru", "tr", "zh")
    rows = condition_rows([Condition(language=tag) for tag in tags])
    assert len({tuple(row.tolist()) for row in rows}) == len(tags)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(tags)))


@pytest.mark.parametrize(
    ("fields", "said"), [({"context": "war"}, "war"), ({"detail": 1.5}, "detail is 1.5")]
)
def test_a_condition_out_of_range_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Condition(**fields)
