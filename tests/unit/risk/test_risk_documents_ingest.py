"""What changed is read, the rest is not, and a bad file is named while others go in."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from workbench.core.errors import ConfigError, StoreError
from workbench.core.settings import seeds_folder
from workbench.embedding.encoder import FloatArray
from workbench.risk.documents import pool
from workbench.risk.documents.index import DocumentIndex
from workbench.risk.documents.ingest import Ingested, ingest
from workbench.risk.documents.pool import Job


class Letters:
    """An encoder whose vectors say which letters a text has."""

    dim = 26

    def __init__(self, version: int = 1, *, fails_at: str = "") -> None:
        self.id = f"letters-{version}"
        self.encoded: list[str] = []
        self._fails_at = fails_at

    def encode(self, texts: Sequence[str]) -> FloatArray:
        if self._fails_at and any(self._fails_at in text for text in texts):
            raise StoreError("vectors: the disk is full; free space")
        self.encoded += texts
        counts = np.array(
            [[text.lower().count(chr(97 + at)) + 0.1 for at in range(26)] for text in texts],
            np.float32,
        )
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[DocumentIndex]:
    opened = DocumentIndex(tmp_path / "index")
    yield opened
    opened.close()


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    (folder / "below").mkdir(parents=True)
    (folder / "one.md").write_text("# One\nalpha\n", encoding="utf-8")
    (folder / "below" / "two.txt").write_text("beta", encoding="utf-8")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    (folder / ".hidden.md").write_text("hidden", encoding="utf-8")
    (folder / "~$one.docx").write_bytes(b"lock")
    (folder / "link.md").symlink_to(folder / "one.md")
    return folder


def run(index: DocumentIndex, *paths: Path, **options: object) -> Ingested:
    with ThreadPoolExecutor(2) as executor:
        return ingest(index, paths, executor=executor, **options)


def test_a_folder_goes_in_and_what_is_unchanged_is_not_read_again(index, docs, monkeypatch):
    encoder = Letters()
    first = run(index, docs, encoder=encoder)
    assert (first.added, first.chunks) == (("docs/one.md", "docs/below/two.txt"), 2)
    assert (first.problems, first.note) == ((), "")
    read: list[str] = []
    real = pool.cut_document

    def cut(job: Job) -> object:
        read.append(job.name)
        return real(job)

    monkeypatch.setattr(pool, "cut_document", cut)
    (docs / "one.md").write_text("# One\ngamma\n", encoding="utf-8")
    second = run(index, docs, encoder=encoder)
    assert second == Ingested(
        replaced=("docs/one.md",), unchanged=("docs/below/two.txt",), chunks=1
    )
    assert read == ["docs/one.md"]
    assert index.search("alpha", None, top=9) == []


def test_other_labels_or_another_encoder_are_changes(index, docs):
    run(index, docs)
    assert run(index, docs).unchanged
    labels = {"asset": "shop", "tags": ("x",), "date": "2026-01-01"}
    assert len(run(index, docs, **labels).replaced) == 2
    where = {"asset": "shop", "tags": "x", "date": "2026-01-01"}
    assert len(index.search("alpha beta", None, top=9, where=where)) == 2
    now = run(index, docs, encoder=Letters(), **labels)
    assert (len(now.replaced), index.encoder_id) == (2, "letters-1")
    with pytest.raises(ConfigError, match="its vectors are of letters-1, not of letters-2"):
        run(index, docs, encoder=Letters(2), **labels)


def test_bad_files_are_named_and_others_go_in(index, docs, tmp_path):
    (docs / "broken.pdf").write_bytes(b"%PDF-1.4 no")
    (docs / "a.docx").write_bytes(b"PK\x03\x04 no")
    found = run(index, docs, tmp_path / "none.md", docs / "picture.png")
    assert len(found.added) == 2
    assert sorted(one.split(":")[0] for one in found.problems) == [
        "docs/a.docx",
        "docs/broken.pdf",
        "none.md",
        "picture.png",
    ]


def test_a_file_that_turned_bad_keeps_what_was_known(index, docs):
    run(index, docs)
    (docs / "one.md").write_bytes(b"\xff\xfe\xff")
    assert run(index, docs).problems
    assert index.search("alpha", None, top=9)


def test_two_files_of_one_name_are_a_problem(index, docs, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "one.md").write_text("other", encoding="utf-8")
    found = run(index, docs / "one.md", docs / "one.md", tmp_path / "other" / "one.md")
    assert found.added == ("one.md",)
    assert found.problems == ("one.md: two files have that name; rename one, or give their folder",)


def test_what_left_a_folder_is_taken_out_on_demand(index, docs, tmp_path):
    (tmp_path / "docs-2.md").write_text("stays", encoding="utf-8")
    run(index, docs, tmp_path / "docs-2.md")
    (docs / "one.md").unlink()
    assert run(index, docs).removed == ()
    assert run(index, docs, prune=True).removed == ("docs/one.md",)
    assert set(index.known()) == {"docs/below/two.txt", "docs-2.md"}


def test_without_vectors_words_are_kept_and_it_is_said(index, docs):
    assert run(index, docs).note == "words alone: no encoder was given"
    failing = Letters(fails_at="beta")
    found = run(index, docs, encoder=failing)
    assert found.note == "words alone: vectors: the disk is full; free space"
    # one.md has its vectors; two.txt is tried again once the encoder works
    again = run(index, docs, encoder=Letters())
    assert (again.replaced, again.note) == (("docs/below/two.txt",), "")


def test_text_is_neutralized_and_says_nothing_of_the_machine(index, tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a\x1b[2J.md").write_text("# T\x07itle\nte\x00xt".replace("\0", "\x01"), "utf-8")
    run(index, folder)
    (hit,) = index.search("itle", None, top=9)
    assert (hit.file, hit.title, hit.text) == ("docs/a [2J.md", "T itle", "te xt")
    assert str(tmp_path) not in hit.place


def test_progress_names_each_file_once(index, docs):
    (docs / "broken.pdf").write_bytes(b"%PDF-1.4 no")
    for _ in range(2):
        seen: list[str] = []
        run(index, docs, progress=seen.append)
        assert sorted(seen) == ["docs/below/two.txt", "docs/broken.pdf", "docs/one.md"]


def test_a_stopped_ingest_goes_on_where_it_was(index, docs):
    stop = threading.Event()

    def progress(_: str) -> None:
        if not stop.is_set():
            stop.set()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(index, docs, progress=progress)
    assert len(index.known()) == 1
    again = run(index, docs)
    assert (len(again.added), len(again.unchanged)) == (1, 1)


def test_the_shipped_documents_go_in_by_processes_of_their_own(index):
    folder = seeds_folder() / "risk" / "documents"
    found = ingest(index, [folder], workers=2)
    assert (found.problems, len(found.added)) == ((), 4)
    assert sum(file.stat().st_size for file in folder.iterdir()) < 12_000
    assert all(file.read_text("utf-8").isascii() for file in folder.iterdir())
    hits = index.search("holiday freeze", None, top=1, where={"tags": "patching"})
    assert hits[0].section == "Patch policy of the bookshop > Maintenance windows"


def test_a_date_that_is_none_is_refused(index):
    with pytest.raises(ConfigError, match="write it as 2026-01-31"):
        ingest(index, [], date="tomorrow")
