"""MiniLM in float32 and 8 bits beside sentence-transformers, and the vector cache.

All encoders take turns on the same 1,000 texts of the shipped seeds, the best of five rounds
counts: CPU seconds with one thread, which other work on the machine hardly changes, and wall time
with a thread per core, which it does. The peak memory of each is that of a process of its own.
The ceiling is torch's matrix product at the shapes of the model, by MKL (torch's default) or
oneDNN, whichever is faster.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from measure import ROOT, call, publish
from workbench.core.identity import seeded
from workbench.core.settings import seeds_folder
from workbench.embedding.encoder import (
    MINILM_DIM,
    Encoder,
    FloatArray,
    MiniLM,
    fidelity,
    minilm_folder,
)
from workbench.embedding.vectors import CachedEncoder, VectorCache, text_key

TEXTS, ROUNDS, LAYERS = 1_000, 5, 6
SHAPES = ((384, 1_152), (384, 384), (384, 1_536), (1_536, 384))
"""Inputs and outputs of the four products of a layer."""
PRODUCT_TIMES = 20
PRODUCT_GFLOP = PRODUCT_TIMES * 2 * 1_024 * sum(i * o for i, o in SHAPES) / 1e9
GETS = 10_000
MAX_CHARS = 700  # fewer than 256 tokens in English
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main() -> None:
    """Measure and publish, or be one of the processes that are measured."""
    if len(sys.argv) > 1:
        task, *rest = sys.argv[1:]
        print(json.dumps(globals()[task](*rest)))
        return
    rows = [*_speeds(), *_memory(), *_cache(100_000), *_cache(1_000_000)]
    publish("embedding", rows)


def _row(measure: str, value: float, unit: str, target: str = "") -> Mapping[str, Any]:
    return {"measure": measure, "value": float(value), "unit": unit, "target": target}


def sample() -> list[str]:
    """Return English texts of the seeds, of at least six words, that one window holds.

    Other languages are left out for fairness: sentence-transformers sorts by characters, so a
    mixture makes it compute 2.5 times as many tokens as there are.
    """
    found: set[str] = set()
    for file in sorted(seeds_folder().rglob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            found.update(_strings(json.loads(line)))
    texts = sorted(text for text in found if text.isascii() and text.count(" ") > 4)
    texts = [text for text in texts if len(text) < MAX_CHARS]
    return seeded("bench_embedding").sample(texts, TEXTS)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _strings(one)


class Oracle:
    """sentence-transformers with its own batching, on the same weights."""

    id, dim = "sentence-transformers", MINILM_DIM

    def __init__(self) -> None:
        from sentence_transformers import SentenceTransformer

        folder = str(minilm_folder())
        self._model: Any = SentenceTransformer(folder, device="cpu", local_files_only=True)

    def encode(self, texts: Any) -> FloatArray:
        """Return unit rows."""
        rows: FloatArray = self._model.encode(
            list(texts), normalize_embeddings=True, show_progress_bar=False
        )
        return rows


ENCODERS: dict[str, Callable[[], Encoder]] = {
    "sentence-transformers": Oracle,
    "minilm": MiniLM,
    "minilm-int8": lambda: MiniLM("minilm-int8"),
}


def _speeds() -> Iterator[Mapping[str, Any]]:
    texts = sample()
    one, encoders = _best(texts, threads=1)
    all_cores, _ = _best(texts, threads=CORES)
    minilm = encoders["minilm"]
    assert isinstance(minilm, MiniLM)
    lengths = np.array([len(one.spans) + 2 for one in minilm.tokens(texts)])
    assert lengths.max() <= 256, "one window holds each text, so all encoders do the same work"
    per_token = 2 * LAYERS * sum(inputs * outputs for inputs, outputs in SHAPES)
    attention = 4 * LAYERS * MINILM_DIM * lengths  # of one token to all of its text, twice
    gflop = float((lengths * (per_token + attention)).sum()) / 1e9
    yield _row("tokens of a text, special ones too", lengths.mean(), "mean")
    yield _row("tokens of a text, special ones too", np.percentile(lengths, 99), "99th percentile")

    ceiling = PRODUCT_GFLOP / min(one["MKL"], one["oneDNN"])
    for name in ("MKL", "oneDNN"):
        yield _row(f"matrix product, {name}", PRODUCT_GFLOP / one[name], "GFLOP per CPU-s")
    targets = {"minilm": "≥ 1.2", "minilm-int8": "≥ 2"}
    for name in ENCODERS:
        yield _row(name, TEXTS / one[name], "texts per CPU-s, one thread")
        ratio = one["sentence-transformers"] / one[name]
        yield _row(name, ratio, "× sentence-transformers", targets.get(name, ""))
        yield _row(name, 100 * gflop / one[name] / ceiling, "% of the float32 ceiling")
        yield _row(name, TEXTS / all_cores[name], f"texts/s, {CORES} threads")
        ratio = all_cores["sentence-transformers"] / all_cores[name]
        yield _row(name, ratio, f"× sentence-transformers, {CORES} threads")
    _, low = fidelity(minilm, encoders["sentence-transformers"], texts)
    yield _row("minilm to sentence-transformers", 1e6 * (1 - low), "10⁻⁶ below cosine 1", "< 100")
    mean, low = fidelity(encoders["minilm-int8"], minilm, texts)
    yield _row("minilm-int8 to minilm", mean, "cosine, mean", "≥ .99")
    yield _row("minilm-int8 to minilm", low, "cosine, min")


def _best(texts: list[str], *, threads: int) -> tuple[dict[str, float], dict[str, Encoder]]:
    """Return the seconds of each one's fastest round, CPU with one thread, else wall."""
    import torch
    from threadpoolctl import threadpool_limits

    clock = time.process_time if threads == 1 else time.perf_counter
    with threadpool_limits(threads):
        torch.set_num_threads(threads)
        encoders = {name: load() for name, load in ENCODERS.items()}
        tasks: dict[str, Callable[[], Any]] = {
            name: partial(encoder.encode, texts) for name, encoder in encoders.items()
        }
        tasks |= _products()
        best = dict.fromkeys(tasks, np.inf)
        for _ in range(ROUNDS):
            for name, task in tasks.items():
                started = clock()
                task()
                best[name] = min(best[name], clock() - started)
    return best, encoders


