"""Training a tagger, and the errors that it is stopped by."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, roc_auc_score

from workbench.core.identity import content_id
from workbench.diffusion.tagged import TaggedData, tagged_texts
from workbench.diffusion.tagger import Tagger, TaggerConfig
from workbench.diffusion.tagging import tagger_errors, train_tagger
from workbench.diffusion.training_config import TrainingConfig
from workbench.diffusion.training_data import tensors_id

CONFIG = TaggerConfig(hidden=8, tuned_layers=0)


@pytest.fixture(scope="module")
def held(halves, cache, minilm) -> TaggedData:
    return TaggedData(tagged_texts(halves[1]), cache=cache, encoder=minilm)


def test_a_few_steps_teach_requests_harm_and_meaning(trained, held) -> None:
    metrics, tagger = trained
    for name in ("payload", "detect", "dewrap"):
        assert metrics["validation"][name] < 0.7 * metrics["initial"][name]
    assert tagger_errors(tagger, held) == pytest.approx(metrics["validation"])


def test_errors_are_those_of_other_libraries(held: TaggedData) -> None:
    torch.manual_seed(1)
    tagger = Tagger(CONFIG)
    errors = tagger_errors(tagger, held)
    harm, labels, said, true, cosines = [], [], [], [], []
    with torch.no_grad():
        for number in range(len(held.rows)):
            rows = held.batch(torch.tensor([number]))
            tags = tagger(rows.states, rows.mask, rows.owners, texts=1)
            known = rows.payload_known[rows.mask] > 0
            harm.append(float(tags.harm))
            labels.append(bool(rows.harmful))
            said.append((tags.payload > 0)[known])
            true.append((rows.payload > 0)[rows.mask][known])
            cosines.append(float((tags.vectors * rows.target).sum()))
    assert errors["detect"] == pytest.approx(1 - roc_auc_score(labels, harm), abs=1e-3)
    assert errors["payload"] == pytest.approx(1 - f1_score(torch.cat(true), torch.cat(said)))
    assert errors["dewrap"] == pytest.approx(1 - np.mean(cosines), abs=1e-5)
    parts = (errors[name] for name in ("detect", "payload", "dewrap"))
    assert errors["error"] == pytest.approx(sum(parts))


def test_ties_count_half_and_one_kind_alone_says_nothing(held: TaggedData) -> None:
    tagger = Tagger(CONFIG)
    torch.nn.init.zeros_(tagger.heads.detect[-1].weight)
    assert tagger_errors(tagger, held)["detect"] == pytest.approx(0.5)
    trained_on_one_kind = [row for row in held.rows if row.harmful]
    data = TaggedData(trained_on_one_kind, cache=held._cache, encoder=held._cache.encoder)
    assert tagger_errors(Tagger(CONFIG), data)["detect"] == 0.5


def test_the_same_seed_gives_the_same_tagger(held: TaggedData) -> None:
    def weights(seed: int) -> str:
        training = TrainingConfig(steps=2, batch_size=8, seed=seed)
        return tensors_id(
            train_tagger(CONFIG, training, data=held, validation=held)[1].state_dict()
        )

    before = torch.get_rng_state()
    assert len({content_id(weights(seed)) for seed in (0, 0, 1)}) == 2
    assert torch.equal(torch.get_rng_state(), before)


def test_a_second_round_goes_on_and_draws_what_the_first_got_wrong(halves, cache, minilm) -> None:
    data, held = (TaggedData(tagged_texts(half), cache=cache, encoder=minilm) for half in halves)
    seen = []

    def watched(weights):
        seen.append(weights)
        return TaggedData.weighted(data, weights)

    data.weighted = watched
    training = TrainingConfig(steps=4, batch_size=8, validate_every=2, learning_rate=1e-2)
    metrics, tagger = train_tagger(CONFIG, training, data=data, validation=held, rounds=3)
    assert [point["step"] for point in metrics["curve"]] == [2, 4, 6, 8, 10, 12]
    assert metrics["steps"] == 12
    assert tagger_errors(tagger, held) == pytest.approx(metrics["validation"])
    assert metrics["best"] == min(point["error"] for point in metrics["curve"])
    assert len(seen) == 2
    for weights in seen:
        assert np.mean(weights) == pytest.approx(1)
        assert 0.2 < np.mean(weights > 1) < 0.4
