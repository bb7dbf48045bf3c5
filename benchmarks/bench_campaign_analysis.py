"""A million stored attempts: rates by category, and everything that an analysis counts."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from measure import publish

ATTEMPTS = 1_000_000
TARGETS, GOALS, STRATEGIES, TRIALS = 4, 1_250, 40, 5
ROWS_PER_GROUP = 10_000
LIMITS_S = {"rates by category": 1.0}


def write_attempts(path: Path) -> None:
    """Write attempts as an execution keeps them: by target, then case; texts of usual length."""
    generator = np.random.default_rng(0)
    schema = pa.schema(
        [
            *((name, pa.string()) for name in ("execution", "case_id", "target", "plugin",
              "strategy", "category", "severity", "goal", "sent", "received", "decision", "usd",
              "error")),
            ("trial", pa.int32()), ("is_control", pa.bool_()), ("success", pa.bool_()),
            ("latency_ms", pa.float64()), ("scores", pa.map_(pa.string(), pa.float64())),
        ]
    )  # fmt: skip
    cases = [(goal, strategy) for goal in range(GOALS) for strategy in range(STRATEGIES)]
    generator.shuffle(cases)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for target in range(TARGETS):
            rows = [(goal, strategy, trial) for goal, strategy in cases for trial in range(TRIALS)]
            for start in range(0, len(rows), ROWS_PER_GROUP):
                page = [
                    _attempt(target, *row, draw)
                    for row, draw in zip(
                        rows[start : start + ROWS_PER_GROUP],
                        generator.random((ROWS_PER_GROUP, 3)).tolist(),
                        strict=False,
                    )
                ]
                writer.write_table(pa.Table.from_pylist(page, schema=schema))


def _attempt(
    target: int, goal: int, strategy: int, trial: int, draw: list[float]
) -> dict[str, object]:
    name = f"request number {goal} in plain words, of about the length that requests have"
    failed = draw[0] < 0.01
    return {
        "execution": "e" * 64, "case_id": f"{goal * 1000 + strategy:064x}",
        "target": f"target-{target}", "plugin": f"harm-{goal % 12}", "trial": trial,
        "strategy": f"strategy-{strategy}" if strategy else "plain", "goal": name,
        "category": f"category-{goal % 6}", "severity": ("low", "high")[goal % 2],
        "sent": name, "received": f"an answer {goal} {draw[1]:.3f}", "decision": "pass",
        "usd": f"{0.001 * (1 + goal % 50):.6f}", "error": "timeout" if failed else "",
        "is_control": goal % 12 == 0, "success": not failed and draw[1] < 0.1 * (1 + goal % 5),
        "latency_ms": 50 + 10 * draw[2],
        "scores": [] if failed else [("a", draw[1]), ("b", (draw[1] + draw[2]) / 2)],
    }  # fmt: skip


def _parts(path: Path) -> dict[str, Callable[[], object]]:
    from types import SimpleNamespace

    from workbench.campaign import columns, comparisons, rates
    from workbench.campaign.agreement import agreement

    names = [f"target-{number}" for number in range(TARGETS)]
    told = ("case_id", "target", "trial", "plugin", "strategy", "category", "goal", "is_control",
            "success", "error")  # fmt: skip

    def tried() -> columns.Columns:
        read = columns.read_columns(path, told)
        return read.where(read.answered())

    def judges() -> object:
        execution = SimpleNamespace(path=path, thresholds={"a": 0.5, "b": 0.5})
        return agreement(execution, columns.read_columns(path, ("goal", "is_control")))  # type: ignore[arg-type]

    return {
        "rates by category": lambda: rates.rates_by(path, "category"),
        "read": tried,
        "flaky cases": lambda: comparisons.flaky_rates(tried()),
        "targets compared": lambda: comparisons.compare_targets(tried(), targets=names),
        "mutations compared": lambda: comparisons.compare_mutations(
            (read := tried()).where(~read["is_control"])
        ),
        "judges' agreement": judges,
    }


def _child(path: Path, name: str) -> None:
    part = _parts(path)[name]
    before = _peak_mb()
    started, cpu = time.perf_counter(), time.process_time()
    part()
    wall_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu
    print(wall_s, cpu_s, before, _peak_mb())


def _peak_mb() -> float:
    # Not ru_maxrss: it would begin with the size of the parent.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main() -> None:
    """Measure each part in a process of its own, and publish."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "attempts.parquet"
        write_attempts(path)
        size_mb = path.stat().st_size / 2**20
        for name in _parts(path):
            command = [sys.executable, __file__, str(path), name]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            wall_s, cpu_s, before, peak = map(float, done.stdout.split())
            rows.append(
                {
                    "measure": name, "attempts": ATTEMPTS, "wall_s": wall_s, "cpu_s": cpu_s,
                    "peak_rss_mb": peak, "rss_before_mb": before, "file_mb": size_mb,
                    "limit_wall_s": LIMITS_S.get(name, ""),
                }
            )  # fmt: skip
    publish("campaign_analysis", rows)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _child(Path(sys.argv[1]), sys.argv[2])
    else:
        main()
