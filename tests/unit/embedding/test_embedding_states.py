"""States of tokens are computed once and kept whole, whatever happens to the files."""

from __future__ import annotations

import numpy as np
import pytest

from workbench.embedding.encoder import MiniLM
from workbench.embedding.states import StateCache

TEXTS = ["How do I bake bread?", "", "half \ud83d a pair", "عربي", "word " * 300]
FILES = ["keys.bin", "ends.i64", "states.f16"]


class Counting:
    """MiniLM's tokens without its layers; counts the texts that it works on."""

    def __init__(self, encoder: MiniLM) -> None:
        self.encoder = encoder
        self.id, self.dim = encoder.id, encoder.dim
        self.computed: list[str] = []

    def windows(self, texts):
        self.computed += texts
        return self.encoder.windows(texts)


@pytest.fixture(scope="module")
def embeddings() -> MiniLM:
    return MiniLM(layers=0)


@pytest.fixture
def encoder(embeddings: MiniLM) -> Counting:
    return Counting(embeddings)


def expected(encoder: Counting, texts: list[str]) -> list[np.ndarray]:
    return [
        np.concatenate([window.states for window in windows]).astype(np.float16)
        for windows in encoder.encoder.windows(texts)
    ]


def is_right(cache: StateCache, encoder: Counting, texts: list[str] = TEXTS) -> bool:
    found = cache.get(texts)
    assert all(one.dtype == np.float32 for one in found)
    return all(map(np.array_equal, found, expected(encoder, texts)))


def sizes(cache: StateCache) -> list[int]:
    return [(cache.folder / name).stat().st_size for name in FILES]


def test_states_are_those_of_the_encoder_in_half_precision(tmp_path, encoder) -> None:
    cache = StateCache(tmp_path, encoder)
    assert is_right(cache, encoder)  # computed
    cache.fill(TEXTS)
    assert is_right(cache, encoder)  # kept
    assert is_right(cache, encoder, [*TEXTS[::-1], TEXTS[0], "another"])
    assert cache.get([]) == []


def test_a_text_is_computed_once(tmp_path, encoder) -> None:
    cache = StateCache(tmp_path, encoder)
    cache.fill([*TEXTS, TEXTS[0]])
    assert sorted(encoder.computed) == sorted(TEXTS)
    cache.fill(TEXTS)
    cache.get(TEXTS)
    StateCache(tmp_path, encoder).fill(TEXTS)
    StateCache(tmp_path, encoder).get(TEXTS)
    assert len(encoder.computed) == len(TEXTS)


def test_progress_counts_to_the_end(tmp_path, encoder, monkeypatch) -> None:
    monkeypatch.setattr("workbench.embedding.states._CHUNK_TEXTS", 2)
    told = []
    StateCache(tmp_path, encoder).fill(TEXTS, tell=lambda *counts: told.append(counts))
    counts = [done for done, _ in told]
    assert sorted(np.diff([0, *counts])) == [1, 2, 2]  # in any order
    assert {total for _, total in told} == {5} == {counts[-1]}


def test_who_fills_beside_another_computes_only_what_that_left(
    tmp_path, encoder, monkeypatch
) -> None:
    monkeypatch.setattr("workbench.embedding.states._CHUNK_TEXTS", 2)
    other, cache = StateCache(tmp_path, encoder), StateCache(tmp_path, encoder)
    cache.fill(TEXTS, tell=lambda *_: other.fill(TEXTS))
    assert sorted(encoder.computed) == sorted(TEXTS)
    assert is_right(cache, encoder)


def test_windows_are_those_of_the_encoder_computed_once(tmp_path, encoder) -> None:
    cache = StateCache(tmp_path, MiniLM(layers=0))
    for _ in range(2):
        given = list(cache.windows(TEXTS))
        for own, those in zip(given, encoder.encoder.windows(TEXTS), strict=True):
            for one, other in zip(own, those, strict=True):
                np.testing.assert_array_equal(one.states, other.states.astype(np.float16))
                np.testing.assert_array_equal(one.spans, other.spans)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("lost_bytes", [1, 7, 2_000])
def test_a_truncated_file_costs_the_last_texts_alone(tmp_path, encoder, name, lost_bytes) -> None:
    cache = StateCache(tmp_path, encoder)
    for text in TEXTS:
        cache.fill([text])
    file = cache.folder / name
    file.write_bytes(file.read_bytes()[:-lost_bytes])
    encoder.computed.clear()
    again = StateCache(tmp_path, encoder)
    assert is_right(again, encoder)
    lost = encoder.computed.copy()
    assert lost == TEXTS[len(TEXTS) - len(lost) :]
    assert len(lost) >= 1
    assert len(lost) == 1 or (lost_bytes == 2_000 and name != "states.f16")
    again.fill(TEXTS)
    assert is_right(again, encoder)
    encoder.computed.clear()
    assert is_right(StateCache(tmp_path, encoder), encoder)
    assert encoder.computed == []


def test_two_caches_on_one_folder_keep_each_text_once(tmp_path, encoder) -> None:
    one, other = StateCache(tmp_path, encoder), StateCache(tmp_path, encoder)
    one.fill(TEXTS[:3])
    other.fill(TEXTS[2:])
    one.fill(TEXTS)
    assert is_right(one, encoder)
    assert is_right(other, encoder)
    alone = StateCache(tmp_path / "alone", encoder)
    alone.fill(TEXTS)
    assert sizes(one) == sizes(alone)


def test_what_the_limit_leaves_out_is_computed_each_time_and_equal(tmp_path, encoder) -> None:
    cache = StateCache(tmp_path, encoder, limit_bytes=0)
    cache.fill(TEXTS)
    assert sizes(cache) == [0, 0, 0]
    for _ in range(2):
        encoder.computed.clear()
        assert is_right(cache, encoder)
        assert encoder.computed == TEXTS


def test_filling_stops_at_the_limit(tmp_path, encoder, monkeypatch) -> None:
    monkeypatch.setattr("workbench.embedding.states._CHUNK_TEXTS", 1)
    cache = StateCache(tmp_path, encoder, limit_bytes=2 * encoder.dim * 4)
    cache.fill(TEXTS)
    # the shortest come first; a text that has begun is kept whole
    assert 1 <= sizes(cache)[0] // 16 < len(TEXTS)
    assert is_right(cache, encoder)


def test_each_encoder_has_a_folder_of_its_own(tmp_path, encoder) -> None:
    StateCache(tmp_path, encoder).fill(TEXTS)
    encoder.id = "another"
    encoder.computed.clear()
    StateCache(tmp_path, encoder).get(TEXTS)
    assert encoder.computed == TEXTS
