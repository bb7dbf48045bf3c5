"""Figures of methods: every point of the frontier, and the loss of dewrapping."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from workbench.core.errors import DataError
from workbench.diffusion.arrays import TrainingArrays, select_pairs, training_arrays
from workbench.diffusion.baselines import Constant, Identity, Ridge
from workbench.diffusion.evaluate import (
    TEST_SPLITS,
    dewrap_losses,
    frontier,
    relative_reduction,
)


def bench(judge: object) -> SimpleNamespace:
    return SimpleNamespace(embedding=judge, reports=[])


@pytest.fixture(scope="module")
def arrays(frame: pd.DataFrame, encoder) -> TrainingArrays:
    rows = select_pairs(frame, wrapper_families=6, pairs=0, seed=0)
    return training_arrays(rows, validation=frame[frame.split == "validation"], encoder=encoder)


@pytest.fixture
def judge(arrays: TrainingArrays, axis_judge):
    return axis_judge(3 * (arrays.adversarial.mean(axis=0) - arrays.clean.mean(axis=0)))


class Scripted:
    """A sanitizer that leads what holds a secret to one text, or blocks it."""

    def __init__(self, decision: str, text: str) -> None:
        self.decision, self.text = decision, text
        self.looks = 0

    def look(self, prompts):
        self.looks += 1
        return ["secret" in prompt for prompt in prompts]

    def decide(self, prompts, seen, *, gain):
        return [
            SimpleNamespace(text=self.text, decision=self.decision)
            if is_harmful and gain
            else SimpleNamespace(text=prompt, decision="pass")
            for prompt, is_harmful in zip(prompts, seen, strict=True)
        ]


def points(rows):
    return {(row["method"], row["gain"], row["split"]): row for row in rows}


def test_every_method_has_every_point_and_identity_is_honest(frame, arrays, encoder, judge) -> None:
    methods = [Identity(), Constant.fit(arrays.clean), Ridge.fit(arrays)]
    rows = frontier(methods, None, frame, encoder=encoder, bench=bench(judge), gains=[0.0, 1.0])
    assert len(rows) == 3 * 2 * len(TEST_SPLITS) == len(points(rows))
    found = points(rows)
    identity = found["identity", 1.0, "test_both"]
    assert (identity["safety"], identity["keep"]) == (0, pytest.approx(1, abs=1e-6))
    for method in ("constant", "ridge"):
        still = found[method, 0.0, "test_both"]
        assert still["semantic"] == pytest.approx(identity["semantic"], abs=1e-6)
        assert still["safety"] == pytest.approx(0, abs=1e-6)
    assert found["ridge", 1.0, "test_both"]["safety"] > 0.1
    assert found["ridge", 1.0, "test_both"]["semantic"] > identity["semantic"]
    attacks = frame[(frame.split == "test_both") & (frame.adversarial != frame.clean)]
    sides = (encoder.encode(list(attacks[side])) for side in ("adversarial", "clean"))
    assert identity["semantic"] == pytest.approx(
        (next(sides) * next(sides)).sum(1).mean(), abs=1e-6
    )


def test_a_sanitizer_is_measured_by_the_texts_it_sends(frame, encoder, judge) -> None:
    safe = "explain safety of topic1 please"
    sanitizer = Scripted("redirect", safe)
    rows = frontier(
        [Identity()], sanitizer, frame, encoder=encoder, bench=bench(judge), gains=[0.0, 1.0]
    )
    found = points(rows)
    for split in TEST_SPLITS:
        still, identity = found["sanitizer", 0.0, split], found["identity", 0.0, split]
        for name in ("semantic", "safety", "unsafe", "keep"):
            assert still[name] == pytest.approx(identity[name], abs=1e-6)
    attacks = frame[(frame.split == "test_both") & (frame.adversarial != frame.clean)]
    sent = encoder.encode([safe])[0]
    led = found["sanitizer", 1.0, "test_both"]
    clean = encoder.encode(list(attacks.clean))
    assert led["semantic"] == pytest.approx((clean @ sent).mean(), abs=1e-6)
    before = judge.score_vectors(encoder.encode(list(attacks.adversarial))).mean()
    after = float(judge.score_vectors(sent[None])[0])
    assert led["safety"] == pytest.approx((before - after) / before, abs=1e-6)
    assert led["keep"] == pytest.approx(1, abs=1e-6)
    assert sanitizer.looks == 1 + len(TEST_SPLITS)  # once for all gains


def test_what_is_blocked_is_safe_and_left_out_of_the_meaning(frame, encoder, judge) -> None:
    benign = frame.assign(
        category=np.where(frame.index % 2, frame.category, "benign"),
        adversarial=[
            text if number % 2 else text.replace("secret", "lesson")
            for number, text in enumerate(frame.adversarial)
        ],
    )
    rows = frontier(
        [Identity()],
        Scripted("block", ""),
        benign,
        encoder=encoder,
        bench=bench(judge),
        gains=[1.0],
    )
    found = points(rows)["sanitizer", 1.0, "test_both"]
    assert (found["safety"], found["unsafe"]) == (1, 0)
    attacks = benign[(benign.split == "test_both") & (benign.adversarial != benign.clean)]
    sent = attacks[~attacks.adversarial.str.contains("secret")]
    cosines = encoder.encode(list(sent.adversarial)) * encoder.encode(list(sent.clean))
    assert found["semantic"] == pytest.approx(cosines.sum(1).mean(), abs=1e-6)


def test_frontier_needs_attacks_with_harm_in_them(frame, encoder, judge) -> None:
    options = {"encoder": encoder, "bench": bench(judge), "gains": [1.0]}
    with pytest.raises(DataError, match="no harmful requests"):
        frontier([Identity()], None, frame.assign(category="benign"), **options)
    with pytest.raises(DataError, match="test_both"):
        frontier([Identity()], None, frame[frame.split != "test_both"], **options)


def test_dewrapping_is_measured_on_requests_that_stand_in_unseen_wrappers(frame, encoder) -> None:
    def reader(texts):
        asked.extend(texts)
        return [SimpleNamespace(vector=encoder.encode([text.split('"')[1]])[0]) for text in texts]

    asked: list[str] = []
    both = frame[(frame.split == "test_both") & (frame.wrapper_family != "")].copy()
    retold = both.head(1).assign(adversarial="the same in other words")
    rows = pd.concat([frame, retold], ignore_index=True)
    losses = dewrap_losses(reader, [Identity()], rows, encoder=encoder)
    assert asked == list(both.adversarial)
    assert losses["tagger"] == pytest.approx(0, abs=1e-6)
    cosines = encoder.encode(list(both.adversarial)) * encoder.encode(list(both.core))
    assert losses["identity"] == pytest.approx(1 - cosines.sum(1).mean(), abs=1e-6)
    with pytest.raises(DataError, match="no wrapped requests"):
        dewrap_losses(reader, [], retold, encoder=encoder)


def test_reduction_is_relative() -> None:
    assert relative_reduction(0.8, 0.2) == pytest.approx(0.75)
    assert relative_reduction(0.2, 0.4) == pytest.approx(-1)
    assert relative_reduction(0.0, 0.1) == 0
