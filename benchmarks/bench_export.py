"""What an export costs and how exactly its graphs repeat the sanitizer: sizes, errors, latency.

::

    python benchmarks/bench_export.py [FOLDER OF A SANITIZER]

Without a folder the newest model of the store is taken. Every graph runs on one thread and one text
at a time; ``error`` is the largest absolute difference of an output to that of the Workbench on the
same input, over texts of 2 to 256 tokens; ``ms`` is a median at 32 and at 128 tokens.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench_latency import newest
from measure import publish
from workbench.diffusion.checkpoint import Checkpoint, read_checkpoint
from workbench.diffusion.export import export_sanitizer

LENGTHS = (2, 3, 32, 128, 256)
TIMED = (32, 128)
REPEATS = 25


def main() -> None:
    """Measure, print a table and keep the figures."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else newest()
    with tempfile.TemporaryDirectory() as kept, threadpool_limits(1):
        started = time.perf_counter()
        made = export_sanitizer(folder, Path(kept) / "exported")
        print(f"export: {time.perf_counter() - started:.1f} s, {made.redirects}")
        for name in sorted(made.files):
            print(f"{(made.folder / name).stat().st_size / 1e6:8.2f} MB  {name}")
        print()
        rows = list(graphs(read_checkpoint(folder), made.folder))
    publish("export", rows)


def graphs(checkpoint: Checkpoint, folder: Path) -> Iterator[dict[str, Any]]:
    """Give a row for each graph of an export."""
    draw = np.random.default_rng(0)
    inputs = {length: draw.integers(1_000, 30_000, length).tolist() for length in LENGTHS}
    states: dict[int, Any] = {}
    for precision in ("float32", "int8"):
        network: Any = checkpoint.reader(precision=precision).encoder._network  # noqa: SLF001

        def own(ids: list[int], network: Any = network) -> list[Any]:
            return [next(iter(network.states([ids])))[1][None]]

        states = {length: own(ids)[0][0] for length, ids in inputs.items()}
        given = {length: np.array([ids]) for length, ids in inputs.items()}
        yield row(folder / f"encoder.{precision}.onnx", given, lambda ids: own(ids[0].tolist()))
    yield row(folder / "heads.onnx", states, lambda rows: tags(checkpoint, rows))
    if (folder / "redirect.onnx").is_file():
        vectors = {length: draw.normal(size=(1, 384)).astype(np.float32) for length in LENGTHS}
        units = {length: one / np.linalg.norm(one) for length, one in vectors.items()}
        propose = checkpoint.redirector.propose
        yield row(folder / "redirect.onnx", units, lambda vector: [propose(vector)])


def tags(checkpoint: Checkpoint, rows: Any) -> list[Any]:
    """Return what the heads say of the states of one text."""
    import torch

    with torch.inference_mode():
        said = checkpoint.heads(
            torch.from_numpy(rows), torch.zeros(len(rows), dtype=torch.long), texts=1
        )
    return [said.payload.numpy(), *(one[0].numpy() for one in said[1:])]


def row(graph: Path, inputs: dict[int, Any], own: Callable[[Any], list[Any]]) -> dict[str, Any]:
    """Return size, error and latency of a graph beside the Workbench's own."""
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = InferenceSession(graph, options)
    (source,) = session.get_inputs()

    def run(value: Any) -> list[Any]:
        outputs: list[Any] = session.run(None, {source.name: value})
        return outputs

    pairs = [pair for value in inputs.values() for pair in zip(run(value), own(value), strict=True)]
    found = {"graph": graph.name, "mb": round(graph.stat().st_size / 1e6, 2)}
    found |= {"error": f"{max(np.abs(one - other).max() for one, other in pairs):.1e}"}
    for length in TIMED:
        found[f"ms_{length}"] = round(median_ms(run, inputs[length]), 3)
        found[f"own_ms_{length}"] = round(median_ms(own, inputs[length]), 3)
    return found


def median_ms(call: Callable[[Any], object], value: Any) -> float:
    """Return median wall milliseconds of a call."""
    call(value)
    spent = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        call(value)
        spent.append(1000 * (time.perf_counter() - started))
    return statistics.median(spent)


if __name__ == "__main__":
    main()
