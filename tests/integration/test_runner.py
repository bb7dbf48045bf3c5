"""The runner with real kernels on trivial notebooks."""

from __future__ import annotations

import json
import pstats
import signal
import threading
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from notebook_projects import make_project, write_experiment, write_notebook
from workbench.core.errors import BudgetError, ConfigError, StoreError
from workbench.core.money import usd
from workbench.notebook.experiment import load_experiment
from workbench.notebook.plan import check_costs
from workbench.notebook.runner import Runner, plan
from workbench.store.leases import Lease
from workbench.store.records import LedgerRow, Run, now

MEMBERS = 6
PLANTED = """\
session.folder.mkdir(exist_ok=True)
(session.folder / "result.json").write_text('{"run_id": "other"}')
"""


def run(file: Path, store, *, overrides=(), force=False, jobs=2):
    events = []
    experiment = load_experiment(file, overrides=overrides)
    runner = Runner(experiment, store=store, jobs=jobs, cores=1, force=force, tell=events.append)
    return runner.run(), events


def kinds(events, kind):
    return [(e.member.step, e.member.label) for e in events if e.kind == kind]


def test_an_experiment_runs_skips_and_reruns_what_changed(tmp_path, store):
    file = make_project(tmp_path)
    succeeded, events = run(file, store)
    assert succeeded
    assert len(kinds(events, "succeeded")) == MEMBERS
    assert events[-1].done == events[-1].total == MEMBERS
    total = store.runs.current("trial", kind="total")[0]
    assert total.result["total"] == 5 * (1 + 4 + 9 + 16)
    assert {run.state for run in store.runs.find(experiment="trial")} == {"succeeded"}

    # unchanged: nothing runs, the same runs stay current
    succeeded, events = run(file, store)
    assert succeeded
    assert len(kinds(events, "skipped")) == MEMBERS
    assert store.runs.current("trial", kind="total")[0].id == total.id

    # a new matrix point: only it and what needs it
    succeeded, events = run(file, store, overrides=("square.factor=[1,2,3,4,5]",))
    assert kinds(events, "succeeded") == [("square", "factor=5"), ("total", "")]
    assert store.runs.current("trial", kind="total")[0].result["total"] == 5 * 55

    # a changed notebook: it and what needs it, though its result may be equal
    write_notebook(
        tmp_path,
        "make",
        parameters="size: int = 3  # how many",
        body="1 + 1",
        result="{'kind': 'make', 'size': size}",
    )
    dry = plan(load_experiment(file), store)
    assert [e.kind for e in dry] == ["due"] + ["waiting"] * 5
    _, events = run(file, store)
    assert ("make", "") in kinds(events, "succeeded")
    assert len(kinds(events, "succeeded")) == MEMBERS


def test_every_second_of_compute_is_in_the_ledger(tmp_path, store):
    run(make_project(tmp_path), store)
    runs = store.runs.find(experiment="trial")
    rows = store.ledger.rows(experiment="trial")
    cpu = {row.job: row.quantity for row in rows if row.unit == "core_s"}
    of_runs = {job: seconds for job, seconds in cpu.items() if job.startswith("run-")}
    assert of_runs == pytest.approx({run.id: run.cpu_s for run in runs})
    assert len(cpu) == len(runs) + 1  # and one for the runner itself
    assert all(seconds > 0 for seconds in cpu.values())
    assert all(row.estimated for row in rows)
    assert {row.phase for row in rows} == {"training", "assessment"}


