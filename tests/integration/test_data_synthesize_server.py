"""Expansion against a loopback server, each in a process of its own: kills, budgets and faults.

``python THIS serve FILE FAULTS`` serves, ``python THIS work RECIPE`` expands.
"""

from __future__ import annotations

import asyncio
import html
import json
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from llm_workloads import LEDGER, ledger_of, served_by, spent, variables
from workbench.core.errors import WorkbenchError
from workbench.core.settings import read_settings
from workbench.data.expansions import load_expansion
from workbench.data.gate import Gate
from workbench.data.recipe import Recipe
from workbench.data.requests import load_benign, load_requests
from workbench.data.synthesize import synthesize
from workbench.llm.loopback import LoopbackServer, parse_faults
from workbench.store.database import open_store

TESTS = str(Path(__file__).resolve().parents[1])
ITEM = re.compile(r'<item id="(\d+)">(.*?)</item>', re.DOTALL)
RECIPE = {"tasks": ["paraphrase", "domain", "hard_negative"], "variants": 2}
LLM = {"savings": {"items_per_call": 4, "parallel": 4, "prewarm": False},
       "rates": {"retry_after_cap_s": 0.1, "max_attempts": 10}}  # fmt: skip


class Mild:
    id, threshold = "mild@1", 0.5

    def score(self, texts):
        return np.zeros(len(texts))


class Alike:
    id, dim = "alike@1", 1

    def encode(self, texts):
        return np.ones((len(texts), 1), np.float32)


def answer(body):
    """Return an answer that depends on the prompt alone, whichever time it is asked."""
    content, system = body["messages"][-1]["content"], json.dumps(body["system"])
    prompt = content if isinstance(content, str) else content[0]["text"]
    words = re.findall(r"medical|legal|financial|casually|plainly|harmless", system)
    items = [(n, f"Put {' '.join(words)}: {html.unescape(t)}") for n, t in ITEM.findall(prompt)]
    told = {"items": [{"id": n, "text": text} for n, text in items]}
    return json.dumps(told) if len(items) > 1 else items[0][1]


async def serve(ledger, faults):
    server = LoopbackServer(
        latency_s=0.06, answer=answer, ledger_file=Path(ledger), faults=parse_faults(faults), seed=5
    )
    async with server:
        sys.stdout.write(server.base_url + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


def work(recipe):
    store = open_store(read_settings())
    requests = [*load_requests()[:24], *load_benign()[:24]]
    gate = Gate(judge=Mild(), encoder=Alike())
    recipe = Recipe(**{**recipe, "tasks": tuple(recipe["tasks"])})
    job = synthesize(store, requests, recipe, gate=gate, source="seeds", license="MIT")
    try:
        sys.stdout.write(asyncio.run(job).id + "\n")
    except WorkbenchError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    finally:
        store.engine.dispose()
    return 0


def served(folder, faults=""):
    folder.mkdir(exist_ok=True)
    return served_by(folder, [__file__, "serve", LEDGER, faults], PYTHONPATH=TESTS)


def start(home, url, **llm):
    env = variables(home, LLM | {"base_url": url} | llm, PYTHONPATH=TESTS)
    return subprocess.Popen(
        [sys.executable, __file__, "work", json.dumps(RECIPE)],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process):
    out, err = process.communicate(timeout=120)
    return process.returncode, (out.split() or [""])[-1], err


@contextmanager
def opened(home):
    store = open_store(read_settings({"WORKBENCH_HOME": str(home)}))
    try:
        yield store
    finally:
        store.engine.dispose()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Give the expansion that nothing got in the way of."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with served(folder) as server:
        status, expansion, err = finish(start(folder / "home", server.url))
        assert status == 0, err
        assert max(server.asked().values()) == 1
        with opened(folder / "home") as store:
            found = load_expansion(store, expansion)
            assert abs(Decimal(found.manifest["usd"]) - server.total_usd()) < Decimal("1e-20")
            assert spent(ledger_of(store, "sent")) == server.total_usd()
    assert len(found.rows) > 100
    return found


def test_killed_and_resumed_it_buys_nothing_twice_and_is_the_same(tmp_path, undisturbed):
    home = tmp_path / "home"
    with served(tmp_path) as server:
        process = start(home, server.url)
        while len(server.rows()) < 12:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        with opened(home) as store:
            kept = len(ledger_of(store, "sent"))
            assert store.artifacts.newest("expansion") == ""
        assert 0 < kept < len(undisturbed.manifest["prompts"]) * 12
        status, expansion, err = finish(start(home, server.url))
        assert status == 0, err
        twice = [prompt for prompt, times in server.asked().items() if times > 1]
        asked = len(server.asked())
    with opened(home) as store:
        lost, sent = ledger_of(store, "lost"), ledger_of(store, "sent")
        found = load_expansion(store, expansion)
    # only calls that were in flight, which are charged as lost, may be asked again
    assert len(twice) <= len(lost) <= 12
    assert len(sent) == asked
    assert expansion == undisturbed.id
    assert found.rows == undisturbed.rows
    assert found.manifest["usd"] == undisturbed.manifest["usd"]
    billed = Decimal(found.manifest["usd_billed"])
    assert billed == spent(sent + lost) >= Decimal(found.manifest["usd"]) - Decimal("1e-20")


def test_a_budget_stops_it_and_more_money_goes_on(tmp_path, undisturbed):
    home = tmp_path / "home"
    cap = Decimal(undisturbed.manifest["usd"]) / 2
    with served(tmp_path) as server:
        status, _, err = finish(start(home, server.url, budgets={"experiment": str(cap)}))
        assert status == 3
        assert "budget" in err
        bought = len(server.asked())
        assert 0 < server.total_usd() <= cap
        status, expansion, err = finish(start(home, server.url))
        assert status == 0, err
        assert max(server.asked().values()) == 1
        assert bought < len(server.asked())
    assert expansion == undisturbed.id


def test_a_service_that_fails_often_changes_nothing(tmp_path, undisturbed):
    with served(tmp_path, "429=0.1,529=0.05,malformed=0.05") as server:
        status, expansion, err = finish(start(tmp_path / "home", server.url))
        assert status == 0, err
        assert {row["fault"] for row in server.rows()} > {""}
    assert expansion == undisturbed.id


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(serve(*sys.argv[2:]))
    sys.exit(work(json.loads(sys.argv[2])))
