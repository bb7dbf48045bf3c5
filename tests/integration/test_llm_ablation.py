"""The ablation through the real gateway and a server on this machine."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal

import pytest
from click.testing import CliRunner

from workbench.cli import main
from workbench.core.errors import GateError, InputError
from workbench.llm import router
from workbench.llm.gateway import Gateway
from workbench.llm.prices import Prices
from workbench.notebook import ablation
from workbench.notebook.ablation import ablate, workload

SIZE = 40
SAVINGS = ("prompt_cache", "routing", "response_cache", "items_per_call", "context_tokens",
           "concise", "parallel")  # fmt: skip


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """The command, run once, and what it printed, wrote and kept."""
    root = tmp_path_factory.mktemp("ablation")
    done = CliRunner(env={"WORKBENCH_HOME": str(root / "home")}).invoke(
        main, ["cost", "ablate", "--size", str(SIZE), "--latency-ms", "5", "--json",
               "--out", str(root / "result.json")],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    kept = CliRunner(env={"WORKBENCH_HOME": str(root / "home")}).invoke(
        main, ["status", "ablation", "--json"]
    )
    return done, json.loads((root / "result.json").read_text()), json.loads(kept.stdout)


@pytest.fixture(scope="module")
def trials(told):
    found = told[1]["trials"]
    for trial in found.values():
        trial["usd"], trial["server_usd"] = Decimal(trial["usd"]), Decimal(trial["server_usd"])
    return found


def test_the_workload_is_fixed_and_a_stated_share_of_it_repeats():
    items = workload(size=1000, seed=0)
    assert items == workload(size=1000, seed=0) != workload(size=1000, seed=1)
    mutations = [item for item in items if item.task == "mutation"]
    assert len(mutations) == 500
    assert len({(*item[:4],) for item in items}) == 700
    assert {item.variant for item in mutations} == set(range(5))
    assert len({item.text for item in mutations}) == 70
    with pytest.raises(InputError, match="at least 40"):
        workload(size=20, seed=0)


def test_the_result_is_printed_written_and_kept(told):
    done, result, (run,) = told
    assert json.loads(done.stdout) == result == run["result"]
    assert (run["experiment"], run["step"], run["state"]) == ("ablation", "ablation", "succeeded")
    assert "19/19 all+batches" in done.stderr
    assert "left" in done.stderr


def test_every_bill_is_the_servers(trials):
    assert all(trial["usd"] == trial["server_usd"] > 0 for trial in trials.values())


def test_all_together_cost_less_than_any_alone(trials):
    alone = [trial["usd"] for name, trial in trials.items() if name[0] == "+"]
    assert trials["all+batches"]["usd"] < trials["all"]["usd"] < min(alone)
    assert trials["+batches"]["usd"] * 2 == trials["baseline"]["usd"]


def test_without_a_saving_nothing_gets_cheaper(trials):
    for saving in SAVINGS:
        # so few packed calls may not pay for what is written to the service's cache
        least = Decimal("0.9") if saving == "prompt_cache" else 1
        assert trials[f"-{saving}"]["usd"] >= trials["all"]["usd"] * least, saving


def test_hits_cost_nothing(trials):
    base, cached = trials["baseline"], trials["+response_cache"]
    assert cached["hits"] == SIZE * 3 // 10
    assert cached["calls"] == SIZE - cached["hits"]
    # within what the prompts differ in length
    assert float(cached["usd"] / base["usd"]) == pytest.approx(0.7, abs=0.01)
    assert 0 < cached["hit_ms"] < cached["call_ms"]


def test_each_switch_does_what_it_is_for(trials):
    base = trials["baseline"]
    assert (base["calls"], base["hits"], base["rules"], base["in_flight"]) == (SIZE, 0, 0, 1)
    assert base["cached_tokens"] == 0 < trials["+prompt_cache"]["cached_tokens"]
    assert trials["+routing"]["rules"] > 0
    assert trials["+items_per_call"]["calls"] < SIZE / 2
    assert trials["+context_tokens"]["prompt_tokens"] < base["prompt_tokens"]
    assert trials["+concise"]["output_tokens"] < base["output_tokens"] / 2
    assert trials["+parallel"]["in_flight"] > 1
    assert 0 < trials["+streaming"]["first_text_ms"] < trials["+streaming"]["call_ms"]


def refused(store, monkeypatch, match, *, saving="routing"):
    monkeypatch.setattr(ablation, "_SWITCHES", {saving: ablation._SWITCHES[saving]})
    with pytest.raises(GateError, match=match):
        ablate(store, size=SIZE, latency_ms=0, tell=lambda _: None)
    assert store.runs.find() == []


def test_a_gateway_that_ignores_a_switch_fails(store, monkeypatch):
    route = router.Router.route

    def unrouted(self, request):
        savings = replace(self._config.savings, routing=False)
        self._config = replace(self._config, savings=savings)
        return route(self, request)

    monkeypatch.setattr(router.Router, "route", unrouted)
    refused(store, monkeypatch, "routing: switched on alone, it changed nothing")


def test_a_gateway_that_always_calls_one_by_one_fails(store, monkeypatch):
    mapped = Gateway.map

    async def in_turn(self, requests):
        if self._config.savings.batches:
            return await mapped(self, requests)
        return [await self.ask(request) for request in requests]

    monkeypatch.setattr(Gateway, "map", in_turn)
    refused(store, monkeypatch, "parallel: switched on alone", saving="parallel")


def test_a_ledger_that_differs_from_the_servers_fails(store, monkeypatch):
    price_of = Prices.price_of
    monkeypatch.setattr(
        Prices, "price_of", lambda *given, **more: price_of(*given, **more) + Decimal("1e-7")
    )
    refused(store, monkeypatch, "baseline: our ledger says .* USD, the server's")
