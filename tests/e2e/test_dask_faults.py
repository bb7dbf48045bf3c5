"""A sweep on a real scheduler and real workers, which are killed, restarted, or of other code."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from dask_processes import Site, kernels, open_site, wait_until
from notebook_projects import write_experiment, write_notebook
from workbench.core.settings import read_settings
from workbench.store.database import Store, open_store

pytest.importorskip("distributed")
pytestmark = pytest.mark.slow

KILLS = 20
BODY = """\
import pathlib, time
log = pathlib.Path({log!r})
with log.open("a") as out: out.write(f"begun {{n}} {{session.folder.name}}\\n")
time.sleep({seconds})
with log.open("a") as out: out.write(f"done {{n}} {{session.folder.name}}\\n")
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    home = tmp_path / "experiments" / "runs"
    opened = open_store(read_settings({"WORKBENCH_HOME": str(home), "WORKBENCH_USER": "tester"}))
    yield opened
    opened.engine.dispose()


def sweep(folder: Path, *, members: int, seconds: float) -> Path:
    """Write an experiment of some members that say when they begin and end."""
    body = BODY.format(log=str(folder / "log"), seconds=seconds)
    write_notebook(
        folder, "work", parameters="n: int = 0  # which", body=body, result="{'kind': 'x', 'n': n}"
    )
    step = {"notebook": "work", "matrix": {"n": list(range(members))}}
    return write_experiment(folder, {"work": step})


def run(site: Site, *options: str) -> subprocess.Popen[bytes]:
    return site.workbench(
        "run", "experiments/trial.yaml", "--executor", site.spec, "--no-report", *options,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def said(folder: Path) -> list[list[str]]:
    log = folder / "log"
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def ended(process: subprocess.Popen[bytes], *, seconds: float = 300) -> tuple[int, str]:
    _, errors = process.communicate(timeout=seconds)
    return process.returncode, errors.decode()


def check_truth(store: Store, folder: Path, *, members: int) -> None:
    """Every member finished once, and what was lost on the way is told and charged once."""
    rows = store.runs.find(experiment="trial")
    by_state = Counter(run.state for run in rows)
    assert by_state["succeeded"] == members, by_state
    assert set(by_state) <= {"succeeded", "lost"}
    finished = [run for run in rows if run.state == "succeeded"]
    assert sorted(run.result["n"] for run in finished) == list(range(members))
    begun = Counter(run_id for what, _, run_id in said(folder) if what == "begun")
    assert set(begun.values()) == {1}  # no run was ever executed twice
    done = {run_id for what, _, run_id in said(folder) if what == "done"}
    assert {run.id for run in finished} <= done
    for lost in (run for run in rows if run.state == "lost"):
        assert lost.result["again"] in {run.id for run in rows}
    charged = Counter(row.job for row in store.ledger.rows() if row.phase == "training")
    assert {run.id for run in finished} <= set(charged)
    resources = Counter((row.job, row.resource) for row in store.ledger.rows())
    assert set(resources.values()) == {1}
    assert kernels(store.home) == []


def test_a_killed_worker_costs_the_run_it_had_and_no_other(tmp_path, store):
    sweep(tmp_path, members=3, seconds=4)
    with open_site(tmp_path, workers=2) as site:
        process = run(site)
        wait_until(lambda: len(said(tmp_path)) >= 2, what="two members run")
        site.kill_worker(site.workers[0])
        code, errors = ended(process)
        assert code == 0, errors
    check_truth(store, tmp_path, members=3)
    assert sum(run.state == "lost" for run in store.runs.find()) == 1


def test_a_restarted_scheduler_costs_nothing_that_had_finished(tmp_path, store):
    sweep(tmp_path, members=4, seconds=3)
    with open_site(tmp_path, workers=2) as site:
        process = run(site)
        wait_until(lambda: sum(line[0] == "done" for line in said(tmp_path)) >= 1)
        wait_until(lambda: [r for r in store.runs.find() if r.state == "succeeded"])
        finished = {run.id for run in store.runs.find() if run.state == "succeeded"}
        site.scheduler.kill()
        site.scheduler.wait()
        site.start_scheduler()
        for _ in range(2):  # those of before end with their scheduler, as Dask's do
            site.start_worker()
        code, errors = ended(process)
        assert code == 0, errors
    check_truth(store, tmp_path, members=4)
    assert finished <= {run.id for run in store.runs.current("trial")}


def test_a_worker_of_other_code_is_refused(tmp_path, store):
    sweep(tmp_path, members=3, seconds=2)
    with open_site(tmp_path, workers=1) as site:
        other = site.copy_code("other")
        with (other / "workbench" / "core" / "money.py").open("a") as file:
            file.write("# changed\n")
        process = run(site, "--jobs", "1")
        wait_until(lambda: [r for r in store.runs.find() if r.state == "succeeded"])
        site.start_worker(code=other)
        site.kill_worker(site.workers[0])  # so that what follows goes to the other one
        code, errors = ended(process)
        assert code == 2
        assert "tcp://127.0.0.1:" in errors
        assert errors.count("0.1.0+") == 2
        assert "install the same version on both" in errors
        states = Counter(run.state for run in store.runs.find())
        assert states["succeeded"] >= 1
        assert states["running"] == 0

        code, errors = ended(run(site))  # refused when connected, before anything starts
        assert (code, "has workbench code" in errors) == (2, True)
        assert Counter(run.state for run in store.runs.find()) == states
        site.kill_worker(site.workers[0])
        site.start_worker()
        wait_until(lambda: len(site.workers) == 1)
        code, errors = ended(run(site))
        assert code == 0, errors
    assert sum(run.state == "succeeded" for run in store.runs.find()) == 3  # none of them twice


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_kernels_on_workers_end_with_whoever_asked_for_them(tmp_path, store, how):
    sweep(tmp_path, members=2, seconds=100)
    with open_site(tmp_path, workers=2) as site:
        process = run(site)
        wait_until(lambda: len(said(tmp_path)) == 2 and len(kernels(store.home)) == 2)
        process.send_signal(how)
        code, errors = ended(process, seconds=60)
        if how == signal.SIGINT:
            assert (code, "finished steps are kept" in errors) == (1, True)
        wait_until(lambda: not kernels(store.home), seconds=20, what="the kernels end")
        wait_until(lambda: {r.state for r in store.runs.find()} == {"failed"}, seconds=20)
        assert {run.error for run in store.runs.find()} == {"interrupted"}
        assert all(worker.poll() is None for worker in site.workers)  # ready for others


def test_twenty_kills_of_workers_repeat_nothing_and_lose_nothing(tmp_path, store):
    members, chance = 64, random.Random(9)  # enough for all kills on a fast machine
    sweep(tmp_path, members=members, seconds=1)
    with open_site(tmp_path, workers=3) as site:
        process = run(site)
        wait_until(lambda: said(tmp_path))
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.5, 5))
            assert process.poll() is None, "the sweep ended before all kills"
            site.kill_worker(chance.choice(site.workers))
            site.start_worker()
        code, errors = ended(process, seconds=600)
        assert code == 0, errors
    check_truth(store, tmp_path, members=members)
