"""Every index of documents keeps, finds, filters and forgets alike.

Chroma itself is tried where it is installed; a small stand-in that is as strict as its client is
tried everywhere.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workbench.core.errors import ConfigError
from workbench.risk.documents.chroma import ChromaIndex, open_chroma
from workbench.risk.documents.index import DocumentIndex
from workbench.risk.documents.records import Chunk, Document, Index, Vectors
from workbench.risk.documents.retrieve import retrieve

DIM = 4
NAMES = ("default", "chroma-stand-in", "chroma")


class Collection:
    """What Chroma's collection does with ids, vectors, texts and metadata, errors included."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows: dict[str, tuple[np.ndarray, str, dict[str, Any]]] = {}

    def count(self) -> int:
        return len(self.rows)

    def upsert(
        self,
        *,
        ids: list[str],
        embeddings: np.ndarray,
        documents: list[str],
        metadatas: list[dict[str, Any]],
    ) -> None:
        if not ids or len(set(ids)) < len(ids):
            raise ValueError("Expected IDs to be a non-empty list of unique ids")
        for id_, vector, text, said in zip(ids, embeddings, documents, metadatas, strict=True):
            if not all(isinstance(value, str | int | float | bool) for value in said.values()):
                raise ValueError(f"Expected metadata value to be a str, int, float or bool: {said}")
            self.rows[id_] = (np.asarray(vector), text, said)

    def delete(self, *, ids: list[str]) -> None:
        if not ids:
            raise ValueError("Expected IDs to be a non-empty list, got 0 IDs in delete.")
        for id_ in ids:
            self.rows.pop(id_, None)

    def get(
        self,
        *,
        where: dict[str, Any] | None = None,
        where_document: dict[str, str] | None = None,
        limit: int | None = None,
        include: Sequence[str],
    ) -> dict[str, Any]:
        found = [
            id_
            for id_, (_, text, said) in self.rows.items()
            if (where is None or _holds(where, said))
            and (where_document is None or re.search(where_document["$regex"], text))
        ][:limit]
        return {"ids": found} | self._columns(found, include)

    def query(
        self,
        *,
        query_embeddings: list[list[float]],
        n_results: int,
        where: dict[str, Any] | None,
        include: Sequence[str],
    ) -> dict[str, Any]:
        (vector,) = query_embeddings
        found = [id_ for id_, row in self.rows.items() if where is None or _holds(where, row[2])]
        found.sort(key=lambda id_: -float(self.rows[id_][0] @ np.asarray(vector)))
        found = found[:n_results]
        columns = self._columns(found, include)
        return {"ids": [found]} | {
            name: None if column is None else [column] for name, column in columns.items()
        }

    def _columns(self, ids: list[str], include: Sequence[str]) -> dict[str, Any]:
        columns = {"documents": 1, "metadatas": 2}
        return {
            name: [self.rows[id_][at] for id_ in ids] if name in include else None
            for name, at in columns.items()
        }


def _holds(where: dict[str, Any], said: dict[str, Any]) -> bool:
    ((key, wanted),) = where.items()  # Chroma refuses two conditions without $and
    if key in {"$and", "$or"}:
        if len(wanted) < 2:
            raise ValueError(f"Expected where value for {key} to be a list with at least two")
        return (all if key == "$and" else any)(_holds(one, said) for one in wanted)
    if not isinstance(wanted, dict):
        return key in said and said[key] == wanted
    ((operator, value),) = wanted.items()
    if operator == "$in":
        return said.get(key) in value
    found = said[key]
    return {"$gte": found >= value, "$lte": found <= value, "$gt": found > value}[operator]


class Client:
    """What Chroma's client does with collections."""

    def __init__(self) -> None:
        self.collections: dict[str, Collection] = {}

    def get_or_create_collection(
        self, name: str, *, embedding_function: None, configuration: dict[str, Any]
    ) -> Collection:
        assert embedding_function is None
        assert configuration == {"hnsw": {"space": "cosine"}}
        if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9._-]{1,510}[a-zA-Z0-9]", name):
            raise ValueError(f"Expected a name of 3-512 characters, got {name}")
        return self.collections.setdefault(name, Collection(name))


HERE = [name for name in NAMES if name != "chroma" or importlib.util.find_spec("chromadb")]


