"""Members on a Dask cluster inside this process, and what a worker does that loses its lease."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from sqlalchemy import event

from dask_processes import kernels, scheduler, wait_until
from notebook_projects import make_project, write_experiment, write_notebook
from workbench.core.errors import ConfigError, StoreError, WorkerLost
from workbench.notebook import member
from workbench.notebook.experiment import load_experiment
from workbench.notebook.runner import Runner
from workbench.store.database import open_store
from workbench.store.leases import hold
from workbench.store.records import Run, now

distributed = pytest.importorskip("distributed")


def check_charged_once(store):
    charged = Counter((row.job, row.resource) for row in store.ledger.rows())
    assert set(charged.values()) == {1}


def runner(file: Path, store, *, executor: str, tell=lambda _: None) -> Runner:
    experiment = load_experiment(file)
    return Runner(experiment, store=store, jobs=9, cores=1, tell=tell, executor=executor)


@pytest.mark.slow
def test_an_experiment_runs_on_a_cluster_and_is_skipped_on_threads(tmp_path, store):
    events = []
    with scheduler(2) as address:
        assert runner(make_project(tmp_path), store, executor=address, tell=events.append).run()
    assert Counter(one.kind for one in events) == {"started": 6, "succeeded": 6}
    (total,) = store.runs.current("trial", kind="total")
    assert total.result["total"] == 5 * (1 + 4 + 9 + 16)
    assert (Path(total.folder) / "notebook.ipynb").is_file()
    assert total.cpu_s > 0
    check_charged_once(store)
    assert {run.id for run in store.runs.find()} <= {row.job for row in store.ledger.rows()}
    file = tmp_path / "experiments" / "trial.yaml"
    experiment = load_experiment(file)
    assert Runner(experiment, store=store, jobs=1, cores=1, tell=events.append).run()
    assert Counter(one.kind for one in events)["skipped"] == 6


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_one_experiment_has_one_runner_on_all_machines(tmp_path, store, executor):
    """Another machine has a home of its own, and the same database."""
    write_notebook(tmp_path, "one")
    file = write_experiment(tmp_path, {"one": {"notebook": "one"}})
    settings = replace(store.settings, home=tmp_path / "other")
    other, refused = open_store(settings), []

    def meanwhile(event):
        if event.kind == "started":
            with pytest.raises(ConfigError, match=r"is running already in .*: 'experiment "):
                runner(file, other, executor=executor).run()
            refused.append([run.state for run in store.runs.find()])

    assert runner(file, store, executor="threads", tell=meanwhile).run()
    other.engine.dispose()
    assert refused == [["running"]]
    assert [run.state for run in store.runs.find()] == ["succeeded"]
    assert store.runs.experiment("trial")["state"] == "succeeded"


@pytest.mark.slow
def test_a_sweep_on_processes_goes_on_when_one_is_killed(tmp_path, store):
    body = (
        f"import os, pathlib, time\nfolder = pathlib.Path({str(tmp_path)!r})\n"
        "(folder / f'mark-{os.getpid()}').touch()\n"
        "if len(list(folder.glob('mark-*'))) == 1:\n    time.sleep(60)"
    )
    write_notebook(tmp_path, "one", body=body)
    file = write_experiment(tmp_path, {"one": {"notebook": "one"}})
    killed = []

    def kill():
        wait_until(lambda: list(tmp_path.glob("mark-*")))
        for child in psutil.Process().children():
            if "spawn_main" in " ".join(child.cmdline()):
                killed.append(child.pid)
                child.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    assert runner(file, store, executor="processes").run()
    killer.join()
    assert killed
    assert sorted(run.state for run in store.runs.find()) == ["lost", "succeeded"]
    check_charged_once(store)
    assert kernels(store.home) == []


@pytest.mark.parametrize("spec", ["dask//x", "dask://", "dask://h:1/x", "thread", "ray"])
def test_an_executor_that_is_none_is_refused_before_anything_starts(tmp_path, store, spec):
    with pytest.raises(ConfigError, match="no executor"):
        runner(make_project(tmp_path), store, executor=spec)


@pytest.fixture
def task(tmp_path, store):
    """A run of a notebook that takes a minute the first time, as a worker is told of it."""
    body = (
        f"import pathlib, time\nmark = pathlib.Path({str(tmp_path / 'mark')!r})\n"
        "if not mark.exists():\n    mark.touch()\n    time.sleep(60)"
    )
    notebook = write_notebook(tmp_path, "slow", body=body)
    file = write_experiment(tmp_path, {"slow": {"notebook": "slow"}})
    folder = store.home / "trial" / "slow" / "run-1"
    folder.mkdir(parents=True)
    run = Run(
        id="run-1", experiment="trial", step="slow", notebook="slow", phase="training",
        fingerprint="f", parameters={}, state="running", owner="tester", folder=str(folder),
        started_at=now(),
    )  # fmt: skip
    store.runs.add(run)
    with hold(store.engine, "experiment:trial", holder="test") as lease:
        yield member.Task(
            environment=store.settings.to_environment(), run_id=run.id, folder=run.folder,
            root=str(file.parents[1]), notebook="notebooks/slow.ipynb",
            notebook_sha256=member.file_sha256(notebook), threads=1, timeout_s=90,
            asked_by=(lease.name, lease.token), host=member.platform.node(),
        )  # fmt: skip


def test_a_worker_cut_off_kills_its_kernel_and_another_runs_it_once_more(
    tmp_path, store, task, monkeypatch
):
    """Its own connections fail from some moment on; everybody else's go on."""
    cut = threading.Event()

    def open_own(settings):
        own = open_store(settings)

        @event.listens_for(own.engine, "before_cursor_execute")
        def fail(*_):
            if cut.is_set():
                raise StoreError("the network was cut")

        return own

    monkeypatch.setattr(member, "_LEASE_S", 3.0)
    with ThreadPoolExecutor(1) as pool, monkeypatch.context() as patch:
        patch.setattr(member, "open_store", open_own)
        first = pool.submit(member.run_task, task)
        wait_until((tmp_path / "mark").exists)
        cut.set()
        with pytest.raises(WorkerLost, match="out of reach while run run-1"):
            first.result(30)
    assert kernels(store.home) == []
    before = store.runs.get("run-1")
    assert (before.state, before.result) == ("running", {})  # nothing was written

    again = member.run_task(task)
    old, new = store.runs.get("run-1"), store.runs.get(again)
    assert (old.state, old.result) == ("lost", {"again": again})
    assert (new.state, new.folder != old.folder) == ("succeeded", True)
    assert member.run_task(task) == again  # whoever asks once more gets what is there
    assert len(store.runs.find()) == 2
    assert {row.job for row in store.ledger.rows()} == {"run-1", again}
    check_charged_once(store)


