"""The run table's mirror in Weights & Biases: a replay after a sweep, in a process of its own.

The run table is the truth; this copy may fail without harm. W&B runs in a child process so that
it can neither block a notebook (there is a time limit) nor write to its console, and offline it
gets an environment without keys and with error reporting off, so that no connection is opened.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from workbench.store.records import Run

__all__ = ["Mode", "mirror"]

Mode = Literal["offline", "online", "disabled"]

_PROJECT = "workbench"


def mirror(
    runs: Iterable[Run],
    *,
    experiment: str,
    folder: Path,
    home: Path,
    mode: Mode = "offline",
    timeout_s: float = 60.0,
) -> dict[str, object]:
    """Return mode, folder, runs and error after writing one W&B run per training run.

    Config is the run's parameters, history its loss curve, summary its figures, group the
    experiment. Never raises for W&B's sake: what went wrong stands in ``error``.

    Args:
        runs: Training runs of the run table.
        experiment: Name of the group.
        folder: Where W&B writes, inside ``home``; it adds ``wandb/offline-run-...`` folders.
        home: Folder of the store; what is returned names the folder from there, because results
            are passed on to people who need not know this machine.
        mode: ``online`` uses the person's own W&B login; ``disabled`` writes nothing.
        timeout_s: Wall seconds after which the replay is given up.
    """
    listed = [_replayed(run) for run in runs]
    shown = str(folder.relative_to(home)) if folder.is_relative_to(home) else folder.name
    told: dict[str, object] = {"mode": mode, "folder": shown, "runs": 0, "error": ""}
    if mode == "disabled" or not listed:
        return told
    job = {"experiment": experiment, "folder": str(folder), "mode": mode, "runs": listed}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        done = _replay_in_child(json.dumps(job), mode=mode, timeout_s=timeout_s)
    except subprocess.TimeoutExpired:
        return {**told, "error": f"W&B took longer than {timeout_s:g} s; the run table is complete"}
    except OSError as error:
        return {**told, "error": f"W&B could not write to {shown}: {error.strerror or error}"}
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return {**told, "error": f"W&B failed: {lines[-1].replace(str(folder), shown)[:300]}"}
    return {**told, "runs": len(listed)}


def _replay_in_child(job: str, *, mode: Mode, timeout_s: float) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as home:
        clean = {"HOME": home, "WANDB_ERROR_REPORTING": "false", "PYTHONWARNINGS": "ignore"}
        return subprocess.run(
            [sys.executable, "-m", "workbench.store.tracking"],
            input=job,
            env=clean if mode == "offline" else None,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )


def _replayed(run: Run) -> dict[str, Any]:
    result = run.result
    figures = ("loss", "validation_loss", "train_s", "samples_per_s", "flops", "steps")
    summary = {name: result[name] for name in figures if name in result}
    baselines = {f"baseline_{name}": loss for name, loss in result.get("baselines", {}).items()}
    return {
        "id": run.id,
        "name": run.member or run.id,
        "step": run.step,
        "config": {**run.parameters, **result.get("axes", {}), "seed": result.get("seed")},
        "history": result.get("curve", []),
        "summary": {**summary, **baselines, "cpu_s": run.cpu_s},
    }


def _replay(job: dict[str, Any]) -> None:
    """Write the runs of a job; runs in the child process."""
    import wandb

    settings = wandb.Settings(
        mode=job["mode"],
        console="off",
        silent=True,
        save_code=False,
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
    )
    for one in job["runs"]:
        run = wandb.init(
            project=_PROJECT,
            group=job["experiment"],
            job_type=one["step"],
            id=one["id"],
            name=one["name"],
            config=one["config"],
            dir=job["folder"],
            settings=settings,
        )
        for row in one["history"]:
            values = {name: value for name, value in row.items() if name != "step"}
            run.log(values, step=int(row["step"]))
        run.summary.update(one["summary"])
        run.finish()


if __name__ == "__main__":
    _replay(json.load(sys.stdin))
