"""The index finds what brute force finds, obeys no query, and survives whatever ends its writer."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.core.errors import ConfigError, StoreError
from workbench.risk.documents import index as index_module
from workbench.risk.documents import words
from workbench.risk.documents.index import DocumentIndex, open_index
from workbench.risk.documents.records import Chunk, Document, Vectors, conditions, fuse

DIM = 8


def document(file: str, *texts: str, **said: object) -> Document:
    chunks = tuple(Chunk(section=f"part {at}", page=at, text=one) for at, one in enumerate(texts))
    defaults = {"sha256": "0", "kind": "markdown", "title": f"title of {file}"}
    return Document(**(defaults | {"file": file, "chunks": chunks} | said))


def vectors(count: int, seed: int = 0, dim: int = DIM) -> Vectors:
    rows = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return Vectors(rows / np.linalg.norm(rows, axis=1, keepdims=True), "encoder-1")


@pytest.fixture
def index(tmp_path: Path) -> Iterator[DocumentIndex]:
    opened = DocumentIndex(tmp_path / "index")
    yield opened
    opened.close()


def add(index: DocumentIndex, one: Document, seed: int | None = 0) -> None:
    made = None if seed is None else vectors(len(one.chunks), seed)
    index.add(one, fingerprint=f"print-{seed}", vectors=made)


def test_words_are_stemmed_folded_and_found_in_headings(index):
    add(index, document("a", "Vulnerabilities are patched", "nothing here"))
    add(index, document("b", "the café opens"))
    for query, file in (("patching a VULNERABILITY", "a"), ("cafe", "b"), ("title b", "b")):
        hits = index.search(query, None, top=3)
        assert hits[0].file == file
        assert (hits[0].word_rank, hits[0].vector_rank) == (1, None)
    assert (hits[0].section, hits[0].page, hits[0].title) == ("part 0", 0, "title of b")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.one_of(
        st.text(max_size=60),
        st.lists(
            st.sampled_from(
                ["NEAR(", ")", '"', "*", "AND", "OR", "NOT", "text:", "^", "-", "{", "}", "+",
                 "patch", "the", "😀", "\0", "\ud800", "''", "①", ":", "e\u0301", ",", "NEAR/2"]
            )
        ).map(" ".join),
    )
)  # fmt: skip
def test_no_query_raises_or_is_syntax(index, query):
    if not index.count():
        add(index, document("a", "the patch is near", "and not or"))
    index.search(query, None, top=3)


def test_quotes_and_operators_are_words(index):
    add(index, document("a", "near and far"), None)
    add(index, document("b", "a patch"), None)
    hits = index.search('patch NOT "patch" AND', None, top=5)
    assert {hit.file for hit in hits} == {"a", "b"}


def test_frequent_words_are_left_out_unless_there_are_no_others(index, monkeypatch):
    monkeypatch.setattr(words, "_MATCHED_ROWS", 10)
    add(index, document("a", *[f"the common word number{at}" for at in range(30)]))
    asked: list[str] = []
    index._connection.set_trace_callback(asked.append)
    assert index.search("the common number7", None, top=3)[0].text.endswith("number7")
    assert not any('"common" OR' in one or 'OR "common"' in one for one in asked)
    assert len(index.search("the", None, top=3)) == 3
    assert index.search("unknown", None, top=3) == []


@st.composite
def _collections(draw: st.DrawFn) -> list[Document]:
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=6))
    return [
        document(
            f"f{number}",
            *[f"text {number} {at}" for at in range(size)],
            asset=draw(st.sampled_from(["shop", "mail"])),
            kind=draw(st.sampled_from(["pdf", "markdown"])),
            date=draw(st.sampled_from(["", "2025-01-01", "2025-06-30", "2026-01-01"])),
            tags=tuple(draw(st.lists(st.sampled_from("abc"), unique=True))),
        )
        for number, size in enumerate(sizes)
    ]


_filters = st.fixed_dictionaries(
    {},
    optional={
        "asset": st.sampled_from(["shop", "mail", "none"]),
        "kind": st.lists(st.sampled_from(["pdf", "markdown"]), min_size=1),
        "tags": st.lists(st.sampled_from("abc"), min_size=1),
        "file": st.sampled_from(["f0", "f1"]),
        "date": st.just("2025-06-30"),
        "since": st.just("2025-02-01"),
        "until": st.just("2025-06-30"),
    },
)


def _fits(one: Document, where: dict[str, str | list[str]]) -> bool:
    for field, wanted in where.items():
        values = [wanted] if isinstance(wanted, str) else wanted
        if field == "tags":
            fits = bool(set(one.tags) & set(values))
        elif field == "since":
            fits = one.date >= values[0]
        elif field == "until":
            fits = "" < one.date <= values[0]
        else:
            fits = getattr(one, field) in values
        if not fits:
            return False
    return True


@settings(max_examples=30, deadline=None)
@given(documents=_collections(), where=_filters, replaced=st.booleans(), data=st.data())
def test_search_is_brute_force_with_the_filter_of_python(
    tmp_path_factory, documents, where, replaced, data
):
    index = DocumentIndex(tmp_path_factory.mktemp("index"))
    kept = {}
    for number, one in enumerate(documents):
        made = vectors(len(one.chunks), number)
        index.add(one, fingerprint="", vectors=made)
        kept[one.file] = (one, made)
    if replaced:  # rows are freed and used again, in another order
        file = data.draw(st.sampled_from(sorted(kept)))
        index.remove(file)
        del kept[file]
        new = document("new", "text n 0", "text n 1", "text n 2", asset="shop")
        kept["new"] = (new, vectors(3, 99))
        index.add(new, fingerprint="", vectors=kept["new"][1])
    query = vectors(1, 1000).rows[0]
    expected = sorted(
        (-float(row @ query), chunk.text)
        for one, made in kept.values()
        if _fits(one, where)
        for row, chunk in zip(made.rows, one.chunks, strict=True)
    )
    found = index.search("nomatch", query, top=100, where=where)
    assert [hit.text for hit in found] == [text for _, text in expected]
    assert [hit.vector_rank for hit in found] == list(range(1, len(expected) + 1))
    by_words = index.search("text", None, top=100, where=where)
    assert sorted(hit.text for hit in by_words) == sorted(text for _, text in expected)
    index.close()


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ({"assets": "shop"}, "no field 'assets' in a document; use one of file, kind"),
        ({"asset; DROP TABLE files": "x"}, "no field"),
        ({"asset": []}, "give a text, or a list"),
        ({"asset": [1]}, "give a text, or a list"),
        ({"since": "soon"}, "give one date"),
        ({"until": ["2025-01-01", "2025-01-02"]}, "give one date"),
    ],
)
def test_a_filter_without_sense_is_refused(index, where, reason):
    with pytest.raises(ConfigError, match=reason):
        index.search("x", None, top=1, where=where)


def test_a_value_of_a_filter_is_never_sql(index):
    add(index, document("a", "text", asset="x' OR '1'='1"))
    assert index.search("text", None, top=1, where={"asset": "' OR 1=1 --"}) == []
    assert index.search("text", None, top=1, where={"asset": "x' OR '1'='1"})
    assert conditions({"asset": "a"}) == [("asset", ("a",))]


def test_a_document_replaces_what_was_there_of_its_file(index):
    add(index, document("a", "old words", "older words"), 1)
    add(index, document("a", "new words"), 2)
    assert index.count() == 1
    assert index.known() == {"a": "print-2"}
    assert [hit.text for hit in index.search("words", None, top=9)] == ["new words"]
    assert index.remove("a")
    assert not index.remove("a")
    assert (index.count(), index.search("words", vectors(1).rows[0], top=9)) == (0, [])


def test_rows_are_used_again(index):
    add(index, document("other", "stays"), 0)
    for seed in range(20):
        add(index, document("a", "one", "two"), seed)
    rows = (index.folder / "vectors.f32").stat().st_size / (DIM * 4)
    assert rows == 1 + 2 + 2  # what is there and, while it is replaced, what comes


def test_vectors_of_another_encoder_or_shape_are_refused_and_nothing_is_lost(index):
    add(index, document("a", "one", "two"))
    other = vectors(2, dim=DIM)
    for wrong, reason in (
        (Vectors(other.rows, "encoder-2"), "its vectors are of encoder-1, not of encoder-2"),
        (Vectors(vectors(2, dim=4).rows, "encoder-1"), r"shape \(2, 4\)"),
        (vectors(3), r"shape \(3, 8\) for 2 chunks"),
        (Vectors(np.full((2, DIM), np.nan, np.float32), "encoder-1"), "not finite"),
    ):
        with pytest.raises(ConfigError, match=reason):
            index.add(document("a", "three", "four"), fingerprint="x", vectors=wrong)
    assert index.known() == {"a": "print-0"}
    assert index.encoder_id == "encoder-1"
    with pytest.raises(ConfigError, match="query vector of shape"):
        index.search("x", np.ones(3, np.float32), top=1)


def test_a_failure_after_the_vectors_are_written_changes_nothing(index, monkeypatch):
    add(index, document("a", "one", "two"), 1)
    query = vectors(2, 1).rows[1]
    before = index.search("two", query, top=9)

    def fail(*_: object) -> bool:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(index_module, "_remove", fail)
        with pytest.raises(StoreError, match="full; free space and run again"):
            add(index, document("a", "three", "four"), 2)
    index.close()
    again = DocumentIndex(index.folder)
    assert again.search("two", query, top=9) == before
    add(again, document("a", "three", "four"), 2)
    assert [hit.text for hit in again.search("four", vectors(2, 2).rows[1], top=1)] == ["four"]
    again.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a kill that nothing can catch")
def test_a_kill_leaves_whole_documents(tmp_path):
    program = f"""
        import os, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_risk_documents_index import *
        index = DocumentIndex(Path({str(tmp_path)!r}))
        add(index, document("a", "one", "two"), 1)
        real, calls = index_module.write_vectors, []
        def die(*arguments):
            real(*arguments)
            os._exit(9)
        index_module.write_vectors = die
        add(index, document("b", "three"), 2)
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    assert ended.returncode == 9
    index = DocumentIndex(tmp_path)
    assert index.known() == {"a": "print-1"}
    add(index, document("b", "three"), 3)
    assert [hit.text for hit in index.search("x", vectors(1, 3).rows[0], top=1)] == ["three"]
    index.close()


