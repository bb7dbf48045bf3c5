"""The command line as a user types it: exit codes and one-line errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ledger_rows import hit_row, model_row
from notebook_projects import make_project, write_experiment, write_notebook
from workbench.core.settings import read_settings
from workbench.store.database import open_store

WORKBENCH = str(Path(sys.executable).parent / "workbench")


def call(root: Path, *arguments: str, **variables: str):
    return subprocess.run(
        [WORKBENCH, *arguments],
        cwd=root,
        env={**os.environ, "WORKBENCH_HOME": str(root / "home"), **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_run_status_and_skip(tmp_path):
    make_project(tmp_path)
    done = call(tmp_path, "run", "experiments/trial.yaml", "--json", "--no-report")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [e["kind"] for e in events].count("succeeded") == 6
    done = call(tmp_path, "run", "experiments/trial.yaml", "--no-report")
    assert done.stdout.count("skipped") == 6
    rows = json.loads(call(tmp_path, "status", "trial", "--json").stdout)
    assert {row["state"] for row in rows} == {"succeeded"}
    assert "trial" in call(tmp_path, "status").stdout


def test_a_profile_says_where_the_time_went(tmp_path):
    write_notebook(tmp_path, "quick", body="1 + 1")
    write_experiment(tmp_path, {"quick": {"notebook": "quick"}})
    done = call(tmp_path, "run", "experiments/trial.yaml", "--profile", "--json", "--no-report")
    assert done.returncode == 0, done.stderr
    assert all(json.loads(line) for line in done.stdout.splitlines())
    files = [Path(line.partition(": ")[2]) for line in done.stderr.splitlines()]
    assert len(files) == 2  # of the runner, of the kernel
    assert all("cumulative" in file.read_text() for file in files)


def test_dry_run_starts_nothing(tmp_path):
    make_project(tmp_path)
    done = call(tmp_path, "run", "experiments/trial.yaml", "--dry-run")
    assert done.returncode == 0
    assert done.stdout.count("due") == 1
    assert done.stdout.count("waiting") == 5
    assert json.loads(call(tmp_path, "status", "--json").stdout) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "experiments/none.yaml"], "no such experiment file"),
        (["run", "experiments/trial.yaml", "--set", "make.siez=1"], "did you mean 'size'"),
        (["run", "experiments/trial.yaml", "--set", "make.size=1.5"], "1.5 is a float"),
        (["status", "nothing"], "never ran here"),
        (["report", "nothing"], "never ran here"),
        (["sanitize", "--model", "none", "x"], "no model 'none'"),
        (["sanitize", "--context", "fun", "x"], "context is 'fun'; known: educational"),
        (["sanitize", "--detail", "2", "x"], "detail is 2.0; it must be in"),
        (["cost", "show", "nothing"], "never ran here"),
        (["cost", "reprice", "--price-file", "none.json"], "price file none.json"),
        (["cost", "show", "--prometheus", "none/x.prom"], "none/x.prom"),
    ],
)
def test_bad_input_exits_2_with_one_line(tmp_path, arguments, message):
    make_project(tmp_path)
    done = call(tmp_path, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_a_failed_notebook_exits_1_and_names_cell_and_error(tmp_path):
    write_notebook(tmp_path, "boom", body="raise ValueError('no luck')")
    write_experiment(tmp_path, {"boom": {"notebook": "boom"}})
    done = call(tmp_path, "run", "experiments/trial.yaml", "--no-report")
    assert done.returncode == 1
    assert "cell 2: ValueError: no luck" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_nonsense_setting_is_named(tmp_path):
    done = call(tmp_path, "status", WORKBENCH_OFFLINE="maybe")
    assert done.returncode == 2
    assert "WORKBENCH_OFFLINE is 'maybe'; set it to 0 or 1" in done.stderr


def test_help_has_examples_for_every_command(tmp_path):
    commands = ("run", "status", "report", "sanitize", "cost", "cost show", "cost alerts")
    for command in (*commands, "cost reprice", "ask"):
        text = call(tmp_path, *command.split(), "--help").stdout
        assert f"workbench {command}" in text.partition("Examples:")[2]
    for group in ("", "cost"):
        text = call(tmp_path, *group.split(), "--help").stdout
        assert "..." not in text.partition("Commands:")[2]  # no summary is cut off
    assert "workbench ask" in call(tmp_path, "--help").stdout


@pytest.fixture
def spent(tmp_path):
    """Return a project whose ledger has model calls."""
    make_project(tmp_path)
    store = open_store(read_settings({"WORKBENCH_HOME": str(tmp_path / "home")}))
    rows = [
        model_row(usd="0.25", at="2026-11-20T01:00:00.000000Z"),
        model_row(usd="0.50", phase="generation", who="ada"),
        hit_row(calls=3, saved_usd="0.75"),
    ]
    store.ledger.add(rows)
    store.calls.add_estimate(
        {"calls": 1, "usd": ["0.1", "0.2", "0.3"]},
        work="w", job="run-1", experiment="sweep", phase="execution",
    )  # fmt: skip
    store.engine.dispose()
    return tmp_path


def test_cost_show_as_json_and_as_a_table(spent):
    shown = json.loads(call(spent, "cost", "show", "sweep", "--by", "person", "--json").stdout)
    assert {row["group"]: row["usd"] for row in shown["groups"]} == {"ada": 0.5, "tester": 0.25}
    assert (shown["total"]["hits"], shown["total"]["saved_usd"]) == (3, 0.75)
    assert shown["estimates"][0]["verdict"] == "below"
    done = call(spent, "cost", "show", "sweep")
    assert done.returncode == 0, done.stderr
    for text in ("generation", "$0.50", "$0.75", "not at hand: absent 2", "expected"):
        assert text in done.stdout
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 160
    assert not any("…" in line for line in lines)


@pytest.fixture
def rehearsed(spent):
    """Return the project after a rehearsal by hand and one of the sweep."""
    store = open_store(read_settings({"WORKBENCH_HOME": str(spent / "home")}))
    who = "rehearsal:ada"
    rows = [model_row(usd="8", who=who, experiment=name) for name in ("rehearsal", "sweep")]
    store.ledger.add(rows)
    store.engine.dispose()
    return spent


def test_rehearsals_stand_apart_from_what_is_billed(rehearsed):
    for name in ("", "sweep"):
        shown = json.loads(call(rehearsed, "cost", "show", *name.split(), "--json").stdout)
        assert shown["total"]["usd"] == 0.75
        assert shown["rehearsal"]["usd"] == (8 if name else 16)
    done = call(rehearsed, "cost", "show")
    assert "rehearsal, not billed: 2 calls, $16.00" in done.stdout
    done = call(rehearsed, "cost", "show", "rehearsal")
    assert "$8.00" in done.stdout
    assert "nobody was billed" in done.stdout
    alerts = call(rehearsed, "cost", "alerts")
    assert "rehearsal, not billed: 2 calls, $16.00" in alerts.stdout
    assert alerts.stdout.splitlines()[2].split()[2] == "0.5"


def test_what_only_asked_models_says_where_it_is_shown(rehearsed):
    for command in ("status", "report"):
        done = call(rehearsed, command, "rehearsal")
        assert done.returncode == 2
        assert "see `workbench cost show rehearsal`" in done.stderr


def test_cost_show_writes_metrics(spent):
    done = call(spent, "cost", "show", "--prometheus", "workbench.prom", "--json")
    assert done.returncode == 0, done.stderr
    assert "workbench_llm_dollars_total" in (spent / "workbench.prom").read_text()


def test_cost_alerts_warn_and_exit_3_where_they_abort(spent):
    done = call(spent, "cost", "alerts")
    assert done.returncode == 0, done.stderr
    assert "storage_growth_mb" in done.stdout
    file = spent / "alerts.yaml"
    file.write_text("alerts: [{metric: calls, window: hour, limit: 0, action: warn}]")
    done = call(spent, "cost", "alerts", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)[0]["state"] == "warn"
    assert "warning: calls of the last hour: 1, limit 0" in done.stderr
    file.write_text("alerts: [{metric: calls, window: hour, limit: 0, action: abort}]")
    done = call(spent, "cost", "alerts")
    assert done.returncode == 3
    assert "error: calls of the last hour: 1, limit 0" in done.stderr
    assert "abort" in done.stdout
    file.write_text("alerts: [{metrik: calls}]")
    done = call(spent, "cost", "alerts")
    assert done.returncode == 2
    assert "did you mean 'metric'" in done.stderr


def test_cost_reprice_shows_both_and_keeps_the_ledger(spent):
    entry = {"input": 1000, "output": 0, "source": "s", "checked": "2026-11-21"}
    table = {"version": "1", "models": {"claude-haiku-5-5": entry}}
    (spent / "own.json").write_text(json.dumps(table))
    arguments = ("cost", "reprice", "sweep", "--price-file", "own.json")
    shown = json.loads(call(spent, *arguments, "--json").stdout)
    assert shown["prices"].startswith("own.json/1+genai-prices/")
    total = shown["models"][-1]
    assert (total["booked_usd"], total["today_usd"]) == (0.75, 2.5)
    assert "$2.50" in call(spent, *arguments).stdout
    again = json.loads(call(spent, "cost", "show", "sweep", "--json").stdout)
    assert again["total"]["usd"] == 0.75
