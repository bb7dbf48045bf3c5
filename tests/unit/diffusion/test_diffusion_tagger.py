"""The trained layers are MiniLM's to begin with, and a text's tags are its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import linear, normalize
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from workbench.core.errors import ConfigError
from workbench.diffusion.checkpoint import reader_of
from workbench.diffusion.layers import EncoderLayer, encoder_layers, published_names
from workbench.diffusion.tagger import Heads, Tagger, TaggerBatch, TaggerConfig
from workbench.embedding.encoder import MINILM_DIM, MINILM_LAYERS, MiniLM, minilm_folder

TEXTS = [
    "How do I bake bread?",
    "",
    "naïve café — 你好 🙂",
    " ".join(f"w{number}" for number in range(120)),  # two windows
]


@pytest.fixture(scope="module")
def below() -> MiniLM:
    return MiniLM(layers=MINILM_LAYERS - 1)


@pytest.fixture(scope="module")
def tagger() -> Tagger:
    """One tuned layer; weights moved a little, so that no head says nothing."""
    torch.manual_seed(0)
    made = Tagger(TaggerConfig(hidden=8, tuned_layers=1)).eval()
    with torch.no_grad():
        for weights in made.parameters():
            weights.add_(torch.randn_like(weights), alpha=0.02)
    return made


def padded(encoder: MiniLM, texts: list[str], *, extra: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return states as they are cached, in half precision, their mask and their texts."""
    several = [[window.states for window in found] for found in encoder.windows(texts)]
    flat = [torch.from_numpy(one.astype(np.float16)).float() for found in several for one in found]
    states = nn.utils.rnn.pad_sequence(flat, batch_first=True, padding_value=7.0)
    states = nn.functional.pad(states, (0, 0, 0, extra), value=-5.0)
    mask = torch.arange(states.shape[1]) < torch.tensor([len(one) for one in flat])[:, None]
    owners = [number for number, found in enumerate(several) for _ in found]
    return states, mask, torch.tensor(owners)


@pytest.mark.parametrize("count", [1, MINILM_LAYERS])
def test_untrained_layers_reproduce_the_published_states(count, minilm, below, embeddings) -> None:
    lower = below if count == 1 else embeddings
    states, mask, _ = padded(lower, TEXTS)
    with torch.no_grad():
        for layer in encoder_layers(count, dropout=0.5).eval():
            states = layer(states, mask)
    expected = [window.states for several in minilm.windows(TEXTS) for window in several]
    np.testing.assert_allclose(states[mask].numpy(), np.concatenate(expected), atol=2e-3)


def test_published_names_are_those_that_were_published() -> None:
    published = load_file(minilm_folder() / "model.safetensors")
    named = published_names(encoder_layers(MINILM_LAYERS, dropout=0.1))
    assert set(named) == {name for name in published if name.startswith("encoder.layer.")}
    assert all(torch.equal(published[name], tensor) for name, tensor in named.items())
    assert {name.split(".")[2] for name in published_names(encoder_layers(2, dropout=0))} == {
        "4",
        "5",
    }


def test_a_reader_with_untrained_layers_is_minilm(minilm: MiniLM) -> None:
    reader = reader_of(Tagger(TaggerConfig(hidden=8, tuned_layers=1)))
    for own, published in zip(reader.encoder.windows(TEXTS), minilm.windows(TEXTS), strict=True):
        for one, other in zip(own, published, strict=True):
            np.testing.assert_allclose(one.states, other.states, atol=1e-5)
    assert reader.encoder.id != minilm.id


def test_a_reader_says_what_the_tagger_says(tagger: Tagger, below: MiniLM) -> None:
    states, mask, owners = padded(below, TEXTS)
    with torch.no_grad():
        tags = tagger(states, mask, owners, texts=len(TEXTS))
    read = reader_of(tagger)(TEXTS)
    np.testing.assert_allclose([one.harm for one in read], tags.harm, atol=5e-3)
    np.testing.assert_allclose([one.wrapped for one in read], tags.wrapped, atol=5e-3)
    np.testing.assert_allclose([one.vector for one in read], tags.vectors, atol=1e-3)
    owner = owners[:, None].expand(mask.shape)[mask]
    first = tags.payload[owner == 0][1:-1]
    np.testing.assert_allclose(read[0].payload, first, atol=5e-3)


@pytest.mark.parametrize("needs_states", [True, False])
def test_the_gradients_of_a_fast_product_are_those_of_torch(needs_states: bool) -> None:
    random = torch.Generator().manual_seed(1)
    layer = EncoderLayer(dropout=0).widen
    slope = torch.randn(5, 3, layer.out_features, generator=random).transpose(0, 1)
    given = torch.randn(3, 5, layer.in_features, generator=random)

    def gradients(product) -> list[Tensor]:
        states = given.clone().requires_grad_(needs_states)
        layer.zero_grad()
        output = product(states)
        output.backward(slope)
        found = [output.detach(), layer.weight.grad.clone(), layer.bias.grad.clone()]
        return found + ([states.grad] if needs_states else [])

    fast, slow = gradients(layer), gradients(lambda one: linear(one, layer.weight, layer.bias))
    for own, expected in zip(fast, slow, strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-4)


def test_the_operations_of_a_fast_product_are_counted() -> None:
    layer = EncoderLayer(dropout=0).widen
    once = 2 * 3 * 5 * layer.in_features * layer.out_features
    # forward, gradients of the weights, gradients of the states where anybody wants them
    for needs_states, times in ((False, 2), (True, 3)):
        states = torch.randn(3, 5, layer.in_features, requires_grad=needs_states)
        with FlopCounterMode(display=False) as counter:
            layer(states).sum().backward()
        assert counter.get_total_flops() == times * once


