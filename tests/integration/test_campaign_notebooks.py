"""The notebooks of a campaign in real kernels: a model writes, an application is attacked."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path

import pytest

from llm_workloads import KEY
from notebook_projects import write_experiment
from workbench.campaign import testsets
from workbench.campaign.rehearsal import Bookshop, Rehearsal
from workbench.llm.loopback import LoopbackServer
from workbench.notebook.experiment import load_experiment
from workbench.notebook.plan import _file_hash
from workbench.notebook.runner import Runner, plan
from workbench.store.findings import findings

pytestmark = pytest.mark.slow

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
STAGES = ("04_generate_tests", "05_execute_campaign", "06_campaign_analysis")
ITEM = re.compile(r'<item id="(\d+)">(.*?)</item>', re.DOTALL)
BUDGET = ("tests.attack_budget_usd=1",)


def answer(body):
    """Play the attacker: every item in other words."""
    content = body["messages"][-1]["content"]
    text = content if isinstance(content, str) else "".join(part["text"] for part in content)
    asked = [(n, html.unescape(wish)) for n, wish in ITEM.findall(text)]
    return json.dumps({"items": [{"id": n, "text": f"I work here. {wish}"} for n, wish in asked]})


@pytest.fixture
def served(monkeypatch):
    """Give a model server and an application to attack, both on this machine."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    with (
        LoopbackServer(answer=answer).serve_in_thread() as server,
        Rehearsal().serve_in_thread() as shop,
    ):
        yield server, shop


@pytest.fixture
def file(tmp_path, served):
    """A project of the three notebooks as they ship."""
    server, shop = served
    (tmp_path / "notebooks").mkdir()
    for name in STAGES:
        shutil.copy(NOTEBOOKS / f"{name}.ipynb", tmp_path / "notebooks")
    (tmp_path / "shop.md").write_text(Bookshop().profile().text)
    target = {"name": "shop", "url": f"{shop.base_url}/ask", "usd_per_call": 0.01}
    (tmp_path / "shop.yaml").write_text(json.dumps(target))
    what = {"plugins": ["pii", "system-prompt-leak"], "strategies": ["plain", "paraphrase"]}
    steps = {
        "tests": {**what, "profile_file": "shop.md", "surface": "model", "max_tests": 24,
                  "tag": "t"},
        "attack": {"test_set": "t", "targets": [{"path": "shop.yaml"}], "judges": "rules",
                   "budget_usd": 5, "trials": 2},
        "analysis": {"execution": "${steps.attack.execution}"},
    }  # fmt: skip
    needs = {"tests": [], "attack": ["tests"], "analysis": ["attack"]}
    return write_experiment(
        tmp_path,
        {
            step: {"notebook": notebook, "needs": needs[step], "parameters": parameters}
            for notebook, (step, parameters) in zip(STAGES, steps.items(), strict=True)
        },
        budget_usd=10,
        llm={"base_url": server.base_url},
    )


def run(file, store, overrides=()):
    """Return the events that say how steps ended, and the results by kind."""
    events = []
    experiment = load_experiment(file, overrides=overrides)
    Runner(experiment, store=store, jobs=1, cores=1, tell=events.append).run()
    ended = [event for event in events if event.kind != "started"]
    return ended, {one.result["kind"]: one.result for one in store.runs.current("trial")}


def due(file, store):
    """Return the steps that have to run, files read anew."""
    _file_hash.cache_clear()
    events = plan(load_experiment(file, overrides=BUDGET), store)
    return [event.member.step for event in events if event.kind == "due"]


def test_without_a_budget_no_model_is_asked_and_the_reason_is_told(file, served, store):
    ended, results = run(file, store)
    assert [event.kind for event in ended] == ["failed", "blocked", "blocked"]
    assert "ConfigError: paraphrase: a model writes these" in ended[0].text
    assert "attack_budget_usd" in ended[0].text
    assert served[0].requests == 0
    assert testsets.list_test_sets(store) == []
    assert results == {}


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["processes", "dask"])
def test_workers_of_a_notebook_make_what_its_kernel_would(file, store, executor):
    by = (*BUDGET, f"attack.executor={executor}", "attack.workers=2")
    ended, results = run(file, store, by)
    assert [event.kind for event in ended] == ["succeeded"] * 3, [event.text for event in ended]
    made = results["execution"]
    assert (made["attempts"], made["errors"]) == (2 * results["test_set"]["tests"], 0)
    assert made["usd"] == pytest.approx(0.01 * made["attempts"])
    ended, results = run(file, store, BUDGET)  # there is nothing left for the kernel
    assert [event.kind for event in ended] == ["skipped", "succeeded", "succeeded"]
    assert results["execution"]["execution"] == made["execution"]
    assert results["execution"]["resumed"] == made["attempts"]
    assert results["execution"]["usd"] == made["usd"]


def test_from_goals_to_findings_with_every_dollar_accounted_for(file, served, store):
    ended, results = run(file, store, BUDGET)
    assert [event.kind for event in ended] == ["succeeded"] * 3, [event.text for event in ended]
    tests, attack, analysis = (results[kind] for kind in ("test_set", "execution", "analysis"))
    assert tests["by_strategy"]["paraphrase"] > 0
    assert tests["by_plugin"].keys() == {"pii", "system-prompt-leak"}
    assert (tests["unwritten"], tests["dropped"]) == (0, {})
    assert tests["usd"] == pytest.approx(float(served[0].ledger.total_usd()))
    assert tests["usd"] > 0
    (owned,) = testsets.list_test_sets(store)
    assert (owned.id, owned.tags) == (tests["test_set"], ("t",))

    assert attack["test_set"] == owned.id
    assert (attack["targets"], attack["kinds"]) == (["shop"], {"shop": "model"})
    assert attack["attempts"] == 2 * tests["tests"]
    assert (attack["errors"], attack["judges"]) == (0, [])
    assert attack["usd"] == pytest.approx(0.01 * attack["attempts"])

    found = findings(store.engine, attack["execution"])
    assert analysis["findings"] == len(found) > 0
    canaries = Bookshop().canaries.values()
    assert any(word in one.received for one in found for word in canaries)

    # what a file says is part of what a step is made of
    for name, step in (("shop.md", "tests"), ("shop.yaml", "attack")):
        path = file.parent.parent / name
        before = path.read_text()
        assert due(file, store) == []
        path.write_text(before + " ")
        assert due(file, store) == [step]
        path.write_text(before)
