"""The run table: what is settled is settled once, with its costs or not at all."""

from __future__ import annotations

import multiprocessing
from decimal import Decimal

import pytest

from workbench.core.errors import ConfigError
from workbench.core.settings import read_settings
from workbench.store.database import open_store
from workbench.store.records import LedgerRow, Run, now


def run(run_id="run-1", *, state="running", kind="training", **fields):
    facts = {
        "experiment": "trial",
        "step": "train",
        "notebook": "02_train_phase",
        "phase": "training",
        "fingerprint": "f",
        "parameters": {"seed": 0, "gains": [0.5, 1.0]},
        "owner": "tester",
        "folder": "runs/1",
        "started_at": now(),
        "result": {"kind": kind} if state == "succeeded" else {},
    }
    return Run(id=run_id, state=state, **{**facts, **fields})


def costs(job="run-1", count=2):
    return [
        LedgerRow(
            who="t", job=job, experiment="trial", phase="training", resource="cpu",
            quantity=1.0, unit="core_s", usd=Decimal("0.1"), price_version="p",
        )
        for _ in range(count)
    ]  # fmt: skip


def test_a_run_comes_back_equal(store):
    one = run(member="seed=0", error="<b>\n", result={"deep": [{"ä": 1.5}]}, peak_rss_mb=1.5)
    store.runs.add(one)
    assert store.runs.get("run-1") == one
    store.runs.update("run-1", kernel_pid=7, cpu_s=2.5)
    assert (store.runs.get("run-1").kernel_pid, store.runs.get("run-1").cpu_s) == (7, 2.5)


def test_an_unknown_run_names_the_command_that_lists_them(store):
    with pytest.raises(ConfigError, match="no run 'nope'; `workbench status` lists them"):
        store.runs.get("nope")


# -- settle --------------------------------------------------------------------------------------


def test_settling_closes_the_run_and_books_its_costs(store):
    store.runs.add(run())
    store.runs.settle("run-1", costs(), state="succeeded", wall_s=3.0)
    assert store.runs.get("run-1").state == "succeeded"
    assert store.runs.get("run-1").wall_s == 3.0
    assert len(store.ledger.rows(jobs=["run-1"])) == 2


@pytest.mark.parametrize("again", ["lost", "failed", "succeeded"])
def test_a_run_is_settled_once(store, again):
    store.runs.add(run())
    store.runs.settle("run-1", costs(), state="succeeded")
    before = store.runs.get("run-1")
    store.runs.settle("run-1", costs(count=5), state=again, error="later")
    assert store.runs.get("run-1") == before
    assert len(store.ledger.rows(jobs=["run-1"])) == 2


def test_a_run_that_is_not_there_costs_nothing(store):
    store.runs.settle("nope", costs("nope"), state="succeeded")
    assert store.ledger.rows() == []


def broken_costs():
    yield from costs()
    raise RuntimeError("the price table is gone")


def bad_row():
    good = costs()
    return [*good, LedgerRow(**{**vars(good[0]), "resource": None})]


@pytest.mark.parametrize("give", [broken_costs, bad_row])
def test_costs_that_cannot_be_booked_leave_the_run_running(store, give):
    store.runs.add(run())
    with pytest.raises(Exception, match=r"price table|NOT NULL"):
        store.runs.settle("run-1", give(), state="succeeded")
    assert store.runs.get("run-1").state == "running"
    assert store.ledger.rows() == []
    store.runs.settle("run-1", costs(), state="lost")  # it can still be told
    assert store.runs.get("run-1").state == "lost"


def _settle(home, barrier, state):
    store = open_store(read_settings({"WORKBENCH_HOME": home, "WORKBENCH_USER": "t"}))
    barrier.wait(60)
    store.runs.settle("run-1", costs(), state=state)
    store.engine.dispose()


def test_of_processes_that_settle_at_once_one_wins_and_books(store):
    store.runs.add(run())
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    processes = [
        context.Process(target=_settle, args=(str(store.home), barrier, state))
        for state in ("succeeded", "failed", "lost")
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert store.runs.get("run-1").state != "running"
    assert len(store.ledger.rows(jobs=["run-1"])) == 2


# -- finding -------------------------------------------------------------------------------------


def test_runs_are_found_by_all_that_is_given_oldest_first(store):
    store.runs.add(run("b", started_at="2026-01-02", fingerprint="x"))
    store.runs.add(run("a", started_at="2026-01-01", fingerprint="x", state="succeeded"))
    store.runs.add(run("c", started_at="2026-01-01", step="laws", experiment="other"))
    ids = lambda **wanted: [one.id for one in store.runs.find(**wanted)]  # noqa: E731
    assert ids() == ["a", "c", "b"]
    assert ids(fingerprint="x") == ["a", "b"]
    assert ids(fingerprint="x", state="running") == ["b"]
    assert ids(experiment="trial", step="laws") == []
    assert ids(state="") == []


def test_ids_give_succeeded_runs_in_their_own_order(store):
    for name in ("a", "b", "c"):
        store.runs.add(run(name, state="failed" if name == "b" else "succeeded"))
    assert [one.id for one in store.runs.by_ids(["c", "b", "nope", "a"])] == ["c", "a"]
    assert store.runs.by_ids([]) == []


# -- experiments ---------------------------------------------------------------------------------


def set_members(store, members, state="running", name="trial"):
    store.runs.set_experiment(name, file="t.yaml", members=members, state=state, owner="t")


def test_an_experiment_is_what_its_members_are_now(store):
    for name in ("old", "new", "other"):
        store.runs.add(run(name, state="succeeded", kind="laws" if name == "other" else "training"))
    set_members(store, {"train": ["old", None], "laws": [None]})
    assert [one.id for one in store.runs.current("trial")] == ["old"]
    set_members(store, {"train": ["new", None], "laws": ["other"]}, state="succeeded")
    assert [one.id for one in store.runs.current("trial")] == ["new", "other"]
    assert [one.id for one in store.runs.current("trial", kind="laws")] == ["other"]
    assert store.runs.current("trial", kind="cost") == []


def test_an_experiment_keeps_its_start_until_it_ends(store):
    set_members(store, {})
    started = store.runs.experiment("trial")["started_at"]
    set_members(store, {"train": [None]})
    assert store.runs.experiment("trial")["started_at"] == started
    assert store.runs.experiment("trial")["finished_at"] == ""
    set_members(store, {}, state="failed")
    ended = store.runs.experiment("trial")
    assert ended["started_at"] == started
    assert ended["finished_at"] > started
    set_members(store, {})
    assert store.runs.experiment("trial")["started_at"] > started


def test_an_experiment_that_never_ran_lists_those_that_did(store):
    with pytest.raises(ConfigError, match="experiment 'tiral' never ran here; known: none"):
        store.runs.experiment("tiral")
    set_members(store, {})
    with pytest.raises(ConfigError, match="known: trial"):
        store.runs.current("tiral")


def test_the_frame_has_a_row_per_run_and_its_columns_without_any(store):
    assert list(store.runs.frame().columns)[:3] == ["id", "experiment", "step"]
    store.runs.add(run("a"))
    store.runs.add(run("b", experiment="other"))
    assert len(store.runs.frame()) == 2
    assert list(store.runs.frame("other")["id"]) == ["b"]
