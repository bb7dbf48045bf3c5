"""What the runner adds to a notebook, beside the bare papermill command.

An empty notebook is run many times in one experiment. Its own work is what its kernel used (start
and imports included), as the run table says; the rest of the whole process tree is the runner's.
The slope between a small and a large experiment leaves out what is paid once.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import yaml

from measure import WORKBENCH, call, publish
from workbench.core.settings import read_settings
from workbench.store.database import open_store

SIZES = (4, 12)
PAPERMILL_TIMES = 3


def main() -> None:
    """Measure and publish."""
    rows = []
    with TemporaryDirectory() as folder:
        root = Path(folder)
        _write_notebook(root)
        totals, own = {}, {}
        for size in SIZES:
            home = root / f"home-{size}"
            totals[size], own[size] = _run(root, home, size)
            rows.append(_row(f"workbench, {size} notebooks", totals[size], own[size], size))
        step = SIZES[1] - SIZES[0]
        slope, slope_own = totals[SIZES[1]] - totals[SIZES[0]], own[SIZES[1]] - own[SIZES[0]]
        rows.append(_row("workbench, one more notebook", slope, slope_own, step))
        rows.append(_papermill(root))
    publish("runner", rows)


def _row(what: str, total: float, own: float, notebooks: int) -> dict[str, object]:
    return {
        "what": what,
        "cpu_s_per_notebook": total / notebooks,
        "kernel_cpu_s": own / notebooks,
        "runner_cpu_s": (total - own) / notebooks,
    }


def _write_notebook(root: Path) -> None:
    cells = [
        nbformat.v4.new_code_cell(
            "number: int = 0  # of the run", metadata={"tags": ["parameters"]}
        ),
        nbformat.v4.new_code_cell("from workbench.notebook.result import begin\nsession = begin()"),
        nbformat.v4.new_code_cell("pass"),
        nbformat.v4.new_code_cell("session.finish({'kind': 'empty'});"),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    (root / "notebooks").mkdir()
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata=kernel), root / "notebooks" / "empty.ipynb"
    )


def _run(root: Path, home: Path, size: int) -> tuple[float, float]:
    """Return CPU seconds of the whole tree, and of the kernels alone."""
    (root / "experiments").mkdir(exist_ok=True)
    step = {"notebook": "empty", "matrix": {"number": list(range(size))}}
    file = root / "experiments" / "empty.yaml"
    file.write_text(yaml.safe_dump({"name": "empty", "steps": {"empty": step}}), encoding="utf-8")
    variables = {"WORKBENCH_HOME": str(home)}
    used = call(
        [WORKBENCH, "run", str(file), "--no-report", "--jobs", "2"], cwd=root, variables=variables
    )
    status = call([WORKBENCH, "status", "empty", "--json"], cwd=root, variables=variables)
    return used.cpu_s, sum(run["cpu_s"] for run in json.loads(status.output))


def _papermill(root: Path) -> dict[str, object]:
    notebook = str(root / "notebooks" / "empty.ipynb")
    output = str(root / "out.ipynb")
    command = [sys.executable, "-m", "papermill", notebook, output, "--no-progress-bar"]
    variables = {"WORKBENCH_HOME": str(root / "home-papermill")}
    uses = [call(command, cwd=root, variables=variables) for _ in range(PAPERMILL_TIMES)]
    # by hand, the notebook's run is in the run table as well
    store = open_store(read_settings(variables))
    own = sum(run.cpu_s for run in store.runs.find(experiment="by-hand"))
    store.engine.dispose()
    return _row("bare papermill command", sum(use.cpu_s for use in uses), own, PAPERMILL_TIMES)


if __name__ == "__main__":
    main()
