"""A campaign over workers against a model that is paid by tokens, on PostgreSQL."""

from __future__ import annotations

import random
import subprocess
import time
from contextlib import contextmanager
from decimal import Decimal

import psutil
import pytest

from campaign_server import WORKBENCH, test_set_of
from llm_workloads import MODEL, flights_of, ledger_of, served, spent, variables
from workbench.campaign import testsets
from workbench.campaign.executions import load_execution
from workbench.core.settings import Settings
from workbench.store.database import open_store

pytest_plugins = ["postgres_server"]
pytestmark = pytest.mark.slow
KILLS = 4


class Metered:
    """An execution against a model behind a loopback server."""

    def __init__(self, settings: Settings, url: str, *, cases: int) -> None:
        self.settings = settings
        self.env = variables(settings.home, {"savings": {"parallel": 8}})
        self.env["WORKBENCH_DATABASE_URL"] = settings.database_url
        del self.env["WORKBENCH_RUN_ID"], self.env["WORKBENCH_EXPERIMENT"]
        self.arguments = ["--target", f"anthropic:{MODEL}@{url}", "--judges", "rules"]
        self.arguments += ["--executor", "processes", "--workers", "3"]
        self.tests = test_set_of(cases, 20)
        with self.store() as store:
            testsets.save(store, self.tests)

    @contextmanager
    def store(self):
        store = open_store(self.settings)
        try:
            yield store
        finally:
            store.engine.dispose()

    def start(self, budget: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [WORKBENCH, "campaign", "execute", *self.arguments, "--budget", str(budget)],
            env=self.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            cwd=self.settings.home,
        )  # fmt: skip


def ended(process: subprocess.Popen[str], *, code: int = 0) -> str:
    printed, error = process.communicate(timeout=240)
    assert process.returncode == code, printed + error
    return printed + error


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children(recursive=True)
    return [one for one in children if "spawn_main" in " ".join(one.cmdline())]


def test_workers_killed_pay_for_no_answer_twice(postgres, tmp_path):
    chance = random.Random(9)
    with served(tmp_path, latency_s=0.1) as model:
        work = Metered(postgres, model.url, cases=300)
        process = work.start("5")
        for kill in range(KILLS):
            while len(model.rows()) < 40 * (kill + 1):
                assert process.poll() is None, process.communicate()
                time.sleep(0.05)
            chance.choice(workers_of(process)).kill()
        assert "Unclosed" not in ended(process)
        rows, billed = model.rows(), model.total_usd()
    with work.store() as store:
        sent, lost = ledger_of(store, "sent"), ledger_of(store, "lost")
        done = load_execution(store)
        assert (done.count, done.errors) == (len(work.tests), 0)
        assert flights_of(store) == 0
        assert done.usd == spent(sent) + spent(lost)
    messages = sum(len(case.turns) + 1 for case in work.tests)
    assert len(sent) == messages
    assert len(rows) - messages <= len(lost) <= KILLS * 8
    assert spent(sent) <= billed <= spent(sent) + spent(lost)


def test_a_budget_of_a_metered_model_holds_over_workers(postgres, tmp_path):
    with served(tmp_path, latency_s=0.05) as model:
        work = Metered(postgres, model.url, cases=200)
        text = ended(work.start("0.003"), code=3)
        assert "budget" in text
        assert Decimal("0.001") < model.total_usd() <= Decimal("0.003")
        with work.store() as store:
            assert spent(store.ledger.rows()) == model.total_usd()
        ended(work.start("5"))
        with work.store() as store:
            sent = ledger_of(store, "sent")
            assert spent(sent) == model.total_usd()
            assert load_execution(store).usd == spent(sent)
    assert len(sent) == sum(len(case.turns) + 1 for case in work.tests)
