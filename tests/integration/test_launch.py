"""The launch files: one and several machines, processes that die, machines that do, SLURM."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from training_program import assert_equal, command_of, finish, told_by

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "experiments" / "launch"
FILES = sorted(LAUNCH.iterdir())
PROGRAMS = Path(sys.executable).parent
SIZES = {"1x4": (1, 4), "2x8": (2, 8)}


def environment(**variables: str) -> dict[str, str]:
    path = f"{PROGRAMS}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", **variables}


def shown(name: str, *arguments: str, **variables: str) -> list[str]:
    """Return the words of the command that a launch file would run."""
    done = subprocess.run(
        ["bash", str(LAUNCH / name), *arguments],
        env=environment(DRY_RUN="1", **variables), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


# what they say


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_bash_can_read_every_launch_file(file: Path) -> None:
    done = subprocess.run(["bash", "-n", str(file)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert os.access(file, os.X_OK)


@pytest.mark.parametrize("size", SIZES)
def test_machines_and_processes_are_those_that_a_file_is_named_after(size: str) -> None:
    machines, processes = SIZES[size]
    words = shown(f"{size}.sh", "workbench", "train", "x.yaml", MEET_AT="first:29500")
    assert words[0] == "torchrun"
    assert words[words.index("--nnodes") + 1] == str(machines)
    assert words[words.index("--nproc-per-node") + 1] == str(processes)
    assert words[words.index("--max-restarts") + 1] == "3"
    assert ("first:29500" in words) == (machines > 1)
    assert words[-4:] == ["--no-python", "workbench", "train", "x.yaml"]


@pytest.mark.parametrize("size", SIZES)
def test_a_batch_script_asks_slurm_for_as_much_as_it_starts(size: str, tmp_path: Path) -> None:
    machines, processes = SIZES[size]
    text = (LAUNCH / f"{size}.sbatch").read_text()
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", text, re.MULTILINE))
    assert asked["nodes"] == str(machines)
    assert asked["gpus-per-node"] == str(processes)
    assert (asked["ntasks-per-node"], asked["signal"], asked["requeue"]) == ("1", "B:USR1@120", "")
    variables = slurm(tmp_path, machines=machines)
    words = shown(f"{size}.sbatch", "workbench", "train", "x.yaml", **variables)
    assert words[words.index("--nnodes") + 1] == str(machines)
    assert words[words.index("--nproc-per-node") + 1] == str(processes)
    assert ("first:20042" in words) == (machines > 1)


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [("1x4.sh", [], "usage"), ("2x8.sh", ["command"], "set MEET_AT=HOST:PORT")],
)
def test_a_launch_that_cannot_work_is_refused_at_once(
    name: str, arguments: list[str], said: str
) -> None:
    done = subprocess.run(
        ["bash", str(LAUNCH / name), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert said in done.stderr


# what they do


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    (told,) = finish(tmp_path_factory.mktemp("alone"), devices=1)
    return told


def launched(name: str) -> tuple[str, str]:
    return "bash", str(LAUNCH / name)


def soon(found: Callable[[], Any], *, within_s: float = 120) -> Any:
    ends = time.monotonic() + within_s
    while not (value := found()):
        assert time.monotonic() < ends, "it never happened"
        time.sleep(0.05)
    return value


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "term"])
def test_one_process_that_dies_or_is_told_to_end_costs_no_more_than_a_checkpoint(
    tmp_path: Path, alone: dict[str, Any], how: str
) -> None:
    fails = {"at": 30, "rank": "1", "how": how}
    told = finish(tmp_path, *launched("1x4.sh"), variables=environment(PROCESSES="2"), fails=fails)
    assert (tmp_path / "failed").exists()
    # killed: from the checkpoint of step 20; told to end: from that of its last stretch
    assert [one["calls"] for one in told] == [40 if how == "kill" else 20] * 2
    assert_equal(told[0], alone)


@pytest.mark.slow
def test_without_restarts_left_the_launch_fails_and_the_next_one_goes_on(
    tmp_path: Path, alone: dict[str, Any]
) -> None:
    variables = environment(PROCESSES="2", RESTARTS="0")
    command = command_of(
        tmp_path, *launched("1x4.sh"), fails={"at": 50, "rank": "0", "how": "kill"}
    )
    assert subprocess.run(command, env=variables, capture_output=True, check=False).returncode
    told = finish(tmp_path, *launched("1x4.sh"), variables=variables)
    assert [one["calls"] for one in told] == [20, 20]
    assert_equal(told[0], alone)


def start_machines(
    folder: Path, *, machines: str, **options: object
) -> list[subprocess.Popen[str]]:
    """Start the launch of two machines with a process each, on this one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = environment(PROCESSES="1", MACHINES=machines, MEET_AT=f"127.0.0.1:{port}")
    command = command_of(folder, *launched("2x8.sh"), **options)

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, env=variables, text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    def is_open() -> bool:
        with socket.socket() as tried:
            return tried.connect_ex(("127.0.0.1", port)) == 0

    first = start()
    soon(is_open)  # they meet at the first one
    return [first, start()]


