"""The walk of docs/cluster.md from laptop to cluster, as its script does it on loopback."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from machine import ROOT, require

pytestmark = pytest.mark.slow

SCRIPT = ROOT / "experiments" / "launch" / "walk.sh"
DOCUMENT = ROOT / "docs" / "cluster.md"
WALK_S = 1500


def on_loopback() -> list[str]:
    """The documented commands of this machine alone, line by line."""
    text = DOCUMENT.read_text(encoding="utf-8").partition("## On one machine\n")[2]
    block = text.split("```")[1].partition("\n")[2]
    lines = block.replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines if line.strip() and line[0] != "#"]


def test_every_documented_command_is_one_of_the_script():
    text = SCRIPT.read_text(encoding="utf-8").replace("\\\n", " ")
    walked = {" ".join(re.sub(r"\s>.*$", "", line).rstrip(" &").split())
              for line in text.splitlines()}  # fmt: skip
    commands = on_loopback()
    assert len(commands) > 10
    for command in commands:
        assert command.rstrip(" &") in walked, command


def test_the_walk_arrives_and_leaves_nothing_behind(tmp_path: Path):
    require("postgresql", "initdb", *map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")))
    require("redis", "redis-server")
    pytest.importorskip("moto.server", reason="moto[server] is not installed")
    # a copy: the workers refuse code that somebody changed meanwhile
    tree = tmp_path / "tree"
    for name in ("src", "data/seeds", "notebooks", "experiments"):
        ignored = shutil.ignore_patterns("__pycache__", "runs")
        shutil.copytree(ROOT / name, tree / name, ignore=ignored)
    environment = {name: value for name, value in os.environ.items() if "WORKBENCH" not in name}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment["PYTHONPATH"] = str(tree / "src")
    walked = subprocess.run(
        [require("bash"), str(tree / "experiments" / "launch" / "walk.sh")], cwd=tree,
        env=environment, capture_output=True, text=True, timeout=WALK_S, check=False,
    )  # fmt: skip
    told = walked.stdout
    assert walked.returncode == 0, told[-3000:] + walked.stderr[-6000:]
    assert told.rstrip().endswith("== done")
    assert "6/6" in told
    assert re.search(r'"decision":"(pass|dewrap|redirect|block)"', told)
    # PostgreSQL has the ledger, also of the service; the bucket has what was made
    rows = dict(re.findall(r"^(\w+)\|(\d+)$", told, re.MULTILINE))
    assert {"training", "execution", "serving"} <= rows.keys()
    assert int(re.search(r"<KeyCount>(\d+)", told)[1]) > 5
    left = [
        one.info["cmdline"]
        for one in psutil.process_iter(["cmdline", "environ"])
        if (one.info["environ"] or {}).get("PYTHONPATH") == environment["PYTHONPATH"]
    ]
    assert left == []
