"""The commands of the README; the first one from a fresh clone of what is committed."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from machine import ROOT, require

pytestmark = pytest.mark.slow

INSTALLS = os.environ.get("WORKBENCH_E2E_INSTALL") == "1"
INSTALL_S, RUN_S = 900, 900


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone; its .venv borrows this one's unless WORKBENCH_E2E_INSTALL=1 asks for its own."""
    git = require("git")
    target = tmp_path / "clone"
    done = subprocess.run(
        [git, "clone", "--quiet", "--no-hardlinks", str(ROOT), str(target)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if not INSTALLS:
        # a folder of links, not one link: setting up must not see a reason to write to ours
        borrowed = target / ".venv"
        borrowed.mkdir()
        for name in ("bin", "lib", "pyvenv.cfg"):
            (borrowed / name).symlink_to(Path(sys.prefix) / name)
        (borrowed / ".ready").touch()
    return target


def make(clone: Path, *arguments: str, timeout_s: int) -> subprocess.CompletedProcess[str]:
    # nothing of ours: no settings, and no MAKEFLAGS where the tests themselves were made
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("WORKBENCH_") and name not in {"MAKEFLAGS", "MFLAGS", "MAKELEVEL"}
    }
    if not INSTALLS:
        # should make want to set up after all, it fails here instead of changing our .venv
        arguments = ("PYTHON=false", *arguments)
        # the borrowed packages name this checkout: the clone's own code comes first
        environment["PYTHONPATH"] = str(clone / "src")
    return subprocess.run(
        [require("make"), *arguments],
        cwd=clone,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@pytest.mark.timeout(INSTALL_S + 2 * RUN_S)
def test_make_run_ends_with_the_path_of_the_report(clone: Path) -> None:
    done = make(clone, "run", timeout_s=INSTALL_S + RUN_S)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    last = done.stdout.strip().splitlines()[-1]
    told = re.fullmatch(r"report: (.+)", last)
    assert told, last
    report = Path(told[1])
    assert report.is_absolute()
    assert report.is_relative_to(clone)
    assert report.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "Traceback" not in done.stdout + done.stderr

    # what was made is ignored by git: a run leaves a clean checkout
    status = subprocess.run(
        [require("git"), "status", "--porcelain"],
        cwd=clone,
        capture_output=True,
        text=True,
        check=True,
    )
    assert status.stdout == ""

    again = make(clone, "run", timeout_s=120)
    assert again.returncode == 0, again.stderr
    assert " succeeded" not in again.stdout
    assert again.stdout.count("skipped") == done.stdout.count(" succeeded ")
    assert again.stdout.strip().splitlines()[-1] == last


def test_the_tour_of_model_calls_runs_as_it_is_written(tmp_path: Path) -> None:
    section = (
        (ROOT / "README.md").read_text(encoding="utf-8").partition("## Model calls, metered")[2]
    )
    script = section.split("```")[1]
    assert script.count(".venv/bin/workbench ") >= 6
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    for ours, others in (("8099", port), (".venv/bin", str(Path(sys.prefix) / "bin"))):
        script = script.replace(ours, others)
    script = script.replace("--size 100", "--size 40")
    script = (
        "trap 'kill $(jobs -p) || true' EXIT\n" + script
    )  # a failure must not leave the server behind
    for name in ("experiments", "notebooks"):
        (tmp_path / name).mkdir()
    done = subprocess.run(
        [require("bash"), "-euc", script], cwd=tmp_path, capture_output=True, text=True,
        timeout=300, check=False,
        env={name: value for name, value in os.environ.items() if "WORKBENCH" not in name},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    bills = [line for line in done.stderr.splitlines() if " billed, " in line]
    assert bills[0].startswith("2 calls, 0 at hand, $0.000")
    assert bills[1].startswith("0 calls, 2 at hand, $0.00 billed")
    assert "within" in done.stdout


def test_the_readme_says_these_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in ("make run", "make test", "make lab"):
        assert command in text


def test_make_knows_its_commands() -> None:
    for command in ("run", "test", "test-full", "lint", "lab", "setup", "bench"):
        done = subprocess.run(
            [require("make"), "--dry-run", command],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert shutil.which("make")