def test_a_failing_notebook_blocks_what_needs_it_and_keeps_the_rest(tmp_path, store):
    write_notebook(tmp_path, "fine")
    write_notebook(tmp_path, "boom", body="raise ValueError('no <b>luck</b>\\nat all')")
    steps = {
        "one": {"notebook": "fine"},
        "bad": {"notebook": "boom", "needs": ["one"]},
        "after": {"notebook": "fine", "needs": ["bad"]},
        "aside": {"notebook": "fine"},
    }
    file = write_experiment(tmp_path, steps)
    succeeded, events = run(file, store)
    assert not succeeded
    assert kinds(events, "failed") == [("bad", "")]
    assert kinds(events, "blocked") == [("after", "")]
    assert sorted(kinds(events, "succeeded")) == [("aside", ""), ("one", "")]
    failed = store.runs.find(experiment="trial", state="failed")[0]
    assert failed.error == "cell 2: ValueError: no <b>luck</b> at all"
    assert failed.cpu_s > 0
    assert store.runs.experiment("trial")["state"] == "failed"
    assert (Path(failed.folder) / "notebook.ipynb").is_file()

    # mended: only what had not succeeded runs
    write_notebook(tmp_path, "boom", body="pass")
    succeeded, events = run(file, store)
    assert succeeded
    assert sorted(kinds(events, "skipped")) == [("aside", ""), ("one", "")]


@pytest.mark.parametrize(
    ("body", "result", "error"),
    [
        ("import os; os.kill(os.getpid(), 9)", "{'kind': 'x'}", "the kernel died"),
        ("pass", "", "left no result.json; end it with session.finish"),
        ("pass", "{'no': 'kind'}", "ConfigError: finish(): the result has no 'kind'"),
        ("pass", "{'kind': 'x', 'v': float('nan')}", "the result is not plain JSON"),
        ("import time; time.sleep(60)", "{'kind': 'x'}", "ran longer than 1 s"),
        # a result of another run, planted: not believed
        (
            PLANTED,
            "",
            "belongs to another run, 'other'",
        ),
    ],
)
def test_no_false_success(tmp_path, store, body, result, error):
    write_notebook(tmp_path, "odd", body=body, result=result)
    file = write_experiment(
        tmp_path, {"odd": {"notebook": "odd", "timeout_s": 1 if "sleep" in body else 60}}
    )
    succeeded, events = run(file, store)
    assert not succeeded
    assert error in events[-1].text
    assert store.runs.find(experiment="trial")[0].state == "failed"


def test_a_result_written_before_the_kernel_dies_is_no_success(tmp_path, store):
    write_notebook(tmp_path, "late", result="{'kind': 'x'}); import os; os.kill(os.getpid(), 9")
    succeeded, _ = run(write_experiment(tmp_path, {"late": {"notebook": "late"}}), store)
    run_row = store.runs.find(experiment="trial")[0]
    assert (Path(run_row.folder) / "result.json").is_file()
    assert not succeeded
    assert run_row.state == "failed"


def test_an_interrupt_stops_kernels_and_keeps_what_is_done(tmp_path, store):
    write_notebook(tmp_path, "fast")
    write_notebook(tmp_path, "slow", body="import time; time.sleep(120)")
    steps = {"fast": {"notebook": "fast"}, "slow": {"notebook": "slow", "needs": ["fast"]}}
    experiment = load_experiment(write_experiment(tmp_path, steps))

    main = threading.main_thread().ident

    def tell(event):
        if event.kind == "started" and event.member.step == "slow":
            threading.Timer(1.5, signal.pthread_kill, (main, signal.SIGINT)).start()

    with pytest.raises(KeyboardInterrupt):
        Runner(experiment, store=store, jobs=1, cores=1, tell=tell).run()
    states = {r.step: (r.state, r.error) for r in store.runs.find(experiment="trial")}
    assert states == {"fast": ("succeeded", ""), "slow": ("failed", "interrupted")}
    assert [
        p for p in psutil.Process().children(recursive=True) if "ipykernel" in " ".join(p.cmdline())
    ] == []


def test_two_runners_of_one_experiment_do_not_meet(tmp_path, store):
    file = make_project(tmp_path)
    with (
        FileLock(store.home / "trial.lock"),
        pytest.raises(ConfigError, match="is running already"),
    ):
        run(file, store)


