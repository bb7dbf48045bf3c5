"""The training runs of an experiment as one table, and what may be chosen from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from workbench.core.errors import ConfigError
from workbench.store.database import Store
from workbench.store.records import Run

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["best_run", "mean_baselines", "training_frame", "training_runs"]


def training_runs(store: Store, run_ids: Sequence[str] = (), *, experiment: str = "") -> list[Run]:
    """Return training runs: those named, else those that make up the experiment now.

    Raises:
        ConfigError: If there are none.
    """
    found = (
        store.runs.by_ids(run_ids) if run_ids else store.runs.current(experiment, kind="training")
    )
    runs = [run for run in found if run.result.get("kind") == "training"]
    if not runs:
        wanted = f"the {len(run_ids)} run ids given" if run_ids else f"experiment {experiment!r}"
        raise ConfigError(f"no finished training run in {wanted}; run the training step first")
    return runs


def training_frame(
    store: Store, run_ids: Sequence[str] = (), *, experiment: str = ""
) -> pd.DataFrame:
    """Return one row per training run: ids, axes, losses, baselines, speed, CPU seconds.

    The axes of the result and ``baseline_<method>`` are columns beside ``run_id``, ``model``,
    ``seed``, ``loss``, ``validation_loss``, ``train_s``, ``samples`` and ``cpu_s``.

    Raises:
        ConfigError: If there are no training runs.
    """
    import pandas as pd

    return pd.DataFrame([_row(run) for run in training_runs(store, run_ids, experiment=experiment)])


def best_run(frame: pd.DataFrame) -> dict[str, Any]:
    """Return the row of the lowest validation loss; no test figure has a say."""
    row = frame.sort_values(["validation_loss", "run_id"]).iloc[0]
    return {str(name): value for name, value in row.items()}


def mean_baselines(frame: pd.DataFrame, *, axis: str) -> dict[str, float]:
    """Return the mean loss of each baseline over the runs at the largest x of the axis."""
    largest = frame[frame[axis] == frame[axis].max()]
    prefix = "baseline_"
    names = [str(name) for name in frame.columns if str(name).startswith(prefix)]
    return {name.removeprefix(prefix): float(largest[name].mean()) for name in names}


def _row(run: Run) -> dict[str, Any]:
    result = run.result
    return {
        "run_id": run.id,
        "model": result["model"],
        "seed": result["seed"],
        **result["axes"],
        "loss": result["loss"],
        "validation_loss": result["validation_loss"],
        **{f"baseline_{name}": loss for name, loss in result["baselines"].items()},
        "train_s": result["train_s"],
        "samples": result["samples_per_s"] * result["train_s"],
        "cpu_s": run.cpu_s or result.get("usage", {}).get("cpu_s", 0.0),
    }