def _products() -> dict[str, Callable[[], None]]:
    """Return torch's two ways to multiply at the shapes of the model."""
    import torch

    pairs = [(torch.randn(1_024, i), torch.randn(o, i)) for i, o in SHAPES]
    packed = [(one.to_mkldnn(), other.to_mkldnn()) for one, other in pairs]

    def multiply(matrices: Any) -> None:
        with torch.inference_mode():
            for _ in range(PRODUCT_TIMES):
                for one, other in matrices:
                    torch.nn.functional.linear(one, other)

    return {"MKL": partial(multiply, pairs), "oneDNN": partial(multiply, packed)}


def encode(name: str) -> int:
    """Encode the sample in this process."""
    return len(ENCODERS[name]().encode(sample()))


def _memory() -> Iterator[Mapping[str, Any]]:
    for name in ENCODERS:
        use = call([sys.executable, __file__, "encode", name], cwd=ROOT, sample_memory=True)
        yield _row(f"{name}, own process", use.peak_rss_mb, "MiB peak RSS")
        yield _row(f"{name}, own process", use.cpu_s, "CPU-s, imports and 1,000 texts")


def _cache(count: int) -> Iterator[Mapping[str, Any]]:
    name = f"vector cache, {count:,} rows"
    with tempfile.TemporaryDirectory() as folder:
        cache = VectorCache(Path(folder), "bench", MINILM_DIM)
        draws = np.random.default_rng(0)
        started = time.process_time()
        for start in range(0, count, 10_000):
            rows = draws.normal(size=(10_000, MINILM_DIM)).astype(np.float32)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            cache.append([text_key(f"{start + i}") for i in range(10_000)], rows)
        filled = time.process_time() - started
        size = sum(file.stat().st_size for file in cache.folder.iterdir())
        command = [sys.executable, __file__, "gets", folder, str(count)]
        said = json.loads(call(command, cwd=ROOT).output)
    yield _row(name, size / 1e6 / count * 100_000, "MB per 100,000", "≤ 80")
    yield _row(name, filled / count * 1e6, "CPU-µs a row, drawn and appended")
    yield _row(name, said["open_ms"], "CPU-ms to open")
    yield _row(name, said["open_mb"], "MiB more to have it open")
    yield _row(name, said["cold_us"], "CPU-µs a random hit, cold", "≤ 15")
    yield _row(name, said["batch_us"], "CPU-µs a hit, 10,000 at once")


def gets(folder: str, count: str) -> dict[str, float]:
    """Open a cache in this process and ask for random texts, one by one and all at once."""
    import psutil

    def load() -> Encoder:
        raise AssertionError("every text is in the cache")

    before = psutil.Process().memory_info().rss
    started = time.process_time()
    encoder = CachedEncoder(load, Path(folder), encoder_id="bench", dim=MINILM_DIM)
    opened = time.process_time() - started
    more = psutil.Process().memory_info().rss - before
    texts = [str(number) for number in random.Random(1).sample(range(int(count)), GETS)]  # noqa: S311
    started = time.process_time()
    for text in texts:
        encoder.encode([text])
    cold = time.process_time() - started
    started = time.process_time()
    encoder.encode(texts)
    batch = time.process_time() - started
    return {
        "open_ms": opened * 1e3,
        "open_mb": more / 2**20,
        "cold_us": cold / GETS * 1e6,
        "batch_us": batch / GETS * 1e6,
    }


if __name__ == "__main__":
    main()
