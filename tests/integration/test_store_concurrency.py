"""Two processes with four threads each write, and are killed: nothing is left half written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.store.verify import verify

BENCH = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_store.py"


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [12])
def test_after_kills_in_the_middle_of_writing_the_store_is_whole(store, seconds):
    done = subprocess.run(
        [sys.executable, str(BENCH), "hammer", str(store.home), str(seconds)],
        capture_output=True, text=True, timeout=seconds * 10 + 120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["kills"] >= 2
    assert min(told["written"].values()) > 0, told
    report = verify(store)
    assert report.is_whole, [one for one in report.problems if one.is_damage][:5]
    verify(store, repair=True)
    left = verify(store).problems
    assert {(one.check, one.is_damage) for one in left} <= {("folders", False)}  # half written


@pytest.mark.slow
def test_what_writers_were_told_is_kept(store):
    """Each says what it wrote once it was told that it is: after a kill all of it is there."""
    done = subprocess.run(
        [sys.executable, str(BENCH), "hammer", str(store.home), "6"],
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    said = [
        json.loads(line)
        for file in store.home.glob("said-*.jsonl")
        for line in file.read_text().splitlines()
        if line.endswith("]")
    ]
    assert said
    runs = {run.id: run for run in store.runs.find()}
    jobs = {row.job for row in store.ledger.rows()}
    for run, artifact in said:
        assert runs[run].state == "succeeded"
        assert run in jobs
        assert (store.artifacts.path("model", artifact) / "b").read_text() == artifact * 100
