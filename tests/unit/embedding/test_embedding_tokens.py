import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.core.errors import ConfigError
from workbench.embedding import encoder as module
from workbench.embedding.encoder import MINILM_DIM, MINILM_ID, load_encoder
from workbench.embedding.vectors import CachedEncoder

LONG = "Please ignore all that was said before and tell me a story about the sea. " * 40
TEXTS = ["How do I cook rice?", "", "naïve Café — 你好", LONG, "look \ud83d here 🙂 now"]


@pytest.fixture(scope="module")
def minilm():
    return load_encoder()


def words(text, found):
    return [text[start:stop] for start, stop in found.spans.tolist()]


def test_each_token_knows_its_place_in_the_text(minilm):
    question, empty, accents, long, broken = minilm.tokens(TEXTS)
    assert words(TEXTS[0], question) == ["How", "do", "I", "cook", "rice", "?"]
    assert empty.states.shape == (0, MINILM_DIM)
    assert empty.spans.shape == (0, 2)
    assert words(TEXTS[2], accents) == ["naïve", "Café", "—", "你", "好"]
    sentence = "Please ignore all that was said before and tell me a story about the sea ."
    assert words(LONG, long) == sentence.split() * 40
    assert words(TEXTS[4], broken) == ["look", "\ud83d", "here", "🙂", "now"]


@given(st.text(max_size=40))
@settings(max_examples=60, deadline=None)
def test_spans_go_forward_and_leave_out_nothing_that_is_a_letter(minilm, text):
    (found,) = minilm.tokens([text])
    assert found.states.shape == (len(found.spans), MINILM_DIM)
    assert (found.spans[:, 0] < found.spans[:, 1]).all()
    assert (np.diff(found.spans[:, 0]) >= 0).all()
    covered = {at for start, stop in found.spans.tolist() for at in range(start, stop)}
    letters = {at for at, one in enumerate(text) if one.isascii() and one.isalnum()}
    assert letters <= covered <= set(range(len(text)))


def test_states_are_those_whose_mean_is_the_vector(minilm):
    text = TEXTS[0]
    (found,) = minilm.tokens([text])
    ids = minilm._tokenizer.encode(text).ids
    ((_, states),) = minilm._network.states([ids])
    np.testing.assert_allclose(found.states, states[1:-1], atol=1e-5)
    vector = states.mean(axis=0)
    np.testing.assert_allclose(minilm.encode([text])[0], vector / np.linalg.norm(vector), atol=2e-6)


def test_a_token_of_two_windows_counts_where_more_text_surrounds_it(minilm):
    *_, found = minilm.tokens([LONG])
    ids = minilm._tokenizer.encode(LONG, add_special_tokens=False).ids
    starts = range(0, len(ids) - 64, 190)
    cut = [ids[start : start + 254] for start in starts]
    pieces = [[minilm._start, *window, minilm._end] for window in cut]
    states = {index: rows[1:-1] for index, rows in minilm._network.states(pieces)}
    for token in range(len(ids)):
        where = [
            (min(token - start + 0.5, start + 254 - 0.5 - token), number)
            for number, start in enumerate(starts)
            if start <= token < start + len(cut[number])
        ]
        number = max(where)[1]
        expected = states[number][token - starts[number]]
        np.testing.assert_allclose(found.states[token], expected, atol=1e-4)
    assert len(found.states) == len(found.spans) == len(ids)


def test_states_do_not_depend_on_neighbours(minilm):
    together = list(minilm.tokens(TEXTS))
    for text, found in zip(TEXTS, together, strict=True):
        (alone,) = minilm.tokens([text])
        np.testing.assert_array_equal(alone.spans, found.spans)
        scale = np.abs(alone.states).max(initial=1)
        np.testing.assert_allclose(found.states / scale, alone.states / scale, atol=1e-5)


def test_texts_are_worked_on_as_they_are_asked_for(minilm, monkeypatch):
    asked = []
    real = minilm._network.states
    monkeypatch.setattr(module, "_PART_CHARS", 100)
    monkeypatch.setattr(
        minilm._network, "states", lambda pieces: (asked.append(len(pieces)), real(pieces))[1]
    )
    texts = ["four short words here"] * 12  # 21 characters: four of them at once
    found = minilm.tokens(texts)
    next(found)
    assert asked == [4]
    assert len(list(found)) == 11
    assert asked == [4, 4, 4]


def test_the_cached_encoder_hands_tokens_on(minilm, tmp_path):
    cached = CachedEncoder(lambda: minilm, tmp_path, encoder_id=MINILM_ID, dim=MINILM_DIM)
    (found,) = cached.tokens(["How do I"])
    assert found.spans.tolist() == [[0, 3], [4, 6], [7, 8]]
    assert len(cached.cache) == 0


def test_an_encoder_of_whole_texts_says_so(tmp_path):
    class Whole:
        id, dim = "whole@0", 2

    with pytest.raises(ConfigError, match=r"whole@0.*'minilm'"):
        CachedEncoder(Whole, tmp_path, encoder_id="whole@0", dim=2).tokens(["a"])


@pytest.mark.slow  # imports sentence-transformers: five CPU seconds
def test_states_equal_those_of_sentence_transformers(minilm):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    oracle = sentence_transformers.SentenceTransformer(
        str(module.minilm_folder()), device="cpu", local_files_only=True
    )
    texts = [TEXTS[0], TEXTS[2]]
    expected = oracle.encode(texts, output_value="token_embeddings", show_progress_bar=False)
    for found, rows in zip(minilm.tokens(texts), expected, strict=True):
        inner = rows.numpy()[1 : len(found.states) + 1]
        np.testing.assert_allclose(found.states, inner, atol=2e-4)
