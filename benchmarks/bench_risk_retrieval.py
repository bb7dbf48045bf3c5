"""Passages found among 100,000: time of a query, time and size of the index, and memory.

Texts are of 180 invented words each, drawn by Zipf's law from 50,000, in 1,000 files; vectors are
random, because encoding that many texts takes hours and their values change no time. Queries are
encoded by MiniLM, each for the first time. Half are short questions of 8 words, half are as long as
the description of a vulnerability, 60 words; frequent words among them as in the texts.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from measure import ROOT, call, publish
from workbench.core.settings import read_settings
from workbench.embedding.encoder import MINILM_DIM, MINILM_ID
from workbench.embedding.vectors import open_encoder
from workbench.risk.documents.index import open_index
from workbench.risk.documents.records import Chunk, Document, Vectors, Where
from workbench.risk.documents.retrieve import retrieve
from workbench.store.database import Store, open_store

FILES = 1_000
CHUNKS = 100
"""Of a file."""
WORDS = 180
VOCABULARY = 50_000
ASSETS = 10
QUERIES = 100
LENGTHS = {"8 words": 8, "60 words": 60}
FILTERS: Mapping[str, Where | None] = {
    "no filter": None,
    "1 of 10 assets": {"asset": "asset-3"},
    "1 of 1,000 files": {"file": "docs/0021.md"},
}
LIMIT_MS = 150


def main() -> None:
    """Build the index, then query it in a process of its own, and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=FILES, help=f"of {CHUNKS} chunks each")
    parser.add_argument("--query", type=Path, help="a home; what the benchmark calls itself by")
    chosen = parser.parse_args()
    if chosen.query:
        print(json.dumps(query(chosen.query)))
        return
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        rows = [*build(home, chosen.files)]
        command = [sys.executable, __file__, "--query", folder]
        used = call(command, cwd=ROOT, sample_memory=True)
        rows += json.loads(used.output.splitlines()[-1])
        rows.append(_row("process that queries", used.peak_rss_mb, "MiB peak RSS"))
        publish("bench_risk_retrieval", rows)


def build(home: Path, files: int) -> Iterator[Mapping[str, Any]]:
    """Fill an index and give what that took."""
    draws = np.random.default_rng(0)
    words, weights = _vocabulary()
    index = open_index(_store(home))
    taken = 0.0
    for number in range(files):
        drawn = draws.choice(words, (CHUNKS, WORDS), p=weights)
        rows = draws.normal(size=(CHUNKS, MINILM_DIM)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        document = Document(
            file=f"docs/{number:04}.md",
            sha256="",
            kind="markdown",
            title=f"document {number}",
            asset=f"asset-{number % ASSETS}",
            chunks=tuple(
                Chunk(section=f"part {at}", page=None, text=" ".join(line))
                for at, line in enumerate(drawn)
            ),
        )
        started = time.perf_counter()
        index.add(document, fingerprint=str(number), vectors=Vectors(rows, MINILM_ID))
        taken += time.perf_counter() - started
    count = index.count()
    index.close()
    size = sum(file.stat().st_size for file in index.folder.iterdir())
    yield _row("index", count, "chunks")
    yield _row("index", taken, "s to add, vectors given")
    yield _row("index", 1e3 * taken / count, "ms a chunk")
    yield _row("index", size / 2**20, "MiB on disk")


def query(home: Path) -> list[Mapping[str, Any]]:
    """Return the times of queries on an index that is there, in this process."""
    store = _store(home)
    started = time.perf_counter()
    index, encoder = open_index(store), open_encoder(store)
    retrieve(index, "first", encoder=encoder)
    rows = [_row("open, load MiniLM, first query", time.perf_counter() - started, "s")]
    draws = np.random.default_rng(1)
    words, weights = _vocabulary()
    for length, count in LENGTHS.items():
        for name, where in FILTERS.items():
            times, searches = [], []
            for _ in range(QUERIES):
                text = " ".join(draws.choice(words, count, p=weights))
                started = time.perf_counter()
                encoder.encode([text])
                used = time.process_time()
                # What remains of the encoder in here is a look-up.
                assert len(retrieve(index, text, where=where, encoder=encoder)) == 8
                searches.append(1e3 * (time.process_time() - used))
                times.append(1e3 * (time.perf_counter() - started))
            what = f"{length}, {name}"
            rows.append(_row(what, np.percentile(times, 50), "ms p50"))
            rows.append(_row(what, np.percentile(times, 95), "ms p95", f"≤ {LIMIT_MS}"))
            rows.append(_row(what, np.percentile(searches, 95), "CPU-ms p95 without MiniLM"))
    return rows


def _vocabulary() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return invented words and how likely each is."""
    syllables = [first + second for first in "bdfgklmnprstvz" for second in "aeiou"]
    draws = np.random.default_rng(2)
    words: dict[str, None] = {}
    while len(words) < VOCABULARY:
        words["".join(draws.choice(syllables, draws.integers(2, 5)))] = None
    weights = 1 / (np.arange(VOCABULARY) + 2.7) ** 1.0
    return np.array(list(words)), weights / weights.sum()


def _store(home: Path) -> Store:
    return open_store(read_settings({"WORKBENCH_HOME": str(home), "WORKBENCH_USER": "bench"}))


def _row(what: str, value: float, unit: str, target: str = "") -> Mapping[str, Any]:
    return {"what": what, "value": value, "unit": unit, "target": target}


if __name__ == "__main__":
    main()
