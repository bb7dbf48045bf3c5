"""Training in two processes, started by torchrun or by ourselves: the same as in one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import json, os, signal, sys
from pathlib import Path
from typing import NamedTuple
import torch
from torch import nn
from workbench.diffusion.trainer import train
from workbench.diffusion.training_config import TrainingConfig
from workbench.diffusion.training_data import TensorData

class Columns(NamedTuple):
    given: torch.Tensor
    wanted: torch.Tensor

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8))
        self.calls = 0
    def forward(self, given):
        return self.layers(given)
    def loss(self, batch, generator):
        self.calls += 1
        if self.calls == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.calls == stop_at and int(os.environ["RANK"]) == 0:
            os.kill(os.getppid(), signal.SIGTERM)
        noise = torch.randn(batch.given.shape, generator=generator)
        return nn.functional.mse_loss(self(batch.given + 0.3 * noise), batch.wanted)

class Uneven(TensorData):
    # every other batch has fewer rows than there are processes
    def draw(self, size, generator):
        few = bool(torch.randint(2, (1,), generator=generator))
        return super().draw(1 if few else size, generator)

def validate(model):
    validated.append(os.getpid())
    return {"error": float(nn.functional.mse_loss(model(given), wanted))}

options = json.loads(sys.argv[2])
kill_at, stop_at = options.pop("kill_at", 0), options.pop("stop_at", 0)
make = Uneven if options.pop("uneven", False) else TensorData
validated = []
torch.manual_seed(0)
given = torch.randn(65, 8)
wanted = given.flip(1)
model = Model()
config = TrainingConfig(
    **{"steps": 60, "batch_size": 15, "validate_every": 20, "accelerator": "cpu",
       "learning_rate": 1e-2, **options}
)
out = Path(sys.argv[1])
metrics = train(model, make(Columns(given, wanted)), config, validate=validate,
                metric="error", folder=out / "checkpoints",
                checkpoint_every_s=1e9 if stop_at else 0.0)
weights = torch.cat([one.detach().flatten() for one in model.parameters()]).tolist()
told = {"metrics": metrics, "weights": weights, "validated": bool(validated), "calls": model.calls}
(out / f"{os.getpid()}.json").write_text(json.dumps(told))
"""
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
SBATCH = Path(__file__).resolve().parents[2] / "experiments" / "slurm" / "train.sbatch"


def finish(
    folder: Path, *launcher: str, variables: dict[str, str] | None = None, **options: object
) -> list[dict[str, Any]]:
    """Return what each process of a program wrote; empty if it was stopped."""
    program = folder / "program.py"
    program.write_text(PROGRAM)
    command = [*(launcher or [sys.executable]), str(program), str(folder), json.dumps(options)]
    environment = {**os.environ, **(variables or {})}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    stopped = "kill_at" in options or "stop_at" in options
    assert (done.returncode != 0) == stopped, done.stderr
    return [json.loads(path.read_text()) for path in folder.glob("*.json")]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    (told,) = finish(tmp_path_factory.mktemp("alone"), devices=1)
    return told


def assert_equal(told: dict[str, Any], alone: dict[str, Any], *, even: bool = True) -> None:
    metrics, expected = told["metrics"], alone["metrics"]
    assert (metrics["processes"], expected["processes"]) == (2, 1)
    assert [row["step"] for row in metrics["curve"]] == [20, 40, 60]
    for row, other in zip(metrics["curve"], expected["curve"], strict=True):
        assert row["train_loss"] == pytest.approx(other["train_loss"], abs=1e-4)
        assert row["error"] == pytest.approx(other["error"], abs=1e-4)
    # a process counts where it has rows
    assert not even or metrics["flops"] == pytest.approx(expected["flops"])
    assert told["weights"] == pytest.approx(alone["weights"], abs=1e-3)


def test_two_processes_of_torchrun_train_as_one_does(tmp_path: Path, alone) -> None:
    told = finish(tmp_path, *TORCHRUN)
    assert len(told) == 2
    assert told[0]["weights"] == told[1]["weights"]
    assert sorted(one["validated"] for one in told) == [False, True]
    for one in told:
        assert_equal(one, alone)
    assert [one.suffix for one in (tmp_path / "checkpoints").iterdir()] == [".done"]


def test_batches_of_fewer_rows_than_processes_train_as_in_one(tmp_path: Path) -> None:
    for name in ("alone", "together"):
        (tmp_path / name).mkdir()
    (alone,) = finish(tmp_path / "alone", devices=1, uneven=True)
    told = finish(tmp_path / "together", *TORCHRUN, uneven=True)
    assert_equal(told[0], alone, even=False)
    assert told[0]["calls"] != told[1]["calls"]


def test_accumulation_in_two_processes_trains_as_one_batch_does(tmp_path: Path, alone) -> None:
    told = finish(tmp_path, *TORCHRUN, accumulation=3)
    assert [one["calls"] for one in told] == [180, 180]
    assert_equal(told[0], alone)


def test_two_forked_processes_bring_their_results_home(tmp_path: Path, alone) -> None:
    (told,) = finish(tmp_path, devices=2)
    assert_equal(told, alone)


@pytest.mark.parametrize("stop", [{"kill_at": 50}, {"stop_at": 30}])
def test_killed_and_terminated_processes_go_on_from_the_checkpoint(
    tmp_path: Path, alone: dict[str, Any], stop: dict[str, int]
) -> None:
    assert not finish(tmp_path, *TORCHRUN, **stop)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1
    told = finish(tmp_path, *TORCHRUN)
    assert [one["calls"] for one in told] == [20, 20]
    assert_equal(told[0], alone)


def test_the_slurm_script_starts_the_same_command_on_every_machine(
    tmp_path: Path, alone: dict[str, Any]
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, body in (("srun", 'shift; exec "$@"'), ("scontrol", "echo localhost; echo other")):
        (programs / name).write_text(f"#!/bin/bash\n{body}\n")
        (programs / name).chmod(0o755)
    variables = {
        "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SLURM_JOB_NODELIST": "localhost", "SLURM_JOB_ID": str(os.getpid()), "SLURM_NNODES": "1",
        "SLURM_NTASKS": "1", "SLURM_GPUS_ON_NODE": "2",
    }  # fmt: skip
    told = finish(tmp_path, "bash", str(SBATCH), sys.executable, variables=variables)
    assert len(told) == 2
    assert_equal(told[0], alone)
