import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.core.errors import StoreError
from workbench.core.identity import text_id
from workbench.embedding import vectors
from workbench.embedding.encoder import MINILM_DIM, MINILM_ID
from workbench.embedding.vectors import CachedEncoder, VectorCache, open_encoder, text_key

DIM = 6


class FakeEncoder:
    """A text's vector depends on the text alone; counts what it was asked."""

    id = "fake@0-f32"
    dim = DIM

    def __init__(self):
        self.asked = []

    def encode(self, texts):
        self.asked.extend(texts)
        seeds = [
            int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") for text in texts
        ]
        rows = np.array(
            [np.random.default_rng(seed).normal(size=DIM) for seed in seeds], np.float32
        )
        rows = rows.reshape(len(texts), DIM)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def cached(folder, encoder):
    return CachedEncoder(lambda: encoder, folder, encoder_id=encoder.id, dim=DIM)


def assert_right(vectors, texts):
    """Assert that vectors are those of the texts, but for half precision."""
    expected = FakeEncoder().encode(texts)
    assert vectors.shape == expected.shape
    assert vectors.dtype == np.float32
    assert ((vectors * expected).sum(axis=1) > 0.99999).all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


@given(st.lists(st.lists(st.text(max_size=4), max_size=6), max_size=5))
@settings(max_examples=20, deadline=None)
def test_cached_equals_computed_and_each_text_is_computed_once(batches):
    fake = FakeEncoder()
    with tempfile.TemporaryDirectory() as folder:
        encoder = cached(Path(folder), fake)
        first = [encoder.encode(batch) for batch in batches]
        for batch, vectors in zip(batches, first, strict=True):
            assert_right(vectors, batch)
        again = FakeEncoder()
        reopened = cached(Path(folder), again)
        for batch, vectors in zip(batches, first, strict=True):
            np.testing.assert_array_equal(reopened.encode(batch), vectors)
    assert len(fake.asked) == len(set(fake.asked))
    assert not again.asked
    assert reopened._encoder is None


@given(st.integers(0, 16 * 20), st.integers(0, 2 * DIM * 20))
@settings(max_examples=25, deadline=None)
def test_a_cache_cut_anywhere_gives_right_vectors_and_takes_new_ones(key_bytes, row_bytes):
    texts = [f"text {number}" for number in range(20)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        encoder = cached(folder, FakeEncoder())
        encoder.encode(texts)
        files = encoder.cache.folder
        with (files / "keys.bin").open("r+b") as keys, (files / "rows.f16").open("r+b") as rows:
            keys.truncate(key_bytes)
            rows.truncate(row_bytes)
        fake = FakeEncoder()
        after = cached(folder, fake)
        left = min(key_bytes // 16, row_bytes // (2 * DIM))
        assert len(after.cache) == left
        assert (files / "keys.bin").stat().st_size == 16 * left
        assert (files / "rows.f16").stat().st_size == 2 * DIM * left
        assert_right(after.encode([*texts, "new"]), [*texts, "new"])
        assert len(fake.asked) == 21 - left


def test_a_writer_repairs_what_a_killed_one_left_while_others_read(tmp_path):
    mine, other = cached(tmp_path, FakeEncoder()), cached(tmp_path, FakeEncoder())
    mine.encode(["a", "b"])
    with (mine.cache.folder / "rows.f16").open("ab") as rows:
        rows.write(b"\0" * 37)  # killed inside its second row
    assert_right(other.encode(["b", "c"]), ["b", "c"])
    assert_right(mine.encode(["c", "a"]), ["c", "a"])


def test_rows_of_another_process_are_seen_at_the_next_miss(tmp_path):
    first, second = FakeEncoder(), FakeEncoder()
    mine, other = cached(tmp_path, first), cached(tmp_path, second)
    other.encode(["shared"])
    mine.encode(["shared"])
    assert first.asked == []
    assert mine._encoder is None


_APPEND = """
import sys, numpy as np
from pathlib import Path
from workbench.embedding.vectors import VectorCache, text_key
cache = VectorCache(Path(sys.argv[1]), "fake@0-f32", 6)
print("ready", flush=True)
sys.stdin.readline()  # both start together
for number in range(int(sys.argv[2]), int(sys.argv[2]) + 120, 3):
    numbers = range(number, number + 3)
    rows = np.array([[n] * 6 for n in numbers], np.float32)
    cache.append([text_key(str(n)) for n in numbers], rows)
"""


def test_half_precision_hardly_turns_a_vector(tmp_path):
    draws = np.random.default_rng(0).normal(size=(500, 384)).astype(np.float32)
    draws *= np.exp(np.random.default_rng(1).normal(size=(500, 384)))  # large and small together
    rows = (draws / np.linalg.norm(draws, axis=1, keepdims=True)).astype(np.float32)
    cache = VectorCache(tmp_path, "some@0", 384)
    keys = [text_key(str(number)) for number in range(500)]
    cache.append(keys, rows)
    kept = cache.rows(cache.find(keys))
    assert kept.dtype == np.float32
    assert ((kept * rows).sum(axis=1) / np.linalg.norm(kept, axis=1) > 0.999999).all()
    assert sum(file.stat().st_size for file in cache.folder.iterdir()) == 500 * (2 * 384 + 16)


def test_a_cache_of_float32_rows_is_left_alone(tmp_path):
    encoder = cached(tmp_path, FakeEncoder())
    old = encoder.cache.folder.with_name(f"fake@0-f32-{text_id('fake@0-f32', str(DIM))[:8]}")
    old.mkdir()  # the folder and the files of the first version
    (old / "keys.bin").write_bytes(text_key("a"))
    (old / "rows.f32").write_bytes(np.full(DIM, 7, "<f4").tobytes())
    again = cached(tmp_path, FakeEncoder())
    assert_right(again.encode(["a"]), ["a"])
    assert (old / "keys.bin").read_bytes() == text_key("a")
    assert (old / "rows.f32").stat().st_size == 4 * DIM


KEYS = st.binary(min_size=16, max_size=16) | st.builds(
    lambda start: start.ljust(16, b"\0"), st.binary(max_size=2)
)


@given(st.lists(st.lists(KEYS, max_size=30), max_size=6), st.lists(KEYS, max_size=10))
@settings(max_examples=40, deadline=None)
def test_every_key_finds_its_row_and_no_other(batches, strangers):
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        cache = VectorCache(Path(folder), "fake@0-f32", 1)
        for batch in batches:
            numbers = np.arange(len(batch), dtype=np.float32)[:, None] + len(rows)
            cache.append(batch, numbers)
            for key, number in zip(batch, numbers, strict=True):
                rows.setdefault(key, float(number[0]))
        for one in (cache, VectorCache(Path(folder), "fake@0-f32", 1)):
            asked = [*rows, *strangers]
            found = one.find(asked)
            assert len(one) == len(rows)
            for key, number in zip(asked, found, strict=True):
                assert (number >= 0) == (key in rows)
                if number >= 0:
                    assert one.rows(np.array([number]))[0, 0] == rows[key]


def test_two_processes_append_at_once(tmp_path):
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _APPEND, str(tmp_path), start],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for start in ("0", "60")
    ]
    assert [writer.stdout.readline() for writer in writers] == ["ready\n"] * 2
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=60)
    assert [writer.returncode for writer in writers] == [0, 0]
    cache = VectorCache(tmp_path, "fake@0-f32", DIM)
    assert len(cache) == 180  # 60 to 119 came from both, and are kept once
    numbers = cache.find([text_key(str(number)) for number in range(180)])
    np.testing.assert_array_equal(cache.rows(numbers)[:, 0], np.arange(180, dtype=np.float32))


