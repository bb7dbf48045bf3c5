"""How much longer a sweep takes on a Dask cluster of this machine than on threads.

64 empty notebooks, two at a time, on either executor in turn. A first step of as many notebooks as
run at a time comes before, so that starting a cluster, and imports in its workers, are not counted.

Usage: python benchmarks/bench_fanout.py [NOTEBOOKS] [ROUNDS]
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import nbformat
import yaml

from measure import publish
from workbench.core.settings import read_settings
from workbench.notebook.experiment import load_experiment
from workbench.notebook.runner import Event, Runner
from workbench.store.database import open_store

JOBS = 2
EXECUTORS = ("threads", "dask")


def main(notebooks: int = 64, rounds: int = 2) -> None:
    """Measure and publish."""
    walls: dict[str, list[float]] = {name: [] for name in EXECUTORS}
    with TemporaryDirectory() as folder:
        file = _write_experiment(Path(folder), notebooks)
        for at in range(rounds):
            for executor in EXECUTORS:
                walls[executor].append(_wall_s(file, Path(folder) / f"{executor}-{at}", executor))
    rows: list[dict[str, object]] = []
    for executor, seconds in walls.items():
        wall_s = median(seconds)
        rows.append(
            {
                "executor": executor,
                "notebooks": notebooks,
                "rounds": rounds,
                "wall_s": wall_s,
                "fastest_s": min(seconds),
                "per_notebook_s": wall_s / notebooks,
                "to_threads": wall_s / median(walls["threads"]),
            }
        )
    publish("fanout", rows)


def _write_experiment(root: Path, notebooks: int) -> Path:
    cells = [
        nbformat.v4.new_code_cell(
            "number: int = 0  # of the run", metadata={"tags": ["parameters"]}
        ),
        nbformat.v4.new_code_cell("from workbench.notebook.result import begin\nsession = begin()"),
        nbformat.v4.new_code_cell("session.finish({'kind': 'empty'});"),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    (root / "notebooks").mkdir()
    (root / "experiments").mkdir()
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
    nbformat.write(notebook, root / "notebooks" / "empty.ipynb")
    steps = {
        "warm": {"notebook": "empty", "matrix": {"number": [-1 - at for at in range(JOBS)]}},
        "sweep": {
            "notebook": "empty", "needs": ["warm"], "matrix": {"number": list(range(notebooks))}
        },
    }  # fmt: skip
    file = root / "experiments" / "empty.yaml"
    file.write_text(yaml.safe_dump({"name": "empty", "steps": steps}), encoding="utf-8")
    return file


def _wall_s(file: Path, home: Path, executor: str) -> float:
    """Return the seconds from the first start to the last end of the sweep."""
    times: list[float] = []

    def tell(event: Event) -> None:
        if event.member.step == "sweep":
            times.append(time.perf_counter())

    settings = replace(read_settings({"WORKBENCH_HOME": str(home)}), user="bench")
    store = open_store(settings)
    experiment = load_experiment(file)
    runner = Runner(experiment, store=store, jobs=JOBS, cores=JOBS, tell=tell, executor=executor)
    if not runner.run():
        failed = [run.error for run in store.runs.find() if run.error]
        raise SystemExit(f"{executor}: {failed[:3]}")
    store.engine.dispose()
    return times[-1] - times[0]


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
