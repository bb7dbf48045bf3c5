"""A file that kills its reader, or never ends, costs itself and nothing else."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from workbench.core.errors import ConfigError
from workbench.risk.documents import pool
from workbench.risk.documents.pool import Job, cut_document, read_all
from workbench.risk.documents.records import Document


class DeadlyPath(type(Path())):
    """A path whose reader dies, as of a fault in a library."""

    def is_file(self) -> bool:
        os._exit(7)


class EndlessPath(type(Path())):
    """A path whose reader never ends."""

    def is_file(self) -> bool:
        time.sleep(60)
        return True


class GreedyPath(type(Path())):
    """A path whose reader asks for more memory than there may be."""

    def is_file(self) -> bool:
        return bool(bytearray(6 << 30))


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.md"
    path.write_text("---\nasset: shop\ntags: [a, b]\n---\n# Title\ntext\n", encoding="utf-8")
    return path


def test_only_the_files_that_kill_or_hang_are_lost(good):
    jobs = [
        Job(DeadlyPath(good), "deadly.md"),
        Job(good, "one.md"),
        Job(EndlessPath(good), "endless.md"),
        Job(GreedyPath(good), "greedy.md"),
        Job(good, "two.md"),
    ]
    found = {job.name: outcome for job, outcome in read_all(jobs, workers=1, timeout_s=2.5)}
    assert list(found) == [job.name for job in jobs]
    assert found["deadly.md"].startswith("deadly.md: its reader died")
    assert found["endless.md"].startswith("endless.md: not read within 2.5 s; split it or raise")
    assert "greedy.md: " in found["greedy.md"]
    assert found["one.md"] == cut_document(jobs[1])
    assert found["two.md"] == cut_document(jobs[4])


def test_an_executor_of_others_reads_the_same(good, tmp_path):
    (tmp_path / "bad.md").write_bytes(b"\xff")
    jobs = [Job(good, "good.md"), Job(tmp_path / "bad.md", "bad.md")] * 5
    with ThreadPoolExecutor(2) as executor:
        found = list(read_all(jobs, workers=2, timeout_s=30, executor=executor))
    assert [outcome for _, outcome in found] == [cut_document(job) for job in jobs]


def test_an_executor_that_hangs_or_fails_loses_that_file_only(good, monkeypatch):
    def cut(job: Job) -> Document | str:
        if job.name == "slow":
            time.sleep(0.3)
        if job.name == "lost":
            raise OSError("worker\nlost")
        return cut_document(job)

    monkeypatch.setattr(pool, "cut_document", cut)
    jobs = [Job(good, name) for name in ("slow", "lost", "fine")]
    with ThreadPoolExecutor(2) as executor:
        found = [one for _, one in read_all(jobs, workers=2, timeout_s=0.1, executor=executor)]
    assert found[0].startswith("slow: not read within 0.1 s")
    assert found[1].startswith("lost: its worker failed (OSError: worker lost)")
    assert isinstance(found[2], Document)


def test_what_concerns_all_files_ends_the_reading(good, monkeypatch):
    def cut(_: Job) -> Document | str:
        raise ConfigError("pypdf is not installed")

    monkeypatch.setattr(pool, "cut_document", cut)
    with ThreadPoolExecutor(1) as executor, pytest.raises(ConfigError, match="pypdf"):
        list(read_all([Job(good, "a")] * 9, workers=1, timeout_s=9, executor=executor))


def test_a_document_carries_what_its_file_says(good):
    found = cut_document(Job(good, "docs/good.md"))
    assert isinstance(found, Document)
    assert (found.file, found.asset, found.tags, found.title) == (
        "docs/good.md",
        "shop",
        ("a", "b"),
        "Title",
    )
    assert found.embedded_texts() == ["Title\nTitle\ntext"]


def test_headings_alone_are_no_document(tmp_path):
    (tmp_path / "a.md").write_text("# One\n## Two\n", encoding="utf-8")
    assert cut_document(Job(tmp_path / "a.md", "a.md")) == "a.md: holds headings only; leave it out"
