import functools
import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

from workbench.core.errors import DataError, StoreError
from workbench.core.settings import read_settings
from workbench.judge.probe import load_bench, train_bench
from workbench.judge.training import tfidf
from workbench.store.database import open_store

DIM = 32


@functools.cache
def word_vector(word):
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")
    return np.random.default_rng(seed).normal(size=DIM)


class WordEncoder:
    """Sums a fixed random vector per word: texts that share words are near."""

    id = "words@1"
    dim = DIM

    def encode(self, texts):
        rows = np.zeros((len(texts), DIM), np.float32)
        for number, text in enumerate(texts):
            for word in text.split():
                rows[number] += word_vector(word)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    opened = open_store(read_settings({"WORKBENCH_HOME": str(tmp_path_factory.mktemp("home"))}))
    yield opened
    opened.engine.dispose()


@pytest.fixture(scope="module")
def judge_file(tmp_path_factory):
    """Harm is in the verb; topics are shared by all labels."""
    verbs = {"harmful": ["destroy", "poison"], "benign": ["paint", "visit"], "lookalike": ["study"]}
    rows = [
        {"label": label, "topic": topic, "text": f"please {verb} the {topic} number {count}"}
        for topic in ("barn", "river", "tower", "garden", "museum", "bridge")
        for label, options in verbs.items()
        for verb in options
        for count in range(3)
    ]
    path = tmp_path_factory.mktemp("seeds") / "judge.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture(scope="module")
def bench(store, judge_file):
    return train_bench(store, WordEncoder(), judge_file=judge_file)


def test_both_probes_learn_what_makes_a_text_unsafe_on_topics_held_out(bench):
    for judge, report in zip(bench.judges, bench.reports, strict=True):
        assert report["auroc_benign"]["value"] > 0.95
        assert report["recall"] > 0.95
        assert report["threshold"] == judge.threshold
        bad, good = judge.score(["please poison the school", "please visit the school"])
        assert bad > 0.8
        assert good < 0.2
        assert bad > judge.threshold
    assert len({report["representation"] for report in bench.reports}) == 2


def test_loaded_bench_scores_the_same_and_is_not_trained_twice(bench, store, judge_file):
    encoder = WordEncoder()
    texts = ["please poison a barn", "study the river", "", "unknown words only"]
    again = train_bench(store, encoder, judge_file=judge_file)
    assert again.id == bench.id
    assert store.artifacts.exists("judge", bench.id)
    for one, other in zip(again.judges, load_bench(store, encoder, bench.id).judges, strict=True):
        np.testing.assert_array_equal(one.score(texts), other.score(texts))
    probe = bench.embedding
    np.testing.assert_array_equal(probe.score(texts), probe.score_vectors(encoder.encode(texts)))


def test_restored_tfidf_equals_sklearn_fitted_on_the_judge_set(bench, judge_file):
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [json.loads(line)["text"] for line in judge_file.read_text().splitlines()]
    new = ["poison the barn and the unseen", "x"]
    oracle = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, min_df=2)
    expected = oracle.fit(texts).transform(new).toarray()
    found = tfidf(bench.text._vectorizers, new).toarray()[:, : expected.shape[1]]
    np.testing.assert_array_equal(found, expected)


def test_labels_that_mean_nothing_measure_as_chance(store, tmp_path):
    random = np.random.default_rng(0)
    rows = [
        {
            "label": ["harmful", "benign", "lookalike"][random.integers(3)],
            "topic": f"topic {number % 30}",
            "text": " ".join(random.choice(list("abcdefghij"), 8)) + f" {number}",
        }
        for number in range(300)
    ]
    path = tmp_path / "noise.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    for report in train_bench(store, WordEncoder(), judge_file=path).reports:
        assert 0.35 < report["auroc_benign"]["value"] < 0.65  # in-sample it would be far above
        # In-sample thresholds would give exactly the share they aim at, five of the 104 benign.
        assert report["false_positive_rate"] != pytest.approx(0.05, abs=0.003)
        assert abs(report["recall"] - report["false_positive_rate"]) < 0.08
        assert report["calibration_error"] < 0.1


def test_anything_that_changes_scores_changes_the_id(bench, store, judge_file, tmp_path):
    class OtherEncoder(WordEncoder):
        id = "words@2"

    other = train_bench(store, OtherEncoder(), judge_file=judge_file)
    edited = tmp_path / "judge.jsonl"
    edited.write_text(judge_file.read_text().replace("barn", "mill"))
    changed = train_bench(store, WordEncoder(), judge_file=edited)
    assert len({bench.id, other.id, changed.id}) == 3
    with pytest.raises(StoreError, match=r"needs encoder words@1, got words@2"):
        load_bench(store, OtherEncoder(), bench.id)
    with pytest.raises(DataError, match="no judge"):
        load_bench(store, WordEncoder(), "absent")


def test_artifact_holds_no_pickle(bench, store):
    folder = store.artifacts.path("judge", bench.id)
    assert {file.name for file in folder.iterdir()} == {"bench.json", "arrays.safetensors"}


def test_too_few_topics_to_hold_out(store, judge_file, tmp_path):
    path = tmp_path / "narrow.jsonl"
    lines = judge_file.read_text().splitlines()
    path.write_text("\n".join(line for line in lines if "barn" in line or "river" in line))
    with pytest.raises(DataError, match="2 topics"):
        train_bench(store, WordEncoder(), judge_file=path)


def test_loading_and_scoring_vectors_needs_neither_sklearn_nor_torch(bench, store):
    code = (
        "import sys, numpy as np\n"
        "from workbench.core.settings import read_settings\n"
        "from workbench.store.database import open_store\n"
        "from workbench.judge.probe import load_bench\n"
        f"store = open_store(read_settings({{'WORKBENCH_HOME': {str(store.home)!r}}}))\n"
        "class E: id = 'words@1'\n"
        f"load_bench(store, E(), {bench.id!r}).embedding.score_vectors(np.ones((1, {DIM}), 'f4'))\n"
        "assert not {'sklearn', 'torch'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