@pytest.mark.slow
def test_two_machines_train_as_one_process_does(tmp_path: Path, alone: dict[str, Any]) -> None:
    started = start_machines(tmp_path, machines="2")
    for one in started:
        _, said = one.communicate(timeout=240)
        assert one.returncode == 0, said
    told = told_by(tmp_path)
    assert len(told) == 2
    assert sorted(one["validated"] for one in told) == [False, True]
    assert_equal(told[0], alone)


@pytest.mark.slow
def test_where_a_machine_is_lost_the_other_goes_on_alone(
    tmp_path: Path, alone: dict[str, Any]
) -> None:
    started = start_machines(tmp_path, machines="1:2", fails={"at": 30, "rank": "1", "how": "hang"})
    try:
        soon((tmp_path / "failed").exists)
        hangs = psutil.Process(int((tmp_path / "rank-1").read_text()))
        if hangs.ppid() == started[0].pid:
            pytest.skip("the machine at which they meet became the second process")
        assert hangs.ppid() == started[1].pid
        started[1].kill()
        hangs.kill()
        _, said = started[0].communicate(timeout=240)
        assert started[0].returncode == 0, said
    finally:
        for one in started:
            one.terminate()
            one.communicate()
    (told,) = told_by(tmp_path)
    assert told["calls"] == 40
    assert_equal(told, alone, processes=1)


def slurm(folder: Path, *, machines: int = 1) -> dict[str, str]:
    """Return the variables of a job, with a SLURM that only runs what it is told to, here."""
    programs = folder / "bin"
    programs.mkdir()
    # like the real one, srun hands signals on to what it started
    srun = 'shift; "$@" & trap "kill -TERM $!" TERM; wait $!; wait $!'
    scontrol = f'[ "$1" = requeue ] && echo "$2" >> {folder}/requeued || printf "first\\nsecond\\n"'
    for name, body in (("srun", srun), ("scontrol", scontrol)):
        (programs / name).write_text(f"#!/bin/bash\n{body}\n")
        (programs / name).chmod(0o755)
    return {
        "PATH": f"{programs}:{PROGRAMS}:{os.environ['PATH']}",
        "SLURM_JOB_NODELIST": "first,second", "SLURM_JOB_ID": "42", "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_NNODES": str(machines), "SLURM_NTASKS": str(machines),
    }  # fmt: skip


@pytest.mark.slow
def test_a_job_whose_time_is_up_goes_back_into_the_queue_and_then_on(
    tmp_path: Path, alone: dict[str, Any]
) -> None:
    # a copy, as SLURM runs it
    script = tmp_path / "slurm_script"
    script.write_text((LAUNCH / "1x4.sbatch").read_text())
    variables = environment(**slurm(tmp_path), PROCESSES="2")
    slow = {"pause_s": 0.1}
    job = subprocess.Popen(
        command_of(tmp_path, "bash", str(script), **slow), env=variables, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    soon(lambda: list(tmp_path.glob("checkpoints/*.ckpt")))
    job.send_signal(signal.SIGUSR1)
    _, said = job.communicate(timeout=240)
    assert job.returncode, said
    assert (tmp_path / "requeued").read_text() == "42\n"
    assert not told_by(tmp_path)
    told = finish(tmp_path, "bash", str(script), variables=variables)
    assert 0 < told[0]["calls"] == told[1]["calls"] <= 40
    assert_equal(told[0], alone)
    assert (tmp_path / "requeued").read_text() == "42\n", "what has ended well is not put back"
