"""Experiment files: steps, what they need, what they sweep."""

from __future__ import annotations

import itertools
import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import yaml

from workbench.core.errors import ConfigError
from workbench.core.fields import refuse_unknown, suggest
from workbench.core.money import usd
from workbench.core.settings import project_root
from workbench.llm.config import GatewayConfig, parse
from workbench.notebook.parameters import Notebook, check_parameters, read_notebook

__all__ = ["Experiment", "Member", "Step", "load_experiment", "resolve"]

_REFERENCE = re.compile(r"\$\{steps\.([A-Za-z_]\w*)\.([A-Za-z_]\w*)\}")
_NAME = re.compile(r"[A-Za-z_]\w*")
Results = dict[str, Any] | list[dict[str, Any]]
_STEP_KEYS = ("notebook", "needs", "matrix", "parameters", "timeout_s")
_TOP_KEYS = ("name", "description", "budget_usd", "llm", "steps", "rehearsal")
_REHEARSAL = "-rehearsal"


@dataclass(frozen=True, kw_only=True)
class Member:
    """One notebook run of a step: the step itself, or one point of its matrix."""

    step: str
    label: str
    """``wrapper_families=3,seed=0``; empty without a matrix."""
    parameters: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Step:
    """A notebook with its parameters."""

    name: str
    notebook: Notebook
    needs: tuple[str, ...]
    matrix: dict[str, list[Any]]
    parameters: dict[str, Any]
    timeout_s: int
    """Seconds after which a cell is stopped."""

    def members(self) -> list[Member]:
        """Return the runs of this step, in matrix order (the last axis varies fastest)."""
        members = []
        for values in itertools.product(*self.matrix.values()):
            point = dict(zip(self.matrix, values, strict=True))
            label = ",".join(f"{name}={value}" for name, value in point.items())
            members.append(Member(step=self.name, label=label, parameters=self.parameters | point))
        return members


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A checked experiment file: every notebook exists, every parameter is known, no cycles."""

    name: str
    description: str
    file: Path
    root: Path
    """Folder that relative paths start from."""
    llm: GatewayConfig
    """How its notebooks call models, and in ``budgets.experiment`` the most that may be billed."""
    steps: dict[str, Step]
    """In an order that satisfies every need."""


def load_experiment(
    file: Path, *, overrides: tuple[str, ...] = (), rehearsal: bool = False
) -> Experiment:
    """Return the experiment that a YAML file describes.

    Args:
        file: The experiment file; notebooks are looked up in ``notebooks/`` of its project.
        overrides: ``step.parameter=value``, the value in YAML; a matrix axis takes a list.
        rehearsal: Take the smaller parameters that the file gives for a rehearsal; the experiment
            is then called ``<name>-rehearsal``, so that nobody takes its results for the real ones.

    Raises:
        ConfigError: If anything in it is unknown, misspelt, ill-typed or circular. The message
            names the file, the field and the fix.
    """
    document = _read_yaml(file)
    refuse_unknown(document, known=_TOP_KEYS, where=f"{file}")
    name = document.get("name", file.stem)
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]{1,100}", name):
        raise ConfigError(f"{file}: name: {name!r}; use letters, digits, '-' and '_'")
    steps = document.get("steps")
    if not isinstance(steps, dict) or not steps:
        raise ConfigError(f"{file}: steps: missing; give at least one step with a notebook")
    root = project_root(file.resolve().parent)
    parsed = {step: _step(step, value, file, root) for step, value in steps.items()}
    if rehearsal:
        name += _REHEARSAL
        overrides = (*_rehearsal(document, file), *overrides)
    for override in overrides:
        _override(parsed, override)
    for step in parsed.values():
        _check_step(step, parsed, file)
    return Experiment(
        name=name,
        description=str(document.get("description", "")),
        file=file,
        root=root,
        llm=_llm(document, file, root),
        steps={step: parsed[step] for step in _order(parsed, file)},
    )


def _rehearsal(document: Mapping[str, Any], file: Path) -> tuple[str, ...]:
    smaller = document.get("rehearsal")
    if not isinstance(smaller, dict) or not smaller:
        raise ConfigError(
            f"{file}: rehearsal: missing; write a mapping of step.parameter to a smaller value"
        )
    return tuple(f"{name}={yaml.safe_dump(value).strip()}" for name, value in smaller.items())


def resolve(value: Any, results: Mapping[str, Results], *, where: str) -> Any:
    """Return a parameter value with its ``${steps.<name>.<field>}`` references filled in.

    A value that is one reference keeps the type of what it refers to; a step with a matrix gives
    a list with one item per member.

    Args:
        value: Any parameter value; lists and dicts are searched.
        results: Step → its result; of a step with a matrix, the list of its members' results.
        where: File and field for messages.

    Raises:
        ConfigError: If a result lacks the field.
    """
    if isinstance(value, list):
        return [resolve(item, results, where=where) for item in value]
    if isinstance(value, dict):
        return {key: resolve(item, results, where=where) for key, item in value.items()}
    if not isinstance(value, str):
        return value
    if whole := _REFERENCE.fullmatch(value):
        return _look_up(whole, results, where)
    return _REFERENCE.sub(lambda match: str(_look_up(match, results, where)), value)


def _look_up(match: re.Match[str], results: Mapping[str, Results], where: str) -> Any:
    step, name = match.groups()
    given = results[step]
    found = []
    for result in given if isinstance(given, list) else [given]:
        if name not in result:
            known = ", ".join(sorted(result))
            raise ConfigError(
                f"{where}: {match.group()}: step {step!r} gave no {name!r}; it gave: {known}"
            )
        found.append(result[name])
    return found if isinstance(given, list) else found[0]


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that is written twice, which YAML loaders otherwise accept silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            fault = ""
            if not isinstance(key, yaml.ScalarNode):
                fault = "a key must be a plain word"
            elif key.value in seen:
                fault = f"{key.value!r} is written twice"
            if fault:
                raise yaml.constructor.ConstructorError(None, None, fault, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        document = yaml.load(file.read_text(encoding="utf-8"), Loader=_StrictLoader)  # noqa: S506 - safe subclass
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such experiment file") from None
    except IsADirectoryError:
        raise ConfigError(f"{file}: is a folder; name the experiment file in it") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{file}: empty or not a mapping; it needs 'name' and 'steps'")
    return document


def _step(name: Any, value: Any, file: Path, root: Path) -> Step:
    where = f"{file}: steps.{name}"
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"{where}: a step's name is letters, digits and '_', first a letter")
    if not isinstance(value, dict) or not isinstance(value.get("notebook"), str):
        raise ConfigError(f"{where}: needs `notebook: <name>`")
    refuse_unknown(value, known=_STEP_KEYS, where=where)
    needs, matrix = value.get("needs", []), value.get("matrix", {})
    parameters, timeout_s = value.get("parameters", {}), value.get("timeout_s", 3600)
    if not isinstance(needs, list) or not all(isinstance(need, str) for need in needs):
        raise ConfigError(f"{where}.needs: {needs!r}; write a list of step names")
    if not isinstance(matrix, dict) or not isinstance(parameters, dict):
        raise ConfigError(f"{where}: matrix and parameters are mappings of parameter to value")
    if type(timeout_s) is not int or timeout_s <= 0:
        raise ConfigError(f"{where}.timeout_s: {timeout_s!r}; write seconds > 0")
    file_name = f"{value['notebook'].removesuffix('.ipynb')}.ipynb"
    return Step(
        name=name,
        notebook=read_notebook(root / "notebooks" / file_name),
        needs=tuple(needs),
        matrix=dict(matrix),
        parameters=dict(parameters),
        timeout_s=timeout_s,
    )


def _llm(document: Mapping[str, Any], file: Path, root: Path) -> GatewayConfig:
    """Return how models are called; the smaller of both limits on the experiment counts."""
    section = document.get("llm")
    config = parse({} if section is None else section, where=f"{file}: llm", root=root)
    if (budget := document.get("budget_usd")) is None:
        return config
    own = config.budgets.experiment
    limit = usd(budget) if own is None else min(own, usd(budget))
    return replace(config, budgets=replace(config.budgets, experiment=limit))


def _override(steps: dict[str, Step], override: str) -> None:
    target, equals, text = override.partition("=")
    step, dot, parameter = target.partition(".")
    if not equals or not dot:
        raise ConfigError(f"--set {override}: write step.parameter=value")
    if step not in steps:
        raise ConfigError(f"--set {override}: unknown step {step!r}; known: {', '.join(steps)}")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set {override}: the value is not YAML") from None
    if parameter in steps[step].matrix:
        steps[step].matrix[parameter] = value if isinstance(value, list) else [value]
    else:
        steps[step].parameters[parameter] = "" if value is None else value


def _check_step(step: Step, steps: dict[str, Step], file: Path) -> None:
    where = f"{file}: steps.{step.name}"
    for need in step.needs:
        if need not in steps:
            raise ConfigError(f"{where}.needs: unknown step {need!r}; {suggest(need, steps)}")
    for axis, values in step.matrix.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{where}.matrix.{axis}: {values!r}; write a list of values")
        if axis in step.parameters:
            raise ConfigError(f"{where}: {axis!r} stands in matrix and in parameters; keep one")
        if len({str(value) for value in values}) < len(values):
            raise ConfigError(f"{where}.matrix.{axis}: a value is written twice")
        for value in values:
            check_parameters(step.notebook, {axis: value}, where=f"{where}.matrix")
            _check_references(value, step, steps, f"{where}.matrix.{axis}")
    check_parameters(step.notebook, step.parameters, where=f"{where}.parameters")
    for name, value in step.parameters.items():
        _check_references(value, step, steps, f"{where}.parameters.{name}")


def _check_references(value: Any, step: Step, steps: dict[str, Step], where: str) -> None:
    text = str(value)
    if text.count("${") != len(_REFERENCE.findall(text)):
        raise ConfigError(f"{where}: {value!r}; write a reference as ${{steps.<name>.<field>}}")
    for name, _ in _REFERENCE.findall(text):
        if name not in steps:
            raise ConfigError(f"{where}: unknown step {name!r}; known: {', '.join(steps)}")
        if name not in step.needs:
            raise ConfigError(f"{where}: uses step {name!r}; add it to needs of {step.name!r}")


def _order(steps: dict[str, Step], file: Path) -> list[str]:
    needs = {name: step.needs for name, step in steps.items()}
    try:
        return list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        circle = " → ".join(reversed(error.args[1]))
        raise ConfigError(f"{file}: needs go in a circle: {circle}; remove one of them") from None