def test_a_missing_input_is_found_before_anything_starts(tmp_path, store):
    write_notebook(tmp_path, "first")
    write_notebook(
        tmp_path,
        "read",
        parameters="from pathlib import Path\nsource: Path = ''\nsources: list = []",
    )
    steps = {
        "first": {"notebook": "first"},
        "read": {
            "notebook": "read",
            "needs": ["first"],
            "parameters": {"sources": [{"path": "data/none.csv"}]},
        },
    }
    with pytest.raises(ConfigError, match=r"steps\.read: input 'data/none\.csv' does not exist"):
        run(write_experiment(tmp_path, steps), store)
    assert store.runs.find() == []


def test_a_changed_input_file_runs_again(tmp_path, store):
    write_notebook(
        tmp_path,
        "read",
        parameters="from pathlib import Path\nsource: Path = ''  # file",
        result="{'kind': 'x', 'text': open(source).read()}",
    )
    data = tmp_path / "data.txt"
    data.write_text("one")
    file = write_experiment(
        tmp_path, {"read": {"notebook": "read", "parameters": {"source": "data.txt"}}}
    )
    run(file, store)
    assert kinds(run(file, store)[1], "skipped") == [("read", "")]
    data.write_text("two")
    from workbench.notebook import plan as planning

    planning._file_hash.cache_clear()  # a new process would start with an empty cache
    run(file, store)
    assert store.runs.current("trial")[0].result["text"] == "two"


def test_a_budget_that_is_billed_away_stops_with_exit_3(tmp_path, store):
    file = make_project(tmp_path)
    document = file.read_text()
    file.write_text("budget_usd: 1\n" + document)
    store.ledger.add(
        [
            LedgerRow(
                who="t", job="j", experiment="trial", phase="training", resource="model",
                quantity=1, unit="token", usd=usd("1.01"), price_version="p",
            )
        ]
    )  # fmt: skip
    with pytest.raises(BudgetError, match=r"budget_usd is \$1.00 and \$1.01 is billed") as caught:
        run(file, store)
    assert caught.value.exit_code == 3


def test_results_are_plain_json_with_usage_and_stamp(tmp_path, store):
    run(make_project(tmp_path), store)
    row = store.runs.current("trial", kind="make")[0]
    on_disk = json.loads((Path(row.folder) / "result.json").read_text())
    assert on_disk == row.result
    assert on_disk["run_id"] == row.id
    assert set(on_disk["usage"]) == {"cpu_s", "peak_rss_mb", "wall_s"}
    assert on_disk["stamp"]["versions"]["python"]


def test_the_run_table_is_a_frame_in_notebooks(tmp_path, store):
    run(make_project(tmp_path), store)
    frame = store.runs.frame("trial")
    assert len(frame) == MEMBERS
    assert {"step", "member", "state", "cpu_s", "result"} <= set(frame.columns)


def test_a_notebook_sees_its_experiment_as_it_stands_though_all_before_it_was_skipped(
    tmp_path, store
):
    write_notebook(tmp_path, "first")
    write_notebook(
        tmp_path,
        "look",
        parameters="extra: int = 0  # changes the fingerprint",
        result="{'kind': 'look', 'seen': len(session.store.runs.current('trial'))}",
    )
    steps = {"first": {"notebook": "first"}, "look": {"notebook": "look", "needs": ["first"]}}
    file = write_experiment(tmp_path, steps)
    run(file, store)
    _, events = run(file, store, overrides=("look.extra=1",))
    assert kinds(events, "skipped") == [("first", "")]
    assert store.runs.current("trial", kind="look")[0].result["seen"] == 1


def test_a_reference_that_does_not_fit_fails_its_step_and_stops_nothing_else(tmp_path, store):
    write_notebook(tmp_path, "first")
    write_notebook(tmp_path, "next", parameters="version: str = ''  # of first")
    steps = {
        "first": {"notebook": "first"},
        "bad": {
            "notebook": "next",
            "needs": ["first"],
            "parameters": {"version": "${steps.first.nope}"},
        },
        "aside": {"notebook": "first"},
    }
    succeeded, events = run(write_experiment(tmp_path, steps), store)
    assert not succeeded
    assert kinds(events, "failed") == [("bad", "")]
    assert "step 'first' gave no 'nope'" in next(e.text for e in events if e.kind == "failed")
    assert sorted(kinds(events, "succeeded")) == [("aside", ""), ("first", "")]


