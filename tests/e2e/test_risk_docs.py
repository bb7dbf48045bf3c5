"""The commands of docs/risk.md and of the README on risks, as they are written; and kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from doc_scripts import execute, script_of
from machine import ROOT
from workbench.core.settings import read_settings
from workbench.store.database import open_store
from workbench.store.risks import risk_log, risks

pytestmark = pytest.mark.slow

_MOMENTS = 12


def test_the_page_on_risk(tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(ROOT / "data")
    output = execute(script_of("docs/risk.md", "# Risk", tmp_path), tmp_path)
    assert "46 vulnerabilities" in output
    assert "critical" in output
    assert "cve_records" in output
    assert "1 shown" in output  # what was accepted is still
    for name in ("register.csv", "register.docx", "register.cdx.json", "closed.openvex.json"):
        assert (tmp_path / name).stat().st_size > 0


def test_the_tour_of_the_readme(tmp_path: Path) -> None:
    script = script_of("README.md", "## Risk", tmp_path)
    script = script.replace("experiments/risk.yaml", f"{ROOT}/experiments/risk.yaml --no-report")
    script = f"export WORKBENCH_HOME={tmp_path}/home\n{script}"
    output = execute(script, tmp_path)
    assert script.count("/workbench risk ") >= 4
    assert "4/4" in output


def test_every_command_of_risk_is_told_in_the_readme() -> None:
    from workbench.cli.risk import risk

    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Risk")[2]
    section = section.partition("\n## ")[0]
    assert [name for name in risk.commands if f"`{name}`" not in section] == []


def register_of(home: Path) -> list[dict]:
    store = open_store(read_settings({"WORKBENCH_HOME": str(home), "WORKBENCH_USER": "tester"}))
    found = risks(store.engine, limit=10_000)
    log = risk_log(store.engine)
    store.engine.dispose()
    assert len(log) == len(found)  # every risk was entered once
    return [{name: value for name, value in row.items() if name != "updated_at"} for row in found]


def assess(home: Path) -> subprocess.Popen:
    command = [f"{sys.prefix}/bin/workbench", "risk", "assess", "--sample", "--today", "2024-11-01"]
    variables = {**os.environ, "WORKBENCH_HOME": str(home), "WORKBENCH_USER": "tester"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, env=variables, **quiet)


def test_killed_at_any_moment_it_goes_on_to_the_same_register(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    began = time.monotonic()
    assert assess(whole).wait() == 0
    span = time.monotonic() - began
    expected = register_of(whole)
    assert expected
    killed = 0
    for moment in range(_MOMENTS):
        home = tmp_path / str(moment)
        process = assess(home)
        time.sleep(span * (moment + 1) / (_MOMENTS + 1))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        assert assess(home).wait() == 0
        assert register_of(home) == expected
    assert killed >= _MOMENTS // 2
