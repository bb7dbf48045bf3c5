"""Typed parameters of a notebook, read from its tagged cell and checked before anything starts."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.core.errors import ConfigError, DataError
from workbench.core.fields import suggest
from workbench.core.provenance import without_magics
from workbench.store.records import PHASES

__all__ = ["Notebook", "Parameter", "check_parameters", "input_files", "read_notebook"]

_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
    "list": (list,),
    "dict": (dict,),
    "Path": (str,),
}


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One line of the parameters cell: ``name: type = default  # help``."""

    name: str
    type: str
    """One of int, float, str, bool, list, dict, Path; a Path's file counts as input."""
    default: Any
    help: str


@dataclass(frozen=True, kw_only=True)
class Notebook:
    """What the runner needs to know of a notebook, without executing it."""

    path: Path
    code: str
    """All code cells, parameters cell included."""
    parameters: Mapping[str, Parameter]
    phase: str
    """Ledger phase, from the notebook's metadata."""


def read_notebook(path: Path) -> Notebook:
    """Return a notebook's code, parameters and phase.

    Raises:
        ConfigError: If the file is missing or its parameters cell cannot be understood.
        DataError: If it is not a notebook.
    """
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.ipynb"))) or "none"
        raise ConfigError(f"{path}: no such notebook; there are: {known}")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        cells = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
        sources = [without_magics("".join(cell["source"])) for cell in cells]
        tagged = [
            source
            for cell, source in zip(cells, sources, strict=True)
            if "parameters" in cell.get("metadata", {}).get("tags", [])
        ]
        phase = document["metadata"].get("workbench", {}).get("phase", "assessment")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a notebook ({error}); save it in JupyterLab") from error
    if len(tagged) > 1:
        raise ConfigError(f"{path}: {len(tagged)} cells are tagged 'parameters'; keep one")
    for number, source in enumerate(sources, 1):
        try:
            ast.parse(source)
        except SyntaxError as error:
            raise ConfigError(
                f"{path}: code cell {number} is not Python, line {error.lineno}: {error.msg}"
            ) from error
    if phase not in PHASES:
        raise ConfigError(
            f"{path}: metadata.workbench.phase is {phase!r}; use one of {', '.join(PHASES)}"
        )
    return Notebook(
        path=path,
        code="\n\n".join(sources),
        parameters=_parse(tagged[0], path) if tagged else {},
        phase=phase,
    )


def check_parameters(notebook: Notebook, values: Mapping[str, Any], *, where: str) -> None:
    """Refuse values whose name or type the notebook does not declare.

    Args:
        notebook: The notebook that will get them.
        values: Name → value. References like ``${steps.pairs.version}`` are checked once resolved.
        where: File and field for messages.

    Raises:
        ConfigError: If a name is unknown or a value has another type than declared.
    """
    for name, value in values.items():
        parameter = notebook.parameters.get(name)
        if parameter is None:
            raise ConfigError(
                f"{where}.{name}: {notebook.path.name} has no such parameter;"
                f" {suggest(name, notebook.parameters)}"
            )
        if isinstance(value, str) and "${" in value:
            continue
        allowed = _TYPES[parameter.type]
        is_bool_by_mistake = isinstance(value, bool) and bool not in allowed
        if is_bool_by_mistake or not isinstance(value, allowed):
            raise ConfigError(
                f"{where}.{name}: {value!r} is a {type(value).__name__}; write a {parameter.type}"
                f" such as {parameter.default!r}"
            )


def input_files(notebook: Notebook, values: Mapping[str, Any]) -> list[str]:
    """Return the files that values name: ``Path`` parameters, ``path`` inside lists and dicts."""
    found: list[str] = []
    for name, value in values.items():
        is_path = notebook.parameters[name].type == "Path"
        found.extend(_paths_inside({"path": value} if is_path else value))
    return found


def _paths_inside(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "path" and isinstance(inner, str) and inner:
                yield inner
            else:
                yield from _paths_inside(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _paths_inside(inner)


def _parse(source: str, path: Path) -> dict[str, Parameter]:
    lines = source.splitlines()
    parameters: dict[str, Parameter] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ImportFrom):  # `from pathlib import Path`, for the annotation
            continue
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            raise ConfigError(
                f"{path}: parameters cell, line {node.lineno}: write `name: type = default  # help`"
            )
        kind = ast.unparse(node.annotation)
        if kind not in _TYPES:
            raise ConfigError(
                f"{path}: parameter {node.target.id!r} has type {kind!r};"
                f" use one of {', '.join(_TYPES)}"
            )
        parameters[node.target.id] = Parameter(
            name=node.target.id,
            type=kind,
            default=_default(node, path),
            help=lines[(node.end_lineno or node.lineno) - 1].partition("# ")[2].strip(),
        )
    return parameters


def _default(node: ast.AnnAssign, path: Path) -> Any:
    try:
        return ast.literal_eval(node.value) if node.value else None
    except ValueError:
        raise ConfigError(
            f"{path}: parameters cell, line {node.lineno}: the default must be a plain value"
        ) from None