def test_writers_take_turns_and_readers_see_whole_documents(tmp_path):
    DocumentIndex(tmp_path).close()

    def work(number: int) -> set[int]:
        mine = DocumentIndex(tmp_path)  # a connection of its own, as another process has
        seen = set()
        for at in range(8):
            add(mine, document(f"{number}-{at % 4}", "word one", "word two"), number)
            hits = mine.search("word", vectors(1).rows[0], top=1000)
            seen |= {sum(hit.file == one for hit in hits) for one in {hit.file for hit in hits}}
        mine.close()
        return seen

    with ThreadPoolExecutor(4) as threads:
        assert set.union(*threads.map(work, range(4))) == {2}
    index = DocumentIndex(tmp_path)
    assert (index.count(), len(index.known())) == (32, 16)
    for number in range(4):  # each file still has its own vectors
        first = vectors(2, number).rows[0]
        assert index.search("", first, top=4)[0].file.startswith(f"{number}-")
    index.close()


def test_chunks_without_vectors_are_found_by_words(index):
    add(index, document("a", "one"), None)
    add(index, document("b", "two"), 1)
    assert [hit.file for hit in index.search("nomatch", vectors(1).rows[0], top=9)] == ["b"]
    assert [hit.file for hit in index.search("one", None, top=9)] == ["a"]


