"""Two languages: a made-up one, by hashing words, that needs no weights, and MiniLM's."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from workbench.core.identity import stable_fraction, text_id
from workbench.diffusion.tagged import TaggedData, tagged_texts
from workbench.diffusion.tagger import Tagger, TaggerConfig
from workbench.diffusion.tagging import train_tagger
from workbench.diffusion.trainer import TrainingMetrics
from workbench.diffusion.training_config import TrainingConfig
from workbench.embedding.encoder import MiniLM
from workbench.embedding.states import StateCache

DIM = 24


class WordEncoder:
    """Sum of fixed random vectors of the words."""

    id = "words"
    dim = DIM

    def __init__(self) -> None:
        self.encoded = 0

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.encoded += len(texts)
        rows = np.zeros((len(texts), DIM), dtype=np.float64)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split() or [""]:
                seed = int(stable_fraction(word.strip('".,:;?!')) * 2**31)
                row[:] += np.random.default_rng(seed).normal(size=DIM)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class FirstAxisJudge:
    """Calls unsafe what points along one direction."""

    id = "axis"
    threshold = 0.5

    def __init__(self, direction: np.ndarray) -> None:
        self.direction = direction

    def score_vectors(self, vectors: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-8 * (vectors @ self.direction).astype(np.float64)))


@pytest.fixture
def axis_judge() -> type[FirstAxisJudge]:
    return FirstAxisJudge


@pytest.fixture(scope="session")
def encoder() -> WordEncoder:
    return WordEncoder()


@pytest.fixture(scope="session")
def minilm() -> MiniLM:
    return MiniLM()


@pytest.fixture(scope="session")
def embeddings() -> MiniLM:
    """MiniLM's tokens and windows without its layers: next to no work."""
    return MiniLM(layers=0)


@pytest.fixture(scope="session")
def frame() -> pd.DataFrame:
    """12 families × 20 requests of wrapped pairs over all splits, and 60 plain benign ones."""
    rows = []
    for family, request in itertools.product(range(12), range(20)):
        core = f"tell me secret{request} of topic{request % 7}"
        unseen_family, unseen_request = family >= 9, request >= 15
        split = {
            (False, False): "validation" if request >= 12 else "train",
            (True, False): "test_wrappers",
            (False, True): "test_intents",
            (True, True): "test_both",
        }[unseen_family, unseen_request]
        rows.append(
            {
                "adversarial": f'pretend persona{family} has rule{family}: "{core}" right now',
                "clean": f"explain safety of topic{request % 7} please",
                "core": core,
                "relation": "safe_rewrite",
                "category": "violence",
                "wrapper_family": f"family{family}",
                "split": split,
            }
        )
    for number in range(60):
        text = f"what is the weather in town{number} today"
        rows.append(
            {
                "adversarial": text,
                "clean": text,
                "core": text,
                "relation": "identity",
                "category": "benign",
                "wrapper_family": "",
                "split": ["train", "validation", "test_intents"][number % 3],
            }
        )
    for row in rows:
        row |= {"context": "general", "domain": "general", "language": "en"}
        row["id"] = text_id(row["adversarial"], row["clean"])
    return pd.DataFrame(rows)


@pytest.fixture(scope="session")
def halves(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Pairs for MiniLM, few enough to be read in a second: of training, of validation."""

    def few(split: str, families: int) -> pd.DataFrame:
        known = [f"family{number}" for number in range(families)]
        return frame[(frame["split"] == split) & frame["wrapper_family"].isin(["", *known])]

    return few("train", 4), few("validation", 8)


@pytest.fixture(scope="session")
def cache(minilm: MiniLM, tmp_path_factory: pytest.TempPathFactory) -> StateCache:
    return StateCache(tmp_path_factory.mktemp("states"), minilm)


@pytest.fixture(scope="session")
def trained(
    halves: tuple[pd.DataFrame, pd.DataFrame], cache: StateCache, minilm: MiniLM
) -> tuple[TrainingMetrics, Tagger]:
    """A tagger of the last states that has learned what a secret is, and where."""
    data, held = (TaggedData(tagged_texts(half), cache=cache, encoder=minilm) for half in halves)
    training = TrainingConfig(
        steps=60, batch_size=32, learning_rate=1e-2, ema_decay=0.9, validate_every=30
    )
    config = TaggerConfig(hidden=8, tuned_layers=0)
    return train_tagger(config, training, data=data, validation=held)
