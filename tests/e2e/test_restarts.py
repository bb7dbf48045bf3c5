"""PostgreSQL and Redis started again in the middle: nothing is lost, repeated or paid for twice.

The model is a loopback server in a process of its own, whose ledger is what was really sold.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
import yaml
from sqlalchemy import select

import workbench
from campaign_fakes import make_case
from dask_processes import wait_until
from llm_workloads import MODEL, Served, flights_of, served, spent, variables
from machine import require
from notebook_projects import write_experiment, write_notebook
from workbench.campaign import testsets
from workbench.campaign.executions import load_execution
from workbench.core.settings import Settings
from workbench.store import schema
from workbench.store.database import Store, open_store
from workbench.store.events import events
from workbench.store.records import TestSet

pytest_plugins = ["postgres_server"]
pytestmark = pytest.mark.slow

CALLS = 600
RESTARTS = 4
LLM = {
    "budgets": {"experiment": 5}, "savings": {"parallel": 16},
    "rates": {"requests_per_minute": 6_000, "tokens_per_minute": 10_000_000},
}  # fmt: skip
BODY = f"""\
from workbench.core.settings import read_settings
from workbench.llm.gateway import open_gateway
from workbench.llm.messages import Request
from workbench.store.database import open_store
store = open_store(read_settings())
asked = [
    Request(prompt=f"record {{n}} {{i:05d}}", task="summary", max_tokens=60)
    for i in range({CALLS // 2})
]
async with open_gateway(store, phase="generation") as gateway:
    answers = await gateway.map(asked)
assert all(one.text for one in answers), answers
store.engine.dispose()
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A copy of the package, which nobody edits while workers compare it."""
    package = Path(workbench.__file__).parent
    folder = tmp_path / "code"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(package, folder / "workbench", ignore=ignored)
    shutil.copytree(package.parents[1] / "data" / "seeds", folder / "workbench" / "seeds")
    return folder


@pytest.fixture
def store(postgres: Settings) -> Store:
    opened = open_store(postgres)
    yield opened
    opened.engine.dispose()


def run_over_restarts(
    command: list[str], loopback: Served, restart: Callable[[], None], *, cwd: Path, env: dict
) -> str:
    """Run a command to its end, restarting something evenly over the calls that it makes."""
    process = subprocess.Popen(
        [sys.executable, "-c", "from workbench.cli import main; main()", *command],
        cwd=cwd, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with process:
        try:
            for number in range(1, RESTARTS + 1):
                due = number * CALLS // (RESTARTS + 1)
                wait_until(
                    lambda due=due: len(loopback.rows()) >= due or process.poll() is not None
                )
                assert process.poll() is None, process.communicate()
                restart()
            out, error = process.communicate(timeout=240)
        finally:
            process.kill()
    assert process.returncode == 0, error
    return out + error


def check_bills(store: Store, loopback: Served) -> None:
    """The store's ledger is the server's, each call was sent once, and nothing is in flight."""
    assert Counter(loopback.asked().values()) == {1: CALLS}
    sold = [row for row in store.ledger.rows() if row.details.get("outcome") == "sent"]
    assert sum(row.details["calls"] for row in sold) == CALLS
    assert spent(store.ledger.rows()) - spent_otherwise(store) == loopback.total_usd()
    assert flights_of(store) == 0


def spent_otherwise(store: Store) -> Decimal:
    return spent(row for row in store.ledger.rows() if row.unit != "token")


def attack(
    store: Store, tmp_path: Path, code: Path, restart: Callable[[], None], **more: str
) -> None:
    tests = TestSet(cases=tuple(make_case(number) for number in range(CALLS)))
    testsets.save(store, tests)
    with served(tmp_path, latency_s=0.05) as loopback:
        target = {"type": "model", "name": "m", "model": MODEL, "url": loopback.url, "parallel": 16}
        (tmp_path / "m.yaml").write_text(yaml.safe_dump(target))
        env = variables(
            store.home, LLM, PYTHONPATH=str(code), OMP_NUM_THREADS="1",
            WORKBENCH_DATABASE_URL=store.settings.database_url, **more,
        )  # fmt: skip
        command = [
            "campaign", "execute", "--target", "m.yaml", "--judges", "rules",
            "--executor", "processes", "--workers", "2",
        ]  # fmt: skip
        run_over_restarts(command, loopback, restart, cwd=tmp_path, env=env)
        check_bills(store, loopback)
        assert loopback.rows()
    done = load_execution(store)
    assert (done.count, done.errors) == (CALLS, 0)
    assert len({one.case_id for one in done.attempts()}) == CALLS
    with store.engine.connect() as connection:
        assert not connection.execute(select(schema.attempts.c.case_id)).all()
    told = Counter(one.kind for one in events(store.engine, subject=done.id, limit=100_000))
    assert (told["attack_run_started"], told["attack_run_finished"]) == (1, 1)


def test_a_campaign_goes_on_over_restarts_of_postgresql(store, server, tmp_path, code):
    def restart():
        server.stop()
        time.sleep(1)
        server.start()

    attack(store, tmp_path, code, restart)


def test_a_campaign_goes_on_over_restarts_of_redis(store, tmp_path, code):
    socket = tmp_path / "redis.sock"
    command = [
        require("redis", "redis-server"), "--port", "0", "--unixsocket", str(socket), "--save", "",
        "--dir", str(tmp_path),
    ]  # fmt: skip
    running: list[subprocess.Popen[bytes]] = []

    def start():
        socket.unlink(missing_ok=True)
        running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        wait_until(socket.exists)

    def stop():
        running[-1].kill()
        running[-1].wait()

    def restart():
        stop()
        time.sleep(1)
        start()

    start()
    try:
        attack(store, tmp_path, code, restart, WORKBENCH_CACHE_URL=f"unix://{socket}")
    finally:
        stop()


def test_an_experiment_goes_on_over_restarts_of_postgresql(
    store,
    server,
    tmp_path,
    code,
):
    write_notebook(
        tmp_path, "ask", parameters="n: int = 0  # which", body=BODY,
        result="{'kind': 'x', 'n': n, 'answers': len(answers)}",
    )  # fmt: skip

    def restart():
        server.stop()
        time.sleep(1)
        server.start()

    with served(tmp_path, latency_s=0.05) as loopback:
        step = {"notebook": "ask", "matrix": {"n": [0, 1]}}
        write_experiment(tmp_path, {"ask": step}, llm={**LLM, "base_url": loopback.url})
        env = variables(
            store.home, {}, PYTHONPATH=str(code), WORKBENCH_DATABASE_URL=store.settings.database_url
        )
        env = {name: value for name, value in env.items() if name != "WORKBENCH_LLM"} | {
            "PATH": os.environ["PATH"]
        }
        command = ["run", "experiments/trial.yaml", "--no-report", "--executor", "processes",
                   "--jobs", "2"]  # fmt: skip
        run_over_restarts(command, loopback, restart, cwd=tmp_path, env=env)
        check_bills(store, loopback)
    runs = store.runs.find(experiment="trial")
    assert Counter(run.state for run in runs) == {"succeeded": 2}
    assert [run.result["answers"] for run in runs] == [CALLS // 2] * 2
    charged = Counter((row.job, row.resource) for row in store.ledger.rows() if row.unit != "token")
    assert set(charged.values()) == {1}
