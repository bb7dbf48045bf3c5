"""``workbench train`` in two processes of torchrun, and the run that goes on from what it left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from workbench.core.settings import read_settings
from workbench.data.build import build_pairs
from workbench.data.config import BuildConfig
from workbench.store.database import open_store

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(sys.executable).parent
LAUNCH = ROOT / "experiments" / "launch" / "1x4.sh"


def test_a_run_goes_on_from_what_torchrun_trained(tmp_path: Path) -> None:
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "experiments").mkdir()
    shutil.copy(ROOT / "notebooks" / "02_train_phase.ipynb", tmp_path / "notebooks")
    environment = {
        **os.environ, "PATH": f"{PROGRAMS}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1",
        "WORKBENCH_HOME": str(tmp_path / "home"), "PROCESSES": "2",
    }  # fmt: skip
    store = open_store(read_settings(environment, root=tmp_path))
    pairs = build_pairs(store, BuildConfig(target_pairs=400))
    parameters = {
        "pair_set": pairs.version, "wrapper_families": 0, "pairs": -1, "hidden": 32,
        "training_steps": 20, "methods": ["identity"], "gains": [1.0],
    }  # fmt: skip
    step = {"notebook": "02_train_phase", "matrix": {"seed": [0, 1]}, "parameters": parameters}
    file = tmp_path / "experiments" / "small.yaml"
    file.write_text(yaml.safe_dump({"name": "small", "steps": {"train": step}}))

    def call(*command: str) -> str:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    train = ("workbench", "train", str(file), "--json")
    assert [json.loads(line)["member"] for line in call(*train, "--dry-run").splitlines()] == [
        "seed=0", "seed=1",
    ]  # fmt: skip
    told = [json.loads(line) for line in call("bash", str(LAUNCH), *train).splitlines()]
    # the first process alone speaks and writes
    assert [(one["member"], one["steps"], one["processes"]) for one in told] == [
        ("seed=0", 20, 2), ("seed=1", 20, 2),
    ]  # fmt: skip
    assert {(one["hardware"], one["utilization"]) for one in told} == {("cpu", None)}
    assert len(list(tmp_path.glob("home/checkpoints/*/*.done"))) == 2
    assert not store.runs.find(experiment="small")
    rows = store.ledger.rows(experiment="small")
    assert len({row.job for row in rows}) == 1
    assert {row.phase for row in rows} == {"training"}

    call("workbench", "run", str(file), "--no-report", "--jobs", "1")
    runs = store.runs.current("small")
    # trained once, by two processes: the notebooks found it
    assert [run.result["train_s"] for run in runs] == [one["train_s"] for one in told]
    assert {run.result["processes"] for run in runs} == {2}
    assert not list(tmp_path.glob("home/checkpoints/*/*.done"))
    assert (
        "nothing to train"
        in subprocess.run(
            train, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        ).stderr
    )