@pytest.fixture(params=HERE)
def opens(request: pytest.FixtureRequest, tmp_path: Path, store) -> Callable[[], Index]:
    """Return a function that opens the same index, again and again."""
    if request.param == "default":
        return lambda: DocumentIndex(tmp_path / "index")
    if request.param == "chroma-stand-in":
        client = Client()
        return lambda: ChromaIndex(client, "default")
    return lambda: open_chroma(store)


@pytest.fixture
def index(opens) -> Iterator[Index]:
    opened = opens()
    yield opened
    if isinstance(opened, DocumentIndex):
        opened.close()


def vectors(*rows: Sequence[float]) -> Vectors:
    made = np.array(rows, np.float32)
    return Vectors(made / np.linalg.norm(made, axis=1, keepdims=True), "encoder-1")


AXES = np.eye(DIM, dtype=np.float32)
SHOP = Document(
    file="docs/shop.md", sha256="1", kind="markdown", title="Shop", asset="shop",
    date="2025-03-01", tags=("policy", "patching"),
    chunks=(
        Chunk(section="Deadlines", page=None, text="Patch exploited flaws in three days."),
        Chunk(section="Freeze", page=None, text="No changes in December."),
    ),
)  # fmt: skip
MAIL = Document(
    file="docs/mail.pdf", sha256="2", kind="pdf", title="Mail", asset="mail", tags=("runbook",),
    chunks=(Chunk(section="", page=7, text="Restart the mail queue, then patch it."),),
)  # fmt: skip


@pytest.fixture
def filled(index: Index) -> Index:
    index.add(SHOP, fingerprint="s1", vectors=vectors(AXES[0], AXES[1]))
    index.add(MAIL, fingerprint="m1", vectors=vectors(AXES[2]))
    return index


def test_an_empty_index_finds_nothing(index):
    assert (index.count(), dict(index.known()), index.encoder_id) == (0, {}, "")
    assert index.search("patch", AXES[0], top=3) == []
    assert index.search("patch", None, top=3) == []
    assert not index.remove("docs/shop.md")


def test_a_hit_says_where_it_stands_and_how_it_was_found(filled):
    first, *_ = filled.search("mail queue", AXES[2], top=3)
    assert (first.file, first.title, first.section, first.page) == (MAIL.file, "Mail", "", 7)
    assert (first.text, first.word_rank, first.vector_rank) == (MAIL.chunks[0].text, 1, 1)
    assert first.score == pytest.approx(2 / 61)


def test_vectors_alone_and_words_alone_find_too(filled):
    assert filled.search("nothing known", AXES[1], top=1)[0].section == "Freeze"
    (hit,) = filled.search("DECEMBER", None, top=9)
    assert (hit.section, hit.word_rank, hit.vector_rank) == ("Freeze", 1, None)


def test_top_bounds_and_ranks_order(filled):
    query = vectors([3, 2, 1, 0]).rows[0]
    hits = filled.search("zzz", query, top=9)
    assert [hit.vector_rank for hit in hits] == [1, 2, 3]
    assert [hit.section for hit in hits] == ["Deadlines", "Freeze", ""]
    assert len(filled.search("zzz", query, top=2)) == 2


@pytest.mark.parametrize(
    ("where", "files"),
    [
        ({"asset": "shop"}, {SHOP.file}),
        ({"asset": ["shop", "mail"]}, {SHOP.file, MAIL.file}),
        ({"asset": "none"}, set()),
        ({"kind": "pdf"}, {MAIL.file}),
        ({"file": MAIL.file}, {MAIL.file}),
        ({"tags": "patching"}, {SHOP.file}),
        ({"tags": ["patching", "runbook"]}, {SHOP.file, MAIL.file}),
        ({"tags": "patching", "asset": "mail"}, set()),
        ({"date": "2025-03-01"}, {SHOP.file}),
        ({"since": "2025-03-01"}, {SHOP.file}),
        ({"since": "2025-03-02"}, set()),
        ({"until": "2025-03-01"}, {SHOP.file}),
        ({"since": "2025-01-01", "until": "2025-02-28"}, set()),
        ({}, {SHOP.file, MAIL.file}),
    ],
)
def test_filters_hold_for_words_and_vectors(filled, where, files):
    query = vectors([1, 1, 1, 0]).rows[0]
    assert {hit.file for hit in filled.search("zzz", query, top=9, where=where)} == files
    assert {hit.file for hit in filled.search("patch", None, top=9, where=where)} == files


