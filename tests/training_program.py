"""A small program that trains, for launchers to start in one or several processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

__all__ = ["TORCHRUN", "assert_equal", "command_of", "finish", "told_by"]

PROGRAM = """
import json, os, signal, sys, time
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
        time.sleep(pause_s)
        if self.calls == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.calls == stop_at and int(os.environ["RANK"]) == 0:
            os.kill(os.getppid(), signal.SIGTERM)
        if self.calls == fails["at"] and os.environ.get("RANK") == fails["rank"]:
            fail()
        noise = torch.randn(batch.given.shape, generator=generator)
        return nn.functional.mse_loss(self(batch.given + 0.3 * noise), batch.wanted)

def fail():
    # once: the next start goes on
    try:
        (out / "failed").touch(exist_ok=False)
    except FileExistsError:
        return
    if fails["how"] == "hang":
        time.sleep(600)
    os.kill(os.getpid(), {"kill": signal.SIGKILL, "term": signal.SIGTERM}[fails["how"]])

class Uneven(TensorData):
    # every other batch has fewer rows than there are processes
    def draw(self, size, generator):
        few = bool(torch.randint(2, (1,), generator=generator))
        return super().draw(1 if few else size, generator)

def validate(model):
    validated.append(os.getpid())
    return {"error": float(nn.functional.mse_loss(model(given), wanted))}

out, options = Path(sys.argv[1]), json.loads(sys.argv[2])
fails = {"at": 0, "rank": "1", "how": "", **options.pop("fails", {})}
pause_s = options.pop("pause_s", 0)
(out / f"rank-{os.environ.get('RANK', 0)}").write_text(str(os.getpid()))
kill_at, stop_at = options.pop("kill_at", 0), options.pop("stop_at", 0)
make = Uneven if options.pop("uneven", False) else TensorData
validated = []
torch.manual_seed(0)
given = torch.randn(65, 8)
wanted = given.flip(1)
model = Model()
config = TrainingConfig(
    **{"steps": 60, "batch_size": 15, "validate_every": 20, "accelerator": "cpu",
       "learning_rate": 1e-2,
       # half of the gradients are longer: AdamW alone would not mind if all were scaled alike
       "clip_norm": 0.36, **options}
)
metrics = train(model, make(Columns(given, wanted)), config, validate=validate,
                metric="error", folder=out / "checkpoints",
                checkpoint_every_s=1e9 if stop_at else 0.0)
weights = torch.cat([one.detach().flatten() for one in model.parameters()]).tolist()
told = {"metrics": metrics, "weights": weights, "validated": bool(validated), "calls": model.calls}
(out / f"{os.getpid()}.json").write_text(json.dumps(told))
"""
TORCHRUN = [
    sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
    "--no-python",
]  # fmt: skip


def command_of(folder: Path, *launcher: str, **options: object) -> list[str]:
    """Return the command that starts the program by a launcher; without one it is alone."""
    program = folder / "program.py"
    program.write_text(PROGRAM)
    return [*launcher, sys.executable, str(program), str(folder), json.dumps(options)]


def finish(
    folder: Path, *launcher: str, variables: dict[str, str] | None = None, **options: object
) -> list[dict[str, Any]]:
    """Return what each process of a program wrote; empty if it was stopped."""
    command = command_of(folder, *launcher, **options)
    environment = {**os.environ, **(variables or {})}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    stopped = "kill_at" in options or "stop_at" in options
    assert (done.returncode != 0) == stopped, done.stderr
    return told_by(folder)


def told_by(folder: Path) -> list[dict[str, Any]]:
    """Return what each process of a program wrote."""
    return [json.loads(path.read_text()) for path in folder.glob("*.json")]


def assert_equal(
    told: dict[str, Any], alone: dict[str, Any], *, even: bool = True, processes: int = 2
) -> None:
    """Check that several processes trained as one does."""
    metrics, expected = told["metrics"], alone["metrics"]
    assert (metrics["processes"], expected["processes"]) == (processes, 1)
    assert metrics["attainable"] == 0.0, "no peak is claimed of a CPU"
    assert [row["step"] for row in metrics["curve"]] == [20, 40, 60]
    for row, other in zip(metrics["curve"], expected["curve"], strict=True):
        assert row["train_loss"] == pytest.approx(other["train_loss"], abs=1e-4)
        assert row["error"] == pytest.approx(other["error"], abs=1e-4)
    # a process counts where it has rows
    assert not even or metrics["flops"] == pytest.approx(expected["flops"])
    assert told["weights"] == pytest.approx(alone["weights"], abs=1e-3)
