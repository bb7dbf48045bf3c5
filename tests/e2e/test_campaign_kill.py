"""kill -9 in the middle of an execution: the next process goes on and sends nothing twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from campaign_fakes import make_set
from workbench.campaign.executions import load_execution
from workbench.core.settings import read_settings
from workbench.store.database import open_store

pytestmark = pytest.mark.slow

ATTACKS, CONTROLS, BATCH, MOMENTS = 300, 40, 64, 6
PROGRAM = """\
import os, sys, time
sys.path.insert(0, sys.argv[2])
from campaign_fakes import Bench, WordEncoder, WordJudge, make_set
from workbench.campaign.execute import execute
from workbench.campaign.targets.base import Response
from workbench.core.settings import read_settings
from workbench.store.database import open_store

class Logged:
    defends = True
    identity = "logged/1"

    def __init__(self, name):
        self.name = name

    def respond(self, prompts):
        log = os.open(sys.argv[3], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for prompt in prompts:
            os.write(log, f"{self.name}\\t{prompt}\\n".encode())
            time.sleep(0.002)
        os.close(log)
        return [Response(text=prompt, decision="pass", latency_ms=1.0) for prompt in prompts]

store = open_store(read_settings({"WORKBENCH_HOME": sys.argv[1]}))
bench = Bench([WordJudge("a"), WordJudge("b")])
targets = [Logged("one"), Logged("two")]
done = execute(store, make_set(%d, %d), targets, bench, encoder=WordEncoder())
print(done.id, done.resumed)
"""


def start(home: Path, log: Path) -> subprocess.Popen:
    program = PROGRAM % (ATTACKS, CONTROLS)
    fakes = str(Path(__file__).resolve().parents[1])
    return subprocess.Popen(
        [sys.executable, "-c", program, str(home), fakes, str(log)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def sent(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def test_a_killed_execution_goes_on_and_repeats_at_most_the_batch_in_flight(tmp_path) -> None:
    dice = random.Random("kills of a campaign")
    total = 2 * (ATTACKS + CONTROLS)
    for moment in range(MOMENTS):
        home, log = tmp_path / str(moment), tmp_path / f"{moment}.log"
        # Strike once so many prompts are out: in the middle whatever the machine's speed.
        strike_at = dice.randrange(1, total - BATCH)
        first = start(home, log)
        deadline = time.monotonic() + 60
        while len(sent(log)) < strike_at and time.monotonic() < deadline:
            time.sleep(0.001)
        os.kill(first.pid, signal.SIGKILL)
        first.communicate(timeout=30)
        assert first.returncode == -signal.SIGKILL
        before = sent(log)

        second = start(home, log)
        printed, error = second.communicate(timeout=120)
        assert second.returncode == 0, error
        execution, resumed = printed.split()
        after = Counter(sent(log))
        repeated = {line: count for line, count in after.items() if count > 1}
        assert len(after) == total
        assert set(repeated.values()) <= {2}
        assert len(repeated) <= BATCH
        assert set(repeated) <= set(before[-BATCH:])  # only what was in flight
        assert int(resumed) >= len(before) - BATCH

        store = open_store(read_settings({"WORKBENCH_HOME": str(home)}))
        done = load_execution(store, execution)
        pairs = Counter((one.target, one.case_id) for one in done.attempts)
        ids = [case.id for case in make_set(ATTACKS, CONTROLS).cases]
        assert pairs == Counter((target, case) for target in ("one", "two") for case in ids)
        store.engine.dispose()
