"""What has to run: fingerprints of notebook, code, parameters and inputs, against the run table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from workbench.core.errors import ConfigError, DataError
from workbench.core.identity import content_id, file_sha256
from workbench.core.provenance import code_hash, library_versions
from workbench.core.settings import seeds_folder
from workbench.notebook.experiment import Experiment, Member, Results, Step, resolve
from workbench.notebook.parameters import check_parameters, input_files
from workbench.notebook.result import RESULT_FILE
from workbench.store.records import Run
from workbench.store.runs import RunTable

__all__ = ["Prepared", "check_inputs", "find_finished", "prepare"]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A member whose needs are met: its parameters filled in, its fingerprint known."""

    member: Member
    parameters: dict[str, Any]
    fingerprint: str


def check_inputs(experiment: Experiment) -> None:
    """Refuse an experiment whose input files are missing, before anything starts.

    Raises:
        ConfigError: Naming the file, the step and the parameter's experiment file.
    """
    for step in experiment.steps.values():
        for member in step.members():
            for name in input_files(step.notebook, member.parameters):
                if "${" not in name and not (experiment.root / name).exists():
                    raise ConfigError(
                        f"{experiment.file}: steps.{step.name}: input {name!r} does not exist"
                        f" (looked in {experiment.root}); correct the path"
                    )


def prepare(experiment: Experiment, member: Member, finished: Mapping[str, list[Run]]) -> Prepared:
    """Return a member with references filled in and its fingerprint.

    Args:
        experiment: The experiment it belongs to.
        member: The member; all steps it needs have finished.
        finished: Step → its succeeded runs, in matrix order.

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


def _fingerprint(
    experiment: Experiment,
    step: Step,
    parameters: dict[str, Any],
    finished: Mapping[str, list[Run]],
) -> str:
    defaults = {name: parameter.default for name, parameter in step.notebook.parameters.items()}
    files = input_files(step.notebook, parameters)
    return content_id(
        {
            "notebook": step.notebook.code,
            "code": code_hash(step.notebook.code),
            "parameters": defaults | parameters,
            "inputs": {name: _file_hash(experiment.root / name) for name in files},
            "needs": {need: [run.fingerprint for run in finished[need]] for need in step.needs},
            "seeds": _seeds_hash(),
            "libraries": library_versions(),
        }
    )


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