def test_a_heartbeat_that_fails_leaves_the_kernel_under_control(tmp_path, store, monkeypatch):
    def full(*_, **__):
        raise StoreError("the disk is full")

    monkeypatch.setattr(store.runs, "update", full)
    succeeded, events = run(make_project(tmp_path), store)
    assert succeeded
    assert all(event.cpu_s > 0 for event in events if event.kind == "succeeded")


def test_a_notebook_without_kernelspec_runs_with_this_python(tmp_path, store):
    path = write_notebook(tmp_path, "plain")
    document = json.loads(path.read_text())
    document["metadata"] = {"kernelspec": {"name": "elsewhere", "display_name": "Elsewhere"}}
    path.write_text(json.dumps(document))
    assert run(write_experiment(tmp_path, {"plain": {"notebook": "plain"}}), store)[0]


SPENT = "from workbench.core.errors import BudgetError\nraise BudgetError('day: $5 <b>\\nof $5')"


def test_a_notebook_that_runs_out_of_budget_ends_the_experiment_and_keeps_what_is_done(
    tmp_path, store
):
    write_notebook(tmp_path, "fine")
    write_notebook(tmp_path, "spend", body=SPENT)
    steps = {
        "one": {"notebook": "fine"},
        "two": {"notebook": "spend", "needs": ["one"]},
        "three": {"notebook": "fine", "needs": ["one"]},
        "four": {"notebook": "fine", "needs": ["two"]},
    }
    events = []
    experiment = load_experiment(write_experiment(tmp_path, steps))
    runner = Runner(experiment, store=store, jobs=1, cores=1, tell=events.append)
    with pytest.raises(BudgetError, match=r"^day: \$5 <b> of \$5$"):
        runner.run()
    assert kinds(events, "succeeded") == [("one", "")]
    assert kinds(events, "failed") == [("two", "")]
    assert kinds(events, "blocked") == [("three", ""), ("four", "")]
    assert {event.text for event in events if event.kind == "blocked"} == {"day: $5 <b> of $5"}
    assert store.runs.experiment("trial")["state"] == "failed"
    assert store.runs.find(state="running") == []


def test_a_notebook_that_runs_beside_the_one_that_spent_it_all_comes_to_its_end(tmp_path, store):
    write_notebook(tmp_path, "spend", body=SPENT)
    write_notebook(tmp_path, "slow", body="import time; time.sleep(2)")
    steps = {"spend": {"notebook": "spend"}, "slow": {"notebook": "slow"}}
    with pytest.raises(BudgetError):
        run(write_experiment(tmp_path, steps), store)
    assert [r.step for r in store.runs.find(state="succeeded")] == ["slow"]


@pytest.mark.parametrize(
    ("row", "is_billed"),
    [
        ({"estimated": True}, False),  # compute, by a price table
        ({"estimated": True, "details": {"outcome": "lost"}}, True),
        ({"estimated": False, "details": {"outcome": "sent"}}, True),
    ],
)
def test_what_is_billed_counts_against_the_budget(tmp_path, store, row, is_billed):
    file = make_project(tmp_path)
    file.write_text("budget_usd: 1\n" + file.read_text())
    store.ledger.add(
        [
            LedgerRow(
                who="t", job="j", experiment="trial", phase="training", resource="model",
                quantity=1, unit="token", usd=usd("1.01"), price_version="p", **row,
            )
        ]
    )  # fmt: skip
    experiment = load_experiment(file)
    if is_billed:
        with pytest.raises(BudgetError, match=r"\$1.01 is billed"):
            check_costs(experiment, store)
    else:
        check_costs(experiment, store)