def test_two_workers_with_the_same_task_run_it_once(tmp_path, store, task):
    (tmp_path / "mark").touch()
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(member.run_task, task) for _ in range(2)]
        assert [one.result(60) for one in both] == ["run-1", "run-1"]
    assert [run.state for run in store.runs.find()] == ["succeeded"]
    check_charged_once(store)


def test_a_worker_stops_when_nobody_waits_any_more(tmp_path, store, task):
    orphan = replace(task, asked_by=(task.asked_by[0], "another"))
    with pytest.raises(WorkerLost, match="nobody waits"):
        member.run_task(orphan)
    assert store.runs.get("run-1").kernel_pid == 0  # it never began


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"host": "elsewhere"},
            "cannot share the SQLite file of elsewhere; set WORKBENCH_DATABASE",
        ),
        ({"folder": "/nowhere/run-1"}, "has no /nowhere/run-1; mount home and project"),
        ({"notebook": "notebooks/none.ipynb"}, "has no .*none.ipynb; mount"),
        ({"notebook_sha256": "0"}, "has another .*slow.ipynb than"),
    ],
)
def test_a_worker_that_has_not_what_it_needs_is_refused(store, task, change, words):
    with pytest.raises(ConfigError, match=words):
        member.run_task(replace(task, **change))
    assert store.runs.get("run-1").state == "running"
