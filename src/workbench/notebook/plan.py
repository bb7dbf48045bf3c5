"""What has to run, by fingerprints of notebook, code, parameters and inputs; what it may cost."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from workbench.core.errors import BudgetError, ConfigError, DataError
from workbench.core.identity import content_id, file_sha256
from workbench.core.money import ZERO, show_usd
from workbench.core.provenance import library_versions, reached_files
from workbench.core.settings import seeds_folder
from workbench.cost.alerts import Alert, refuse_if_exceeded
from workbench.notebook.experiment import Experiment, Member, Results, Step, resolve
from workbench.notebook.parameters import check_parameters, input_files
from workbench.notebook.result import RESULT_FILE
from workbench.store.database import Store
from workbench.store.records import Run
from workbench.store.runs import RunTable

__all__ = ["Eta", "Prepared", "check_costs", "check_inputs", "find_finished", "prepare"]

_DECIDE_ANSWERS = ("provider", "base_url", "models", "tasks")
"""Fields of the ``llm`` section that count in fingerprints. Budgets and rates do not: changing how
calls are paid for must not pay for them again."""
_SAVINGS_THAT_DO = ("routing", "items_per_call", "context_tokens", "concise")
"""The others change what an answer costs, not what it says."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A member whose needs are met: its parameters filled in, its fingerprint known."""

    member: Member
    parameters: dict[str, Any]
    fingerprint: str


def check_inputs(experiment: Experiment) -> None:
    """Refuse an experiment whose input files are missing, before anything starts."""
    for step in experiment.steps.values():
        for member in step.members():
            for name in input_files(step.notebook, member.parameters):
                if "${" not in name and not (experiment.root / name).exists():
                    raise ConfigError(
                        f"{experiment.file}: steps.{step.name}: input {name!r} does not exist"
                        f" (looked in {experiment.root}); correct the path"
                    )


def check_costs(experiment: Experiment, store: Store) -> list[Alert]:
    """Return the exceeded thresholds that only warn.

    Raises:
        BudgetError: If more is billed than the experiment's budget, or a threshold that aborts is
            exceeded.
    """
    budget = experiment.llm.budgets.experiment
    rows = store.ledger.rows(experiment=experiment.name) if budget is not None else []
    # metered, or a call that was lost on its way and may be on the service's bill
    counted = [row for row in rows if not row.estimated or row.details.get("outcome") == "lost"]
    billed = sum((row.usd for row in counted), ZERO)
    if budget is not None and billed > budget:
        raise BudgetError(
            f"{experiment.file}: budget_usd is {show_usd(budget)} and {show_usd(billed)} is billed;"
            " raise it to go on, finished steps are kept"
        )
    return refuse_if_exceeded(store, experiment.root, now=time.time())


def prepare(experiment: Experiment, member: Member, finished: Mapping[str, list[Run]]) -> Prepared:
    """Return a member with references filled in and its fingerprint.

    ``finished`` has the succeeded runs, in matrix order, of every step that the member needs.

    Raises:
        ConfigError: If a reference or a value that came through one does not fit.
        DataError: If an input file cannot be read.
    """
    step = experiment.steps[member.step]
    where = f"{experiment.file}: steps.{step.name}.parameters"
    results: dict[str, Results] = {}
    for need in step.needs:
        given = [run.result for run in finished[need]]
        results[need] = given if experiment.steps[need].matrix else given[0]
    parameters = {
        name: resolve(value, results, where=f"{where}.{name}")
        for name, value in member.parameters.items()
    }
    check_parameters(step.notebook, parameters, where=where)
    return Prepared(
        member=member,
        parameters=_absolute_paths(parameters, step, experiment.root),
        fingerprint=_fingerprint(experiment, step, parameters, finished),
    )


def find_finished(runs: RunTable, experiment: str, prepared: Prepared) -> Run | None:
    """Return the newest succeeded run with the same fingerprint whose result is still there."""
    found = runs.find(experiment=experiment, state="succeeded", fingerprint=prepared.fingerprint)
    for run in reversed(found):
        if (Path(run.folder) / RESULT_FILE).is_file():
            return run
    return None


class Eta:
    """Estimates what is left from how long steps took before."""

    def __init__(self, store: Store, experiment: Experiment, jobs: int) -> None:
        self._jobs = jobs
        self._seconds: dict[str, list[float]] = {}
        for run in store.runs.find(experiment=experiment.name, state="succeeded"):
            self.learn(run)

    def learn(self, run: Run) -> None:
        """Remember how long a run took."""
        self._seconds.setdefault(run.step, []).append(run.wall_s)

    def seconds(self, steps_left: list[str]) -> float | None:
        """Return the estimated seconds for the steps left, None while nothing is known."""
        if not self._seconds:
            return None
        means = {step: sum(values) / len(values) for step, values in self._seconds.items()}
        usual = sum(means.values()) / len(means)
        return sum(means.get(step, usual) for step in steps_left) / self._jobs


def _fingerprint(
    experiment: Experiment,
    step: Step,
    parameters: dict[str, Any],
    finished: Mapping[str, list[Run]],
) -> str:
    defaults = {name: parameter.default for name, parameter in step.notebook.parameters.items()}
    files = input_files(step.notebook, parameters)
    code = reached_files(step.notebook.code)
    facts: dict[str, Any] = {
        "notebook": step.notebook.code,
        "code": content_id(code),
        "parameters": defaults | parameters,
        "inputs": {name: _file_hash(experiment.root / name) for name in files},
        "needs": {need: [run.fingerprint for run in finished[need]] for need in step.needs},
        "seeds": _seeds_hash(),
        "libraries": library_versions(),
    }
    if "llm/gateway.py" in code:  # the one way to a model
        config = experiment.llm.to_json()
        facts["llm"] = {name: config[name] for name in _DECIDE_ANSWERS} | {
            name: config["savings"][name] for name in _SAVINGS_THAT_DO
        }
    return content_id(facts)


def _absolute_paths(parameters: dict[str, Any], step: Step, root: Path) -> dict[str, Any]:
    files = set(input_files(step.notebook, parameters))

    def absolute(value: Any) -> Any:
        if isinstance(value, str) and value in files:
            return str(root / value)
        if isinstance(value, list):
            return [absolute(item) for item in value]
        if isinstance(value, dict):
            return {key: absolute(item) for key, item in value.items()}
        return value

    return {name: absolute(value) for name, value in parameters.items()}


@cache
def _file_hash(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); correct the path") from error


@cache
def _seeds_hash() -> str:
    folder = seeds_folder()
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return content_id({str(file.relative_to(folder)): file_sha256(file) for file in files})
