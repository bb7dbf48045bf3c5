"""Every notebook that ships is stripped, typed, explained, short, and ends by finishing."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import nbformat
import pytest

from workbench.notebook.parameters import check_parameters, read_notebook
from workbench.store.records import PHASES

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MOST_LOGIC_LINES = 30

pytestmark = pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)


def cells_of(file: Path, kind: str) -> list[dict[str, Any]]:
    document = json.loads(file.read_text(encoding="utf-8"))
    return [cell for cell in document["cells"] if cell["cell_type"] == kind]


def is_parameters(cell: dict[str, Any]) -> bool:
    return "parameters" in cell["metadata"].get("tags", [])


def statements(file: Path) -> list[ast.stmt]:
    """Return all statements outside the parameters cell."""
    found: list[ast.stmt] = []
    for cell in cells_of(file, "code"):
        if not is_parameters(cell):
            tree = ast.parse("".join(cell["source"]))
            found += [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    return found


def test_it_is_valid_and_stripped(file):
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) >= (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    ids = [cell["id"] for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    for cell in cells_of(file, "code"):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None


def test_it_opens_with_a_title_and_what_it_leaves(file):
    first = json.loads(file.read_text(encoding="utf-8"))["cells"][0]
    assert first["cell_type"] == "markdown"
    text = "".join(first["source"])
    assert text.startswith(f"# {file.stem[:2]} · ")
    assert "leaves" in text.lower()


def test_its_parameters_are_typed_and_explained(file):
    tagged = [cell for cell in cells_of(file, "code") if is_parameters(cell)]
    assert len(tagged) == 1
    assert cells_of(file, "code")[0] == tagged[0]
    notebook = read_notebook(file)
    assert notebook.parameters
    for parameter in notebook.parameters.values():
        assert parameter.help, f"{parameter.name} has no help"
        check_parameters(notebook, {parameter.name: parameter.default}, where=file.name)


def test_its_phase_is_one_of_the_ledger(file):
    document = json.loads(file.read_text(encoding="utf-8"))
    assert document["metadata"]["workbench"]["phase"] in PHASES


def test_its_last_code_cell_finishes(file):
    last = "".join(cells_of(file, "code")[-1]["source"])
    calls = [node for node in ast.walk(ast.parse(last)) if isinstance(node, ast.Call)]
    assert "session.finish" in [ast.unparse(call.func) for call in calls]


def logic_lines(file: Path) -> int:
    """Return how many lines are neither blank, comment, import nor parameter."""
    count = 0
    for cell in cells_of(file, "code"):
        source = "".join(cell["source"])
        if is_parameters(cell):
            continue
        imports = {
            number
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
        }
        for number, line in enumerate(source.splitlines(), 1):
            is_said = line.strip() and not line.strip().startswith("#")
            count += bool(is_said and number not in imports)
    return count


def test_it_is_a_story_not_a_program(file):
    assert logic_lines(file) <= MOST_LOGIC_LINES


def test_it_reads_no_environment_and_no_clock(file):
    imported = {
        alias.name
        for node in statements(file)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert not imported & {"os", "time", "datetime", "random", "subprocess"}