def test_a_threshold_that_aborts_lets_nothing_start_and_one_that_warns_says_so_once(
    tmp_path, store, caplog
):
    write_notebook(tmp_path, "fine", parameters="seed: int = 0")
    step = {"notebook": "fine", "matrix": {"seed": [1, 2, 3]}}
    file = write_experiment(tmp_path, {"one": step})
    alert = "alerts: [{{metric: runs, window: hour, limit: {}, action: {}}}]"
    (tmp_path / "alerts.yaml").write_text(alert.format(0, "warn"))
    assert run(file, store, jobs=1)[0]
    assert [record.message for record in caplog.records] == ["runs of the last hour: 1, limit 0"]
    (tmp_path / "alerts.yaml").write_text(alert.format(2, "abort"))
    assert run(file, store)[0]  # all of it is unchanged: nothing has to start
    with pytest.raises(BudgetError, match=r"runs of the last hour: 3, limit 2"):
        run(file, store, force=True)
    assert len(store.runs.find()) == 3


def test_kernels_get_the_llm_section_and_the_fingerprint_of_their_run(tmp_path, store):
    write_notebook(
        tmp_path,
        "ask",
        body="from workbench.llm.config import read_config\nconfig = read_config(session.settings)",
        result=(
            "{'kind': 'ask', 'work': session.settings.fingerprint, 'model': config.models['cheap'],"
            " 'budget': str(config.budgets.experiment), 'run': session.run_id}"
        ),
    )
    file = write_experiment(
        tmp_path,
        {"ask": {"notebook": "ask"}},
        budget_usd=3,
        llm={"models": {"cheap": "local"}, "budgets": {"experiment": 5}},
    )
    assert run(file, store)[0]
    row = store.runs.current("trial", kind="ask")[0]
    assert row.result["work"] == row.fingerprint != ""
    assert row.result["model"] == "local"
    assert row.result["budget"] == "3"


def test_a_profile_says_where_kernels_and_runner_spent_their_time(tmp_path, store):
    write_notebook(tmp_path, "sum", body="def add_up():\n    return sum(range(10**7))\nadd_up()")
    experiment = load_experiment(write_experiment(tmp_path, {"sum": {"notebook": "sum"}}))
    for is_wanted in (False, True):
        profiled = replace(store, settings=replace(store.settings, profile=is_wanted))
        runner = Runner(
            experiment, store=profiled, jobs=1, cores=1, force=True, tell=lambda event: None
        )
        assert runner.run()
        if not is_wanted:
            assert runner.profiles() == []
    own, kernel = runner.profiles()
    assert "_run_all" in own.read_text()
    assert "add_up" in kernel.read_text()
    assert kernel.parent == Path(store.runs.current("trial")[0].folder)
    assert pstats.Stats(str(kernel.with_suffix(".pstats"))).total_calls > 0


def test_who_runs_one_of_that_name_for_another_user_is_left_alone(tmp_path, store):
    theirs = Run(
        id="theirs", experiment="trial", step="a", notebook="a", phase="training", fingerprint="f",
        parameters={}, state="running", owner="somebody else", folder="", started_at=now(),
    )  # fmt: skip
    mine = replace(theirs, id="mine", owner=store.settings.user)
    for one in (theirs, mine):
        store.runs.add(one)
    assert run(make_project(tmp_path), store)[0]
    states = {one.id: one.state for one in store.runs.find() if one.id in {"theirs", "mine"}}
    assert states == {"theirs": "running", "mine": "lost"}


def test_a_runner_that_another_may_have_followed_ends(tmp_path, store, monkeypatch):
    class Lost(Lease):
        def _watch(self):
            self.lost.set()

    monkeypatch.setattr("workbench.store.leases.Lease", Lost)
    write_notebook(tmp_path, "slow", body="import time; time.sleep(60)")
    file = write_experiment(tmp_path, {"slow": {"notebook": "slow"}})
    with pytest.raises(StoreError, match="another runner may have taken over"):
        run(file, store)
