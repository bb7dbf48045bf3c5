"""kill -9 of a kernel, of the runner, and of both, at random moments.

After any kill: the same command goes on, no finished step runs twice, nothing that did not finish
is called a success, no kernel stays behind, and every attempt is in the ledger once.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from notebook_projects import make_project
from workbench.core.settings import read_settings
from workbench.store.database import open_store

pytestmark = pytest.mark.slow

WORKBENCH = str(Path(sys.executable).parent / "workbench")
MOMENTS = 10
EXPECTED_TOTAL = 5 * (1 + 4 + 9 + 16)


def start(root: Path) -> subprocess.Popen:
    environment = {**os.environ, "WORKBENCH_HOME": str(root / "home")}
    return subprocess.Popen(
        [WORKBENCH, "run", "experiments/trial.yaml", "--no-report", "--jobs", "2"],
        cwd=root,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def kernels(root: Path) -> list[psutil.Process]:
    """Return the kernels of this project, also orphans."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("WORKBENCH_RUN_FOLDER", "").startswith(str(root)):
                found.append(process)
        except psutil.Error:
            continue
    return found


def strike(victim: str, root: Path, runner: subprocess.Popen, dice: random.Random) -> None:
    if victim in {"kernel", "both"}:
        alive = kernels(root)
        if alive:
            os.kill(dice.choice(alive).pid, signal.SIGKILL)
    if victim in {"runner", "both"}:
        runner.kill()


def check_truth(store) -> dict[str, str]:
    """Return fingerprint → run id of every success, each backed by its own result."""
    succeeded = {}
    for run in store.runs.find(experiment="trial", state="succeeded"):
        result = json.loads((Path(run.folder) / "result.json").read_text())
        assert result["run_id"] == run.id
        assert result == run.result
        assert run.fingerprint not in succeeded, f"{run.step} {run.member} ran twice"
        succeeded[run.fingerprint] = run.id
    return succeeded


@pytest.mark.parametrize("victim", ["kernel", "runner", "both"])
def test_any_kill_resumes_and_tells_the_truth(tmp_path, victim):
    dice = random.Random(f"kills of {victim}")
    struck = Counter()
    for moment in range(MOMENTS):
        root = tmp_path / str(moment)
        make_project(root, seconds=0.2)
        runner = start(root)
        time.sleep(dice.uniform(0.3, 6.0))
        if runner.poll() is None:
            struck["alive"] += 1
            strike(victim, root, runner, dice)
        _, error = runner.communicate(timeout=60)
        assert b"Traceback" not in error
        store = open_store(read_settings({"WORKBENCH_HOME": str(root / "home")}))
        before = check_truth(store)
        if runner.returncode == 0:
            assert len(before) == 6  # an exit status of 0 must mean all of it

        again = start(root)
        _, error = again.communicate(timeout=120)
        assert again.returncode == 0, error
        after = check_truth(store)
        assert len(after) == 6
        assert before.items() <= after.items()
        total = store.runs.current("trial", kind="total")[0]
        assert total.result["total"] == EXPECTED_TOTAL
        runs = store.runs.find(experiment="trial")
        assert {run.state for run in runs} <= {"succeeded", "failed", "lost"}
        rows = [row.job for row in store.ledger.rows(experiment="trial") if row.unit == "core_s"]
        of_runs = [job for job in rows if job.startswith("run-")]
        assert sorted(of_runs) == sorted(run.id for run in runs)
        assert kernels(root) == []
        store.engine.dispose()
    assert struck["alive"] >= MOMENTS // 2, "most kills came too late to mean anything"