def test_encoders_have_caches_of_their_own(tmp_path):
    VectorCache(tmp_path, "one/model@1", DIM).append([text_key("a")], np.ones((1, DIM), np.float32))
    assert len(VectorCache(tmp_path, "one/model@2", DIM)) == 0
    assert len(VectorCache(tmp_path, "one/model@1", DIM)) == 1
    assert len(VectorCache(tmp_path, "one:model@1", DIM)) == 0  # only the hash tells them apart
    assert len(VectorCache(tmp_path, "one/model@1", DIM + 1)) == 0


def test_an_encoder_with_another_id_may_not_write(tmp_path):
    encoder = CachedEncoder(FakeEncoder, tmp_path, encoder_id="other@1", dim=DIM)
    with pytest.raises(StoreError, match=r"other@1.*fake@0-f32"):
        encoder.encode(["a"])
    assert len(encoder.cache) == 0


def test_a_full_disk_is_a_clear_error_and_keeps_what_was_there(tmp_path, monkeypatch):
    encoder = cached(tmp_path, FakeEncoder())
    encoder.encode(["a"])

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("workbench.embedding.vectors.os.fsync", full)
        with pytest.raises(StoreError, match="disk is full"):
            encoder.encode(["b"])
    again = FakeEncoder()
    assert_right(cached(tmp_path, again).encode(["a", "b"]), ["a", "b"])
    assert again.asked == ["b"]


def test_open_encoder_keeps_the_cache_in_the_store(store):
    encoder = open_encoder(store)
    assert (encoder.id, encoder.dim) == (MINILM_ID, MINILM_DIM)
    (folder,) = (store.home / "vectors").iterdir()
    assert folder.name.startswith(MINILM_ID)
    assert encoder.encode([]).shape == (0, 384)
    assert encoder._encoder is None


def test_keys_differ_and_are_stable():
    assert text_key("") == bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb924")
    assert text_key("\ud800") != text_key("?")


def test_workers_give_the_same_vectors_and_this_process_keeps_them(tmp_path, store, monkeypatch):
    texts = [f"text {n} {'word ' * (n % 7)}" for n in range(2_100)]
    fake = FakeEncoder()
    expected = cached(tmp_path, fake).encode(texts)
    monkeypatch.setattr(vectors, "load_encoder", lambda name, offline: FakeEncoder())
    for executor in ("", "threads"):
        encoder = open_encoder(store, f"fake{executor}", executor=executor, jobs=2)
        monkeypatch.setattr(encoder, "cache", VectorCache(tmp_path / executor / "c", "fake", DIM))
        assert encoder.encode(texts).tobytes() == expected.tobytes()
        assert len(encoder.cache) == len(texts)
        loaded = encoder._encoder
    assert loaded is None  # none here: workers have theirs


def test_a_worker_with_another_model_is_refused(store, monkeypatch):
    found = [FakeEncoder(), FakeEncoder()]
    found[1].id = "other@1"
    monkeypatch.setattr(vectors, "load_encoder", lambda name, offline: found.pop(0))
    encoder = open_encoder(store, "some-model", executor="threads", jobs=1)
    with pytest.raises(StoreError, match=r"a worker has encoder other@1, not fake@0-f32"):
        encoder.encode([str(n) for n in range(2_100)])
    assert len(encoder.cache) == 0
