"""Passages lose no word, stay short, overlap, and know where they stand."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from workbench.risk.documents.chunks import OVERLAP_WORDS, WORDS, chunks_of, clean
from workbench.risk.documents.records import Block

_words = st.lists(st.from_regex(r"[a-z]{1,12}[.!?]?", fullmatch=True), min_size=1, max_size=300)


def _joined(chunks: list[list[str]]) -> list[str]:
    """Return the words of a section from its passages, the overlap taken once."""
    return chunks[0] + [word for chunk in chunks[1:] for word in chunk[OVERLAP_WORDS:]]


@given(st.lists(_words, min_size=1, max_size=5))
def test_the_passages_of_a_section_are_its_words_with_overlap(paragraphs):
    found = chunks_of([Block(" ".join(words)) for words in paragraphs])
    chunks = [chunk.text.split() for chunk in found]
    assert all(len(chunk) <= WORDS for chunk in chunks)
    assert all(
        before[-OVERLAP_WORDS:] == after[:OVERLAP_WORDS] for before, after in pairwise(chunks)
    )
    assert _joined(chunks) == [word for words in paragraphs for word in words]


def test_sections_are_paths_of_headings_and_never_mix():
    blocks = [
        Block("before"),
        Block("Policy", heading=1),
        Block("one"),
        Block("Deadlines", heading=2),
        Block("two", page=3),
        Block("Exceptions", heading=2),
        Block("three"),
        Block("Annex", heading=1),
        Block("four"),
    ]
    assert [(chunk.section, chunk.page, chunk.text) for chunk in chunks_of(blocks)] == [
        ("", None, "before"),
        ("Policy", None, "one"),
        ("Policy > Deadlines", 3, "two"),
        ("Policy > Exceptions", None, "three"),
        ("Annex", None, "four"),
    ]


def test_a_passage_ends_at_a_paragraph_else_at_a_sentence():
    paragraph = Block(" ".join(["word"] * 150))
    first = chunks_of([paragraph, paragraph])[0]
    assert len(first.text.split()) == 150
    sentence = " ".join([*["word"] * 139, "end."])
    first = chunks_of([Block(f"{sentence} {sentence}")])[0]
    assert first.text.endswith("end.")


def test_a_passage_carries_the_page_it_begins_on():
    blocks = [Block(" ".join(["word"] * 150), page=page) for page in (1, 2, 3)]
    assert [chunk.page for chunk in chunks_of(blocks)] == [1, 1, 2]


def test_text_without_spaces_is_cut_too():
    for text in ("x" * 100_000, "書" * 10_000):
        chunks = chunks_of([Block(text)])
        assert max(len(chunk.text) for chunk in chunks) <= WORDS * 40
        assert sum(len(chunk.text) for chunk in chunks) >= len(text)


@given(st.text())
def test_what_is_cleaned_can_be_shown_and_stored(text):
    cleaned = clean(text)
    assert all(char.isprintable() or char == "\n" for char in cleaned)
    cleaned.encode("utf-8")


def test_cleaning_keeps_lines_and_drops_what_hides():
    assert clean("a\x1b[31m\u202eb\x00\u00ad\u200bc\r\n\n  d \t e ") == "a [31m b c\nd e"
