"""Pair sets of up to a million, offline: speed, memory, the same version whatever happens.

``--pairs N`` for a quicker run. Each build runs in a process tree of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import ROOT, WORKBENCH, call, publish

PHASE3 = ROOT / "experiments" / "data" / "phase3.yaml"
BARE = """
import itertools, sys, time
from pathlib import Path
from workbench.data.grammar import Ways, stems_of
from workbench.data.pairs import write_pairs
from workbench.data.requests import LANGUAGES
from workbench.data.shards import row_digest
from workbench.data.split import assign_split
from workbench.store.records import Pair
from dataclasses import replace
from functools import cache

side = cache(assign_split)
prototype = Pair(adversarial="", clean="", relation="identity", source="seeds", license="MIT",
                 category="benign")
stems = stems_of(prototype, Ways(languages=LANGUAGES, dialogues=True, encodings=True))
wanted, folder = int(sys.argv[1]), Path(sys.argv[2])
started, done, number = time.process_time(), 0, 0
each = -(-wanted // len(stems))
shard = []
for stem in stems:
    for pair in itertools.islice(stem.grow(seed=0), each):
        group = pair.parent_id
        split = side(group, pair.wrapper_family) or ""
        shard.append(replace(pair, group=group, split=split))
    if len(shard) >= 20_000 or stem is stems[-1]:
        digests = sorted(row_digest(pair) for pair in shard)
        write_pairs(folder / f"{number}.parquet", shard)
        done, number, shard = done + len(shard), number + 1, []
print(done / (time.process_time() - started))
"""


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    pairs = parser.parse_args().pairs
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        use = call([sys.executable, "-c", BARE, str(pairs), name], cwd=ROOT, sample_memory=True)
        rate = float(use.output)
        rows.append(_row("generate, hash, split, write", rate, "pairs per CPU-s", ">= 15,000"))
        rows.append(_row("  peak memory", use.peak_rss_mb, "MB", "<= 700"))
        first, use = _build(folder / "one", pairs, workers=1)
        told = ">= 5,000"
        rows.append(_row("whole build, 1 worker", pairs / use.cpu_s, "pairs per CPU-s", told))
        rows.append(_row("  peak memory", use.peak_rss_mb, "MB", "<= 700"))
        rows.append(_row("  wall", use.wall_s, "s", ""))
        second, use = _build(folder / "two", pairs, workers=2)
        rows.append(_row("whole build, 2 workers: wall", use.wall_s, "s", ""))
        rows.append(_row("  peak memory of all processes", use.peak_rss_mb, "MB", ""))
        kills, third = _killed(folder / "killed", pairs)
        is_same = len({first["version"], second["version"], third["version"]}) == 1
        rows.append(_row(f"same version: 1, 2 workers, {kills} kills", float(is_same), "", "1"))
        counted = ("unique_requests", "unique_groups", "wrapper_families", "near_duplicates")
        rows += [_row(f"  {field}", float(first[field]), "", "") for field in counted]
        leaks = first["leaks"].items()
        rows += [_row(f"  leaks: {kind}", float(count), "", "0") for kind, count in leaks]
    publish("data", rows)


def _row(what: str, value: float, unit: str, limit: str) -> dict[str, Any]:
    return {"what": what, "measured": value, "unit": unit, "limit": limit}


def _command(pairs: int, workers: int) -> list[str]:
    options = ["--pairs", str(pairs), "--workers", str(workers), "--json"]
    return [WORKBENCH, "data", "build", str(PHASE3), *options]


def _build(home: Path, pairs: int, *, workers: int) -> tuple[dict[str, Any], Any]:
    variables = {"WORKBENCH_HOME": str(home)}
    use = call(_command(pairs, workers), cwd=ROOT, variables=variables, sample_memory=True)
    return json.loads(use.output.splitlines()[-1]), use


def _killed(home: Path, pairs: int) -> tuple[int, dict[str, Any]]:
    """Return how often a build was killed, and what it gave in the end."""
    env = {**os.environ, "WORKBENCH_HOME": str(home)}
    kills = 0
    for wait_s in (4.0, 7.0, 11.0, 5.0):
        process = subprocess.Popen(
            _command(pairs, 2), cwd=ROOT, env=env, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        time.sleep(wait_s)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    return kills, _build(home, pairs, workers=2)[0]


if __name__ == "__main__":
    main()
