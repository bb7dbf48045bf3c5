"""The command line as a user types it: exit codes and one-line errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from notebook_projects import make_project, write_experiment, write_notebook

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
    for command in ("run", "status", "report", "sanitize"):
        text = call(tmp_path, command, "--help").stdout
        assert f"workbench {command}" in text.partition("Examples:")[2]
