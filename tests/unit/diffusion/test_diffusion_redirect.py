"""Where requests are led: a gallery's nearest texts, and the priors that are compared."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from workbench.core.errors import DataError
from workbench.diffusion.assemble import RedirectData, best_redirects, train_redirects
from workbench.diffusion.condition import CONDITION_DIM, Condition, condition_rows
from workbench.diffusion.prior import PROCESSES, Prior, PriorConfig
from workbench.diffusion.redirect import Gallery, Redirector, bare_prompt
from workbench.diffusion.training_config import TrainingConfig

TEXTS = tuple("abcde")


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def gallery(dim: int = 6) -> Gallery:
    return Gallery(texts=TEXTS, vectors=unit(np.random.default_rng(0).normal(size=(5, dim))))


def prior(process: str) -> Prior:
    torch.manual_seed(0)
    made = Prior(PriorConfig(network="mlp", process=process, dim=6, hidden=8, levels=30))
    for one in made.parameters():
        torch.nn.init.normal_(one, std=0.3)
    return made.eval()


def test_the_nearest_to_any_proposal_come_best_first() -> None:
    known = gallery()
    proposals = unit(known.vectors[[3, 1]] + 0.01)
    found = known.nearest(proposals, count=2)
    assert {one.text for one in found} == {"b", "d"}
    every = known.nearest(proposals, count=9)
    assert sorted(one.text for one in every) == list(TEXTS)
    assert [one.score for one in every] == sorted((one.score for one in every), reverse=True)
    best = max(float(known.vectors[3] @ one) for one in proposals)
    assert next(one.score for one in every if one.text == "d") == pytest.approx(best)


def test_texts_without_vectors_are_refused_and_an_empty_gallery_has_none() -> None:
    with pytest.raises(DataError, match="1 texts, 0 vectors"):
        Gallery(texts=("a",), vectors=np.empty((0, 6), np.float32))
    empty = Gallery(texts=(), vectors=np.empty((0, 6), np.float32))
    assert Redirector(None, gallery=empty)(np.eye(6, dtype=np.float32)[:2]) == [[], []]


@pytest.mark.parametrize("process", [None, *PROCESSES])
def test_requests_are_led_to_at_most_three_texts_and_alike_each_time(process) -> None:
    redirector = Redirector(prior(process) if process else None, gallery=gallery(), candidates=4)
    vectors = unit(np.random.default_rng(1).normal(size=(7, 6)))
    found = redirector(vectors)
    assert found == redirector(vectors)
    assert [len(one) for one in found] == [3] * 7
    proposed = redirector.propose(vectors)
    count = {None: 1, "regression": 1}.get(process, 4)
    assert proposed.shape == (7, count, 6)
    np.testing.assert_allclose(np.linalg.norm(proposed, axis=2), 1, atol=1e-5)
    samples = process not in (None, "regression", "hypotheses")
    assert np.array_equal(proposed, redirector.propose(vectors, seed=1)) != samples
    assert redirector(vectors[:0]) == []


@pytest.mark.parametrize("process", PROCESSES)
def test_what_a_request_becomes_is_not_its_neighbors_business(process) -> None:
    redirector = Redirector(prior(process), gallery=gallery(), candidates=4)
    vectors = unit(np.random.default_rng(1).normal(size=(5, 6)))
    alone = np.concatenate([redirector.propose(one[None]) for one in vectors])
    np.testing.assert_allclose(redirector.propose(vectors), alone, atol=1e-5)


def test_without_a_prior_a_request_is_led_to_what_is_nearest_to_itself() -> None:
    known = gallery()
    found = Redirector(None, gallery=known)(known.vectors)
    assert [one[0].text for one in found] == list(TEXTS)


def test_what_is_known_beside_the_vector_counts() -> None:
    redirector = Redirector(prior("regression"), gallery=gallery())
    vectors = np.eye(6, dtype=np.float32)[:1]
    medical = redirector.propose(vectors, [Condition(domain="medical")])
    assert not np.allclose(redirector.propose(vectors), medical)
    assert bare_prompt(vectors).condition.shape == (1, CONDITION_DIM)


def led(core: str, clean: str, relation: str = "safe_rewrite") -> dict[str, str]:
    known = {"context": "educational", "domain": "medical", "language": "en"}
    return {"core": core, "clean": clean, "relation": relation} | known


PAIRS = pd.DataFrame(
    [led("how to forge", "how coins are made"), led("how to forge", "how coins are made"),
     led("how to forge", "who forged first"), led("how to rob", "how banks are safe"),
     led("", "nothing asked"), led("how to bake", "how to bake", "identity")]
)  # fmt: skip


DETAILS = (0.75, 0.0, 0.75)
"""By the number of words of the safe texts, 4, 3 and 4: ranks among all."""


def test_only_safe_rewrites_of_known_requests_teach_where_to_lead(encoder) -> None:
    data = RedirectData(PAIRS, encoder=encoder)
    assert list(zip(data.requests, data.redirects, strict=True)) == [
        ("how to forge", "how coins are made"),
        ("how to forge", "who forged first"),
        ("how to rob", "how banks are safe"),
    ]
    rows = data.batch(torch.tensor([2, 0]))
    requests = encoder.encode(["how to rob", "how to forge"])
    np.testing.assert_array_equal(rows.prompt.pooled, requests)
    np.testing.assert_array_equal(
        rows.target, encoder.encode(["how banks are safe", "how coins are made"])
    )
    known = {"context": "educational", "domain": "medical", "language": "en"}
    assert torch.equal(
        data.whole.prompt.condition,
        condition_rows([Condition(**known, detail=detail) for detail in DETAILS]),
    )
    drawn = data.draw(200, torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) == {0, 1, 2}
    assert data.id != RedirectData(PAIRS[1:4].iloc[::-1], encoder=encoder).id
    with pytest.raises(DataError, match="grow the pair set"):
        RedirectData(PAIRS[4:], encoder=encoder)


def test_an_answer_is_measured_against_the_nearest_of_several_right_ones(encoder) -> None:
    data = RedirectData(PAIRS, encoder=encoder)
    requests = ["how to forge", "how to forge", "how to rob"]
    right = encoder.encode(["how coins are made", "who forged first", "how banks are safe"])
    assert data.nearest(requests, right) == pytest.approx(1)
    assert data.nearest(requests, right[::-1]) < 0.9


def test_a_prior_learns_to_lead_and_the_best_one_is_kept(encoder, frame, monkeypatch) -> None:
    monkeypatch.setattr("workbench.diffusion.assemble._HIDDEN", 16)
    rows, held = frame[frame.split == "train"], frame[frame.split == "validation"]
    data, validation = (RedirectData(one, encoder=encoder) for one in (rows, held))
    training = TrainingConfig(steps=60, batch_size=16, learning_rate=1e-2, ema_decay=0.9)
    config = PriorConfig(network="mlp", process="regression", dim=encoder.dim, hidden=16)
    model, metrics = train_redirects(config, training, data=data, validation=validation)
    assert metrics["best"] < 0.7 * metrics["initial"]["loss"]
    assert model.config == config


def test_priors_are_compared_by_the_texts_they_lead_to(minilm, halves, monkeypatch) -> None:
    monkeypatch.setattr("workbench.diffusion.assemble._HIDDEN", 16)
    options = {"encoder": minilm, "config": TrainingConfig(steps=3, batch_size=8)}
    processes = ("hypotheses", "regression")
    best, told = best_redirects(*halves, processes=processes, **options)
    names = [row["prior"] for row in told]
    assert names == [*processes, "none: nearest safe text"]
    assert all(0 < row["cosine"] <= 1.0001 for row in told)
    winner = names[int(np.argmax([row["cosine"] for row in told]))]
    assert (best.config.process if best else names[-1]) == winner
    assert best_redirects(*halves, processes=(), **options) == (None, [])
