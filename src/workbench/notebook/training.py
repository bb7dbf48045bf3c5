"""Training the steps of an experiment ahead of its notebooks, where many processes share the work.

The notebook that comes later finds the weights and goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from workbench.core.errors import ConfigError
from workbench.core.fields import suggest
from workbench.core.identity import new_id
from workbench.cost.usage import compute_rows
from workbench.notebook.experiment import Experiment, Member
from workbench.notebook.plan import find_finished, prepare
from workbench.store.database import Store
from workbench.store.records import Run

if TYPE_CHECKING:
    from workbench.diffusion.callbacks import Progress

__all__ = ["train_members", "trainings"]

_NOTEBOOK = "02_train_phase"


def trainings(experiment: Experiment, store: Store, *, steps: Sequence[str] = ()) -> list[Member]:
    """Return the trainings of an experiment that no finished run has, with all their parameters.

    Args:
        experiment: A checked experiment.
        store: Where its runs are.
        steps: Names of the steps to take; none takes all that train.

    Raises:
        ConfigError: If a step does not train, or a parameter refers to a step that has not run.
    """
    known = [one.name for one in experiment.steps.values() if one.notebook.path.stem == _NOTEBOOK]
    for name in steps:
        if name not in known:
            raise ConfigError(f"{experiment.file}: {name!r} trains nothing; {suggest(name, known)}")
    finished: dict[str, list[Run]] = {}
    found: list[Member] = []
    for step in experiment.steps.values():
        runs: list[Run | None] = []
        for member in step.members():
            is_asked = step.name in (steps or known)
            run, parameters = None, member.parameters
            if all(need in finished for need in step.needs):
                prepared = prepare(experiment, member, finished)
                parameters = prepared.parameters
                run = find_finished(store.runs, experiment.name, prepared)
            elif is_asked and "${" in str(parameters):
                raise ConfigError(
                    f"{experiment.file}: steps.{step.name} needs {', '.join(step.needs)}, which has"
                    f" not run; run it, or give --set {step.name}.pair_set=VERSION"
                )
            if is_asked and not run:
                given = {n: one.default for n, one in step.notebook.parameters.items()}
                found.append(
                    Member(step=step.name, label=member.label, parameters=given | parameters)
                )
            runs.append(run)
        if all(runs):
            finished[step.name] = [run for run in runs if run]
    return found


def train_members(
    members: Sequence[Member],
    store: Store,
    *,
    experiment: str,
    progress: Callable[[Progress], None] | None = None,
) -> Iterator[tuple[Member, dict[str, Any]]]:
    """Train member by member, and give what each training took.

    Checkpoints and weights are kept under the store's home, from where a run of the experiment
    goes on. Of several processes that torchrun started, only the first writes to the store.

    Args:
        members: As :func:`trainings` gives them.
        store: Where the pairs are.
        experiment: Its name, for the ledger.
        progress: Told every few steps, in the first process only.

    Raises:
        ConfigError: If a parameter is out of range, or does not fit the machine.
        DataError: If there are too few pairs.
        StoreError: If the store cannot be written.
    """
    from workbench.data.build import load_pairs
    from workbench.diffusion.distributed import rank
    from workbench.diffusion.phase_run import chosen, fit_phase, taken
    from workbench.embedding.vectors import open_encoder

    first, processes = rank()
    encoder, started = open_encoder(store), time.process_time()
    try:
        for member in members:
            pairs = load_pairs(store, member.parameters["pair_set"])
            phase, rows = chosen(pairs.frame, member.parameters)
            fitted = fit_phase(
                phase, rows, validation=pairs.part("validation"), encoder=encoder,
                home=store.home, pair_set=pairs.version, progress=progress,
            )  # fmt: skip
            yield member, taken(fitted.metrics)
    finally:
        if first == 0:
            # the others do as much, and of a process that is told to end nothing can be asked
            cpu_s = (time.process_time() - started) * processes
            rows_of = compute_rows(
                cpu_s=cpu_s, who=store.settings.user, job=new_id("job"), experiment=experiment,
                phase="training",
            )  # fmt: skip
            store.ledger.add(rows_of)
