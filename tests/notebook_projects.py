"""Small projects of trivial notebooks, for tests of the runner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import yaml

__all__ = ["make_project", "write_experiment", "write_notebook"]

WRITE = """\
from workbench.notebook.result import begin
session = begin()
"""


def write_notebook(
    root: Path, name: str, *, parameters: str = "", body: str = "", result: str = "{'kind': 'test'}"
) -> Path:
    """Write a notebook with a parameters cell, a body, and a last cell that finishes."""
    cells = [
        nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(WRITE),
        nbformat.v4.new_code_cell(body),
        nbformat.v4.new_code_cell(f"session.finish({result})" if result else ""),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = nbformat.v4.new_notebook(
        cells=cells, metadata={**kernel, "workbench": {"phase": "training"}}
    )
    path = root / "notebooks" / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def write_experiment(
    root: Path, steps: dict[str, Any], *, name: str = "trial", **fields: Any
) -> Path:
    """Write an experiment file."""
    path = root / "experiments" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"name": name, "steps": steps, **fields}, sort_keys=False))
    return path


def make_project(root: Path, *, seconds: float = 0.0) -> Path:
    """Write a project of six runs, make → square (matrix of 4) → total; return its file."""
    wait = f"import time; time.sleep({seconds})"
    write_notebook(
        root,
        "make",
        parameters="size: int = 3  # how many",
        body=wait,
        result="{'kind': 'make', 'size': size}",
    )
    write_notebook(
        root,
        "square",
        parameters="size: int = 1  # from make\nfactor: int = 1  # times",
        body=wait,
        result="{'kind': 'square', 'value': size * factor ** 2}",
    )
    write_notebook(
        root,
        "total",
        parameters="values: list = []  # to add",
        body=wait,
        result="{'kind': 'total', 'total': sum(values)}",
    )
    return write_experiment(
        root,
        {
            "make": {"notebook": "make", "parameters": {"size": 5}},
            "square": {
                "notebook": "square",
                "needs": ["make"],
                "matrix": {"factor": [1, 2, 3, 4]},
                "parameters": {"size": "${steps.make.size}"},
            },
            "total": {
                "notebook": "total",
                "needs": ["square"],
                "parameters": {"values": "${steps.square.value}"},
            },
        },
    )