def test_what_cannot_be_used_is_said(tmp_path, store):
    for name in ("", "../x", "A", "a" * 65, "a/b", "-a", "a\n"):
        with pytest.raises(ConfigError, match="index "):
            open_index(store, name)
    with pytest.raises(ConfigError, match="'none'; run `workbench risk documents add`"):
        open_index(store, "none", must_exist=True)
    newer = DocumentIndex(tmp_path / "newer")
    newer._connection.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(StoreError, match="format 99, this version knows 1; upgrade"):
        DocumentIndex(tmp_path / "newer")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "index.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match=r"not a database; remove .*broken and ingest again"):
        DocumentIndex(tmp_path / "broken")
    short = DocumentIndex(tmp_path / "short")
    add(short, document("a", "one", "two"))
    os.truncate(tmp_path / "short" / "vectors.f32", 40)
    with pytest.raises(StoreError, match="shorter than its index; remove that folder"):
        short.search("one", vectors(1).rows[0], top=1)
    short.close()


@given(st.lists(st.lists(st.integers(0, 9), unique=True), max_size=3), st.integers(1, 10))
def test_fusion_is_the_sum_of_reciprocal_ranks(rankings, top):
    scores = {
        key: sum(1 / (60 + one.index(key) + 1) for one in rankings if key in one)
        for one in rankings
        for key in one
    }
    fused = fuse(rankings, top=top)
    assert len(fused) == min(top, len(scores))
    assert [score for _, score in fused] == pytest.approx(
        sorted(scores.values(), reverse=True)[:top]
    )
    assert all(scores[key] == pytest.approx(score) for key, score in fused)
