"""Questions about the shipped documents are answered by the passages that a reader would name."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from workbench.core.errors import ConfigError
from workbench.core.settings import seeds_folder
from workbench.embedding.encoder import FloatArray, MiniLM
from workbench.risk.documents.index import DocumentIndex, open_index
from workbench.risk.documents.pool import Job, cut_document
from workbench.risk.documents.records import Document, Vectors
from workbench.risk.documents.retrieve import passages_of, retrieve
from workbench.store.database import Store

QUESTIONS = {
    "How soon must an exploited flaw on an internet-facing system be fixed?": "Deadlines",
    "When may scanners in the warehouse be updated?": "Maintenance windows",
    "Who can allow a late fix, and for how long?": "Exceptions",
    "What if checkout errors go up after a release?": "Rollback",
    "Where is payment card data stored?": "Data",
    "Which tools can the chatbot use?": "Bookshop assistant",
    "How long does it take to restore the order database?": "Backups",
    "What happens if the domain controller is down?": "Single points of failure",
    "Should I power off a hacked server?": "First steps",
    "Whom do we tell when personal information leaked?": "Personal data",
    "The bot obeyed text on a website, what now?": "Assistant misbehaves",
    "assistant-off": "Assistant misbehaves",
    "Can I paste customer records into a prompt?": "Data in prompts",
    "What attack success rate is acceptable for release?": "Testing before release",
    "When does a team run out of model budget?": "Suppliers",
    "WBF certificate zone service": "Zones",
}
TOP = 5


@pytest.fixture(scope="module")
def minilm() -> MiniLM:
    return MiniLM()


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    folder = seeds_folder() / "risk" / "documents"
    found = [cut_document(Job(path, path.name)) for path in sorted(folder.glob("*.md"))]
    assert all(isinstance(one, Document) for one in found)
    return found


@pytest.fixture(scope="module")
def rows(minilm, documents) -> list[FloatArray]:
    return [minilm.encode(one.embedded_texts()) for one in documents]


@pytest.fixture
def index(store, minilm, documents, rows) -> Iterator[DocumentIndex]:
    opened = open_index(store, "seeds")
    for one, vectors in zip(documents, rows, strict=True):
        opened.add(one, fingerprint="", vectors=Vectors(vectors, minilm.id))
    yield opened
    opened.close()


def last(section: str) -> str:
    return section.rpartition(" > ")[2]


def test_the_fusion_finds_at_least_what_either_ranking_finds(index, minilm, documents, rows):
    sections = [last(chunk.section) for one in documents for chunk in one.chunks]
    matrix = np.concatenate(rows)
    recall = {"cosine": 0, "words": 0, "fused": 0}
    for question, expected in QUESTIONS.items():
        nearest = np.argsort(-(matrix @ minilm.encode([question])[0]), kind="stable")
        fused = retrieve(index, question, top=TOP, encoder=minilm)
        by_words = retrieve(index, question, top=TOP)
        recall["cosine"] += expected in [sections[at] for at in nearest[:TOP]]
        recall["words"] += expected in [last(hit.section) for hit in by_words]
        recall["fused"] += expected in [last(hit.section) for hit in fused]
        ranks = {sections[at]: rank for rank, at in enumerate(nearest, start=1)}
        for hit in fused:
            assert hit.vector_rank == ranks[last(hit.section)]
            assert hit.note == ""
    assert recall["fused"] >= max(recall["cosine"], recall["words"])
    assert recall["fused"] >= 0.9 * len(QUESTIONS)


def test_without_an_encoder_words_decide_and_it_is_said(index):
    for hit in retrieve(index, "holiday freeze", top=2):
        assert hit.note == "words alone: no encoder was given"
        assert hit.vector_rank is None


def test_an_encoder_that_fails_is_said_too(index, minilm):
    class Failing:
        id, dim = minilm.id, minilm.dim

        def encode(self, _: object) -> FloatArray:
            raise ConfigError("weights are gone; reinstall")

    (hit,) = retrieve(index, "holiday freeze", top=1, encoder=Failing())
    assert hit.note == "words alone: weights are gone; reinstall"


def test_an_index_without_vectors_is_said(store: Store, minilm, documents):
    bare = open_index(store, "bare")
    bare.add(documents[0], fingerprint="", vectors=None)
    (hit,) = retrieve(bare, "holiday zones", top=1, encoder=minilm)
    assert hit.note == "words alone: the index holds no vectors"
    assert passages_of(store, "bare", top=1)("zones") == [f"{hit.place}\n{hit.text}"]
    bare.close()


def test_what_makes_no_sense_is_refused(index, minilm):
    class Other:
        id, dim = "other", 384

    with pytest.raises(ConfigError, match="not of other; use that encoder"):
        retrieve(index, "x", encoder=Other())
    with pytest.raises(ConfigError, match="top=0"):
        retrieve(index, "x", top=0)


@pytest.mark.parametrize("query", ["", "  ", "the of a and", "😀", '"NEAR(*', "\0", "x" * 100_000])
def test_any_query_is_answered(index, minilm, query):
    assert len(retrieve(index, query, encoder=minilm)) <= 8


def test_passages_come_with_their_place(index, store):
    passages = passages_of(store, "seeds", top=2, where={"asset": "bookshop"})
    first, _ = passages("customer data in prompts")
    place, _, text = first.partition("\n")
    assert place == "llm-usage-policy.md, Policy on language models > Data in prompts"
    assert text.startswith("Customer data, salaries")
    with pytest.raises(ConfigError, match="no index of documents 'none'"):
        passages_of(store, "none")
