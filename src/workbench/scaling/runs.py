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

_FIRST = "run the training step first"


def training_runs(store: Store, run_ids: Sequence[str] = (), *, experiment: str = "") -> list[Run]:
    """Return training runs: those named, else those that make up the experiment now.

    Raises:
        ConfigError: If there are none, one named is no finished training run, or their losses
            cannot be compared because they were measured on different pairs or encoders.
    """
    found = store.runs.by_ids(run_ids) if run_ids else store.runs.current(experiment)
    runs = [run for run in found if run.result["kind"] == "training"]
    if missing := sorted(set(run_ids) - {run.id for run in runs}):
        raise ConfigError(f"{missing[0]!r} is no finished training run; {_FIRST}")
    if not runs:
        raise ConfigError(f"no finished training run in experiment {experiment!r}; {_FIRST}")
    for field in ("pair_set", "encoder"):
        if len(values := {run.result[field] for run in runs}) > 1:
            raise ConfigError(
                f"the training runs stand on {len(values)} different {field}s; their losses "
                "cannot be compared, name runs of one"
            )
    return runs


def training_frame(
    store: Store, run_ids: Sequence[str] = (), *, experiment: str = ""
) -> pd.DataFrame:
    """Return a row per run of :func:`training_runs`: ids, losses, ``samples``, ``flops``, time.

    The axes of the result and ``baseline_<method>`` are columns too.
    """
    import pandas as pd

    return pd.DataFrame([_row(run) for run in training_runs(store, run_ids, experiment=experiment)])


def best_run(frame: pd.DataFrame) -> dict[str, Any]:
    """Return the row of the lowest validation loss; no test figure has a say."""
    row = frame.sort_values(["validation_loss", "run_id"]).iloc[0]
    return {str(name): value for name, value in row.items()}


def mean_baselines(frame: pd.DataFrame, *, axis: str) -> dict[str, float]:
    """Return the mean loss of each baseline over the runs at the largest x of the axis."""
    means = frame[frame[axis] == frame[axis].max()].filter(regex="^baseline_").mean()
    return {str(name).removeprefix("baseline_"): float(loss) for name, loss in means.items()}


def _row(run: Run) -> dict[str, Any]:
    result = run.result
    return {
        "run_id": run.id,
        **{name: result[name] for name in ("model", "seed")},
        **result["axes"],
        **{name: result[name] for name in ("loss", "validation_loss", "train_s")},
        **{f"baseline_{name}": loss for name, loss in result["baselines"].items()},
        "samples": result["samples_per_s"] * result["train_s"],
        "cpu_s": run.cpu_s or result["usage"]["cpu_s"],
        **{name: result[name] for name in ("flops", "steps")},
    }