def test_an_unknown_field_is_refused(filled):
    with pytest.raises(ConfigError, match="no field 'owner'"):
        filled.search("patch", None, top=1, where={"owner": "x"})


@pytest.mark.parametrize("query", ["", '"', "a|b)(", ".*", "(?i", "NEAR(a b)", "😀", "the of"])
def test_a_query_is_no_syntax(filled, query):
    filled.search(query, None, top=3)
    assert len(filled.search(query, AXES[0], top=3)) == 3


def test_a_document_replaces_the_one_of_its_file(filled, opens):
    new = Document(
        file=SHOP.file, sha256="3", kind="markdown", title="Shop", asset="shop",
        chunks=(Chunk(section="New", page=None, text="All is new."),),
    )  # fmt: skip
    filled.add(new, fingerprint="s2", vectors=vectors(AXES[3]))
    again = opens()
    assert again.count() == 2
    assert dict(again.known()) == {SHOP.file: "s2", MAIL.file: "m1"}
    assert again.search("December", None, top=9) == []
    assert again.search("zzz", AXES[3], top=1)[0].section == "New"


def test_a_file_is_forgotten(filled):
    assert filled.remove(SHOP.file)
    assert (filled.count(), dict(filled.known())) == (1, {MAIL.file: "m1"})
    assert {hit.file for hit in filled.search("patch", AXES[0], top=9)} == {MAIL.file}


def test_vectors_of_another_encoder_are_refused(filled):
    with pytest.raises(ConfigError, match="are of encoder-1, not of encoder-2"):
        filled.add(MAIL, fingerprint="m2", vectors=Vectors(AXES[:1], "encoder-2"))
    assert filled.known()[MAIL.file] == "m1"


def test_many_chunks_go_in(index):
    count = 2_500
    rows = np.random.default_rng(0).normal(size=(count, DIM)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    chunks = tuple(Chunk(section="", page=None, text=f"word{at}") for at in range(count))
    large = Document(file="large", sha256="", kind="text", title="", chunks=chunks)
    index.add(large, fingerprint="l", vectors=Vectors(rows, "encoder-1"))
    assert (index.count(), dict(index.known())) == (count, {"large": "l"})
    assert index.search("zzz", rows[1234], top=1)[0].text == "word1234"
    assert index.search("word777", None, top=1)[0].text == "word777"
    assert index.remove("large")
    assert index.count() == 0


def test_retrieve_works_on_it(filled):
    class Encoder:
        id, dim = "encoder-1", DIM

        def encode(self, texts: Sequence[str]) -> np.ndarray:
            return np.tile(AXES[1], (len(texts), 1))

    hits = retrieve(filled, "exploited flaws", top=2, encoder=Encoder())
    assert {hit.section for hit in hits} == {"Deadlines", "Freeze"}
    (alone,) = retrieve(filled, "exploited flaws", top=2)
    assert alone.note


def test_half_a_document_is_not_known_and_mended_by_the_next(monkeypatch):
    client = Client()
    index = ChromaIndex(client, "default")
    monkeypatch.setattr("workbench.risk.documents.chroma._BATCH", 1)
    collection = next(iter(client.collections.values()))
    real = Collection.upsert

    def fail(self: Collection, **rows: Any) -> None:
        real(self, **rows)
        raise OSError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(Collection, "upsert", fail)
        with pytest.raises(OSError, match="killed"):
            index.add(SHOP, fingerprint="s1", vectors=vectors(AXES[0], AXES[1]))
    assert (collection.count(), dict(index.known())) == (1, {})
    index.add(SHOP, fingerprint="s1", vectors=vectors(AXES[0], AXES[1]))
    assert (collection.count(), dict(index.known())) == (2, {SHOP.file: "s1"})


def test_chroma_keeps_nothing_without_vectors():
    with pytest.raises(ConfigError, match="give an encoder"):
        ChromaIndex(Client(), "default").add(SHOP, fingerprint="x", vectors=None)


def test_a_missing_chroma_names_its_extra(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "chromadb", None)
    with pytest.raises(ConfigError, match=r"pip install 'prompt-safety-workbench\[chroma\]'"):
        open_chroma(store)