def test_padding_and_neighbors_never_change_the_tags_of_a_text(tagger, below) -> None:
    def said(texts: list[str], *, extra: int = 0) -> list[Tensor]:
        states, mask, owners = padded(below, texts, extra=extra)
        with torch.no_grad():
            tags = tagger(states, mask, owners, texts=len(texts))
        owner = owners[:, None].expand(mask.shape)[mask]
        each = range(len(texts))
        return [
            torch.cat([tags.payload[owner == one], tags.harm[[one]], tags.wrapped[[one]]])
            for one in each
        ] + [tags.vectors[one] for one in each]

    alone = [said([text]) for text in TEXTS]
    expected = [one[0] for one in alone] + [one[1] for one in alone]
    for found in (said(TEXTS), said(TEXTS, extra=9)):
        for own, one in zip(found, expected, strict=True):
            torch.testing.assert_close(own, one, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_texts_are_pooled_by_a_softmax_over_their_own_tokens(scale: float) -> None:
    torch.manual_seed(3)
    heads = Heads(8, dropout=0.5).eval()
    nn.init.normal_(heads.correct[-1].weight, std=0.1)
    states = torch.randn(10, MINILM_DIM)
    owners = torch.tensor([0, 0, 0, 2, 2, 2, 2, 1, 1, 1])  # in any order
    with torch.no_grad():
        heads.vector_gate.weight *= scale
        tags = heads(states, owners, texts=3)
        for number in range(3):
            own = states[owners == number]
            pooled = [
                (gate(own).softmax(0) * own).sum(0) for gate in (heads.harm_gate, heads.vector_gate)
            ]
            detected = heads.detect(pooled[0])
            vector = normalize(pooled[1] + heads.correct(pooled[1]), dim=0)
            torch.testing.assert_close(tags.harm[number], detected[0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(tags.wrapped[number], detected[1], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(tags.vectors[number], vector, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(tags.payload, heads.payload(states)[:, 0])


def test_before_training_the_vector_is_nearly_that_of_the_encoder(minilm: MiniLM) -> None:
    torch.manual_seed(0)
    read = reader_of(Tagger(TaggerConfig(hidden=8, tuned_layers=0)))(TEXTS)
    cosines = (np.stack([one.vector for one in read]) * minilm.encode(TEXTS)).sum(axis=1)
    assert (cosines > 0.95).all()


def batch(below: MiniLM) -> TaggerBatch:
    states, mask, owners = padded(below, TEXTS)
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (2, *mask.shape), generator=random).float()
    return TaggerBatch(
        states=states,
        mask=mask,
        owners=owners,
        payload=labels[0],
        payload_known=labels[1],
        harmful=torch.tensor([1.0, 0.0, 1.0, 0.0]),
        wrapped=torch.tensor([0.0, 1.0, 0.0, 1.0]),
        wrapped_known=torch.tensor([1.0, 0.0, 1.0, 1.0]),
        target=normalize(torch.randn(len(TEXTS), MINILM_DIM, generator=random), dim=1),
    )


@pytest.mark.parametrize("name", ["payload", "wrapped"])
def test_what_nobody_knows_costs_nothing(name: str, tagger: Tagger, below: MiniLM) -> None:
    rows, generator = batch(below), torch.Generator()
    labels, known = getattr(rows, name), getattr(rows, f"{name}_known")
    loss = tagger.loss(rows, generator)
    unknown = torch.where(known > 0, labels, 1 - labels)
    assert torch.equal(tagger.loss(rows._replace(**{name: unknown}), generator), loss)
    wrong = torch.where(known > 0, 1 - labels, labels)
    assert not torch.equal(tagger.loss(rows._replace(**{name: wrong}), generator), loss)
    none = rows._replace(**{f"{name}_known": torch.zeros_like(known)})
    assert bool(tagger.loss(none, generator).isfinite())


def test_every_weight_gets_a_gradient(tagger: Tagger, below: MiniLM) -> None:
    tagger.zero_grad()
    tagger.loss(batch(below), torch.Generator()).backward()
    idle = [name for name, one in tagger.named_parameters() if not one.grad.any()]
    # a softmax does not mind what all gates have in common; a key, what all have in common
    assert set(idle) <= {"heads.harm_gate.bias", "heads.vector_gate.bias"}
    assert tagger.parameters_trained == sum(one.numel() for one in tagger.parameters())
    tagger.zero_grad()


def test_a_config_survives_json_and_is_checked() -> None:
    config = TaggerConfig(hidden=5, tuned_layers=3, dropout=0.2)
    assert TaggerConfig.from_json(config.to_json()) == config
    for changes in ({"hidden": 0}, {"tuned_layers": 7}, {"tuned_layers": -1}, {"dropout": 1.0}):
        ((name, value),) = changes.items()
        with pytest.raises(ConfigError, match=f"{name} is {value}"):
            TaggerConfig(**changes)
    with pytest.raises(ConfigError, match="hiden"):
        TaggerConfig.from_json({"hiden": 3})


class WholeExponentials(TorchFunctionMode):
    """Autocasts as a GPU does: exponentials are computed in float32."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in {torch.exp, torch.Tensor.exp}:
            args = (args[0].float(), *args[1:])
        return function(*args, **(kwargs or {}))


def test_heads_take_the_mixed_precision_of_a_gpu():
    heads = Heads(8, dropout=0.0).eval()
    states = torch.randn(6, 384, generator=torch.Generator().manual_seed(0))
    owners = torch.tensor([0, 0, 0, 1, 1, 1])
    whole = heads(states, owners, texts=2)
    with torch.autocast("cpu", torch.bfloat16), WholeExponentials():
        mixed = heads(states, owners, texts=2)
    assert torch.allclose(mixed.vectors.float(), whole.vectors, atol=0.02)
