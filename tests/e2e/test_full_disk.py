"""A disk that fills up in the middle of a run: one clear line, nothing half, then it goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from notebook_projects import write_experiment, write_notebook
from workbench.core.settings import read_settings
from workbench.store import schema
from workbench.store.artifacts import write_atomic
from workbench.store.database import open_store

pytestmark = pytest.mark.slow

WORKBENCH = str(Path(sys.executable).parent / "workbench")
DISK_MB = 4

WRITE = """\
from pathlib import Path
with session.store.artifacts.create("model", f"{name}" * 32, {}) as folder:
    for part in range(4):
        (folder / f"part-{part}").write_bytes(bytes(size_kb * 256))
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A home of a few megabytes."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    home = tmp_path / "home"
    home.mkdir()
    options = ["-o", f"size={DISK_MB}m"]
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", *options, "tmpfs", str(home)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"this machine lets nobody mount: {mounted.stderr.decode().strip()}")
    yield home
    subprocess.run(["umount", "--lazy", str(home)], check=True)


def make(root: Path, *, size_kb: int) -> None:
    """Write a project: a small step, a large one that needs it, and one that needs that."""
    write_notebook(
        root,
        "write",
        parameters="name: str = 'aa'  # of the artifact\nsize_kb: int = 1  # of it",
        body=WRITE,
        result="{'kind': 'test', 'name': name}",
    )
    step = {"notebook": "write"}
    write_experiment(
        root,
        {
            "small": step | {"parameters": {"name": "aa", "size_kb": 4}},
            "large": step | {"needs": ["small"], "parameters": {"name": "bb", "size_kb": size_kb}},
            "after": step | {"needs": ["large"], "parameters": {"name": "cc", "size_kb": 4}},
        },
    )


def call(root: Path, home: Path, *arguments: str, **options: object):
    return subprocess.run(
        [WORKBENCH, *(arguments or ("run", "experiments/trial.yaml", "--no-report"))],
        cwd=root,
        env={**os.environ, "WORKBENCH_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )


def check_nothing_half(home: Path) -> None:
    """Every artifact folder with a name of its own is listed, every result is whole JSON."""
    for result in home.rglob("result.json"):
        assert json.loads(result.read_text())["run_id"] == result.parent.name
    store = open_store(read_settings({"WORKBENCH_HOME": str(home)}))
    table = schema.artifacts
    with store.engine.connect() as connection:
        ids = select(table.c.id).where(table.c.kind == "model")
        listed = {one[:32] for one in connection.execute(ids).scalars()}
    folders = (home / "artifacts" / "model").iterdir()
    found = {one.name for one in folders if not one.name.startswith(".")}
    store.engine.dispose()
    assert found == listed
    for name in listed:
        parts = list((home / "artifacts" / "model" / name).iterdir())
        assert len({part.stat().st_size for part in parts}) == 1
        assert len(parts) == 4
    assert not [one for one in home.rglob("*.tmp") if one.is_file()]


def states(home: Path) -> dict[str, list[str]]:
    store = open_store(read_settings({"WORKBENCH_HOME": str(home)}))
    found: dict[str, list[str]] = {}
    for run in store.runs.find(experiment="trial"):
        found.setdefault(run.step, []).append(run.state)
    store.engine.dispose()
    return found


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the lines that name a reason."""
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode == 1, done.stdout + done.stderr
    return [line for line in (done.stdout + done.stderr).splitlines() if "free" in line]


def test_a_notebook_that_fills_the_disk(tmp_path, disk):
    make(tmp_path, size_kb=DISK_MB * 1024)
    done = call(tmp_path, disk)
    (line,) = said(done)
    assert str(disk) in line
    assert "the disk is full; free space" in line
    assert states(disk) == {"small": ["succeeded"], "large": ["failed"]}
    check_nothing_half(disk)

    make(tmp_path, size_kb=16)  # in place of freeing space: the step asks for less
    done = call(tmp_path, disk)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("skipped") == 1
    assert states(disk)["small"] == ["succeeded"]
    check_nothing_half(disk)


@pytest.mark.parametrize("room_kb", [0, 40, 100, 160])
def test_a_disk_that_somebody_else_fills(tmp_path, disk, room_kb):
    """Whatever is the first that does not fit: database, folder, log, artifact, result."""
    make(tmp_path, size_kb=64)
    write_notebook(tmp_path, "make", parameters="x: int = 0  # nothing")
    first = write_experiment(tmp_path, {"make": {"notebook": "make"}}, name="first")
    assert call(tmp_path, disk, "run", str(first), "--no-report").returncode == 0
    free = shutil.disk_usage(disk).free
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(max(0, free - room_kb * 1024)))

    done = call(tmp_path, disk)
    (line,) = said(done)
    assert str(disk) in line
    assert line.startswith("error: ")
    ballast.unlink()
    before = {step for step, found in states(disk).items() if "succeeded" in found}
    done = call(tmp_path, disk)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("skipped") == len(before)
    after = states(disk)
    assert {step: found.count("succeeded") for step, found in after.items()} == dict.fromkeys(
        ("small", "large", "after"), 1
    )
    assert not {"running"} & {state for found in after.values() for state in found}
    check_nothing_half(disk)
    with sqlite3.connect(disk / "workbench.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


def limit_file_size() -> None:
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # else the process is killed, not refused
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))


def test_a_quota_on_the_size_of_files(tmp_path):
    home = tmp_path / "home"
    make(tmp_path, size_kb=4096)
    done = call(tmp_path, home, preexec_fn=limit_file_size)
    (line,) = said(done)
    assert str(home) in line
    assert states(home) == {"small": ["succeeded"], "large": ["failed"]}
    check_nothing_half(home)
    done = call(tmp_path, home)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("skipped") == 1
    check_nothing_half(home)


def test_an_old_file_survives_a_full_disk(disk):
    from workbench.core.errors import StoreError

    file = disk / "file"
    write_atomic(file, b"old")
    with pytest.raises(StoreError, match="the disk is full"):
        write_atomic(file, bytes(2 * DISK_MB * 2**20))
    assert file.read_bytes() == b"old"
    assert [one.name for one in disk.iterdir()] == ["file"]
    write_atomic(file, b"new")
    assert file.read_bytes() == b"new"
