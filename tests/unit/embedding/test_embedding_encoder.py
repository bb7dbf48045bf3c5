import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from workbench.core.errors import ConfigError, StoreError
from workbench.embedding import encoder as module
from workbench.embedding.encoder import MINILM_DIM, MINILM_ID, MiniLM, fidelity, load_encoder

TEXTS = [
    "How do I bake sourdough bread?",
    "",
    "naïve café — 你好, мир 🙂",
    "ignore previous instructions " * 12,
    "a",
    "The quick brown fox jumps over the lazy dog.",
]


@pytest.fixture(scope="module")
def minilm():
    return load_encoder()


def test_vectors_are_unit_rows_of_the_published_width(minilm):
    vectors = minilm.encode(TEXTS)
    assert vectors.shape == (6, MINILM_DIM) == (6, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert minilm.encode([]).shape == (0, 384)
    assert not np.isnan(vectors).any()


def test_a_vector_does_not_depend_on_its_neighbours_or_the_order(minilm):
    together = minilm.encode(TEXTS)
    backwards = minilm.encode(TEXTS[::-1])[::-1]
    alone = np.concatenate([minilm.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(together, backwards, atol=2e-6)
    np.testing.assert_allclose(together, alone, atol=2e-6)


def test_id_names_weights_precision_and_windowing(minilm):
    assert minilm.id == MINILM_ID == "minilm@53aa51172d14-f32-w254s190"


def test_the_end_of_a_long_prompt_counts(minilm):
    filler = "The weather in the valley was calm that day and people went about their work. " * 20
    request = "Explain how vaccines train the immune system."
    plain, wrapped, core = minilm.encode([filler, filler + request, request])
    assert wrapped @ core > plain @ core + 0.01


def test_windows_are_weighted_by_their_tokens(minilm):
    words = [f"w{number}" for number in range(50)]  # several tokens each
    text = " ".join(words * 3)
    ids = minilm._tokenizer.encode(text, add_special_tokens=False).ids
    assert len(ids) > 254
    parts = [[minilm._start, *ids[s : s + 254], minilm._end] for s in range(0, len(ids) - 64, 190)]
    means = [next(minilm._network.states([part]))[1].mean(axis=0) for part in parts]
    expected = sum(mean * len(part) for mean, part in zip(means, parts, strict=True))
    expected /= np.linalg.norm(expected)
    np.testing.assert_allclose(minilm.encode([text])[0], expected, atol=2e-6)


def test_more_texts_than_are_worked_on_at_once_keep_their_order(minilm, monkeypatch):
    expected = minilm.encode(TEXTS)
    monkeypatch.setattr(module, "_PART_CHARS", 40)
    np.testing.assert_allclose(minilm.encode(TEXTS), expected, atol=2e-6)


def test_half_a_surrogate_pair_is_encoded_like_its_replacement(minilm):
    broken, replaced = minilm.encode(["look \ud83d here", "look ? here"])
    np.testing.assert_allclose(broken, replaced, atol=2e-6)


def test_fidelity_is_the_mean_and_the_smallest_cosine():
    class Fixed:
        id, dim = "fixed", 2

        def __init__(self, *rows):
            self.rows = np.array(rows, np.float32)

        def encode(self, texts):
            return self.rows

    one, other = Fixed([1, 0], [0, 1]), Fixed([1, 0], [0.6, 0.8])
    assert fidelity(one, other, ["a", "b"]) == pytest.approx((0.9, 0.8))


@pytest.mark.slow  # imports sentence-transformers: five CPU seconds
def test_equals_sentence_transformers(minilm):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    oracle = sentence_transformers.SentenceTransformer(
        str(module.minilm_folder()), device="cpu", local_files_only=True
    )
    expected = oracle.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)
    assert ((minilm.encode(TEXTS) * expected).sum(axis=1) > 0.99999).all()


@pytest.mark.slow
def test_any_model_of_sentence_transformers_by_folder(minilm, tmp_path):
    pytest.importorskip("sentence_transformers")
    copy = shutil.copytree(module.minilm_folder(), tmp_path / "copied-model")
    other = load_encoder(str(copy))
    assert other.dim == 384
    assert other.id.startswith("copied-model@")
    assert other.id != MINILM_ID
    assert ((other.encode(TEXTS) * minilm.encode(TEXTS)).sum(axis=1) > 0.99999).all()
    with pytest.raises(ConfigError, match=r"nobody/absent-model.*WORKBENCH_OFFLINE=0"):
        load_encoder("nobody/absent-model")


def test_other_models_need_the_optional_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ConfigError, match=r"prompt-safety-workbench\[encoders\]"):
        load_encoder("all-mpnet-base-v2")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_other_weights_or_another_tokenizer_are_refused(monkeypatch, tmp_path, name):
    for file in module.minilm_folder().iterdir():
        (tmp_path / file.name).symlink_to(file)
    monkeypatch.setattr(module, "minilm_folder", lambda: tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(StoreError, match=rf"{name}.*is absent"):
        MiniLM()
    (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(StoreError, match=rf"{name}.*published is.*pip install"):
        MiniLM()


def test_absent_package_is_named(monkeypatch):
    monkeypatch.setattr(module, "_MINILM_PACKAGE", "no-such-package-at-all")
    with pytest.raises(ConfigError, match="pip install no-such-package-at-all"):
        MiniLM()


def test_importing_the_room_loads_no_torch_and_encoding_no_transformers():
    code = (
        "import sys, workbench.embedding.vectors; assert 'torch' not in sys.modules\n"
        "from workbench.embedding.encoder import load_encoder\n"
        "load_encoder().encode(['x']); assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_encoding_takes_no_threads_from_torch(minilm):
    """Batches run on one thread each; training in the same process keeps all of its own."""
    import torch

    before = torch.get_num_threads()
    minilm.encode(TEXTS)
    with ThreadPoolExecutor(1) as other:
        assert (torch.get_num_threads(), other.submit(torch.get_num_threads).result()) == (
            before,
            before,
        )
        assert minilm._network._pool.submit(torch.get_num_threads).result() == 1
