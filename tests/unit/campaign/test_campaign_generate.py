from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from workbench.campaign import testsets
from workbench.campaign.generate import CPU_S_PER_CALL, GenerateConfig, fill, planned, preview
from workbench.campaign.plugins.catalog import PLUGINS
from workbench.campaign.plugins.goals import load_goals
from workbench.campaign.strategies import model_driven
from workbench.campaign.strategies.catalog import default_chains, parse_chain
from workbench.campaign.strategies.drafts import Draft
from workbench.core.errors import ConfigError, DataError
from workbench.data.build import load_pairs
from workbench.data.wrappers import family_split
from workbench.llm.messages import Request
from workbench.store.campaigns import add_outcomes
from workbench.store.database import Store


def test_no_goal_was_seen_in_training_or_validation(seeded_store: Store) -> None:
    frame = load_pairs(seeded_store, "").frame
    seen = set(frame[frame["split"].isin(["train", "validation", "test_wrappers"])]["core"])
    cases = preview(seeded_store, GenerateConfig(max_tests=1_500)).test_set.cases
    held_out = {case.goal for case in cases if PLUGINS.get(case.plugin).needs_pair_set}
    assert held_out
    assert held_out.isdisjoint(seen)


def test_every_wrapper_is_held_out(seeded_store: Store) -> None:
    wrappers = [chain for chain in default_chains() if chain.startswith("wrap-")]
    assert len(wrappers) >= 6
    families = {chain.removeprefix("wrap-").partition("+")[0] for chain in wrappers}
    assert {family_split(family) for family in families} == {"test"}


@pytest.mark.parametrize("surface", ["", "guard", "model"])
def test_every_plugin_that_suits_the_surface_is_there(seeded_store: Store, surface: str) -> None:
    plan = preview(seeded_store, GenerateConfig(surface=surface, max_tests=1_500))
    suited = {name for name, one in PLUGINS if not surface or surface in one.applies_to}
    assert {case.plugin for case in plan.test_set} == suited
    assert set(plan.left_out) == set(PLUGINS.names()) - suited
    harms = {case.category for case in plan.test_set if case.plugin.startswith("harm-")}
    assert len(harms) == 6


@hypothesis_settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(1, 300), st.integers(0, 9), st.integers(0, 5))
def test_limits_hold(seeded_store: Store, max_tests: int, mutations: int, seed: int) -> None:
    config = GenerateConfig(max_tests=max_tests, mutations_per_prompt=mutations, seed=seed)
    plan = preview(seeded_store, config)
    cases = plan.test_set.cases
    assert 1 <= len(cases) <= max_tests
    assert sum(plan.cells.values()) == len(cases)
    disguised = Counter(case.goal for case in cases if case.strategies)
    assert max(disguised.values(), default=0) <= mutations
    assert len({(case.plugin, case.prompt) for case in cases}) == len(cases)
    # A disguised goal never stands without its plain form.
    plain = {case.goal for case in cases if not case.strategies}
    assert set(disguised) <= plain


def test_strategies_get_even_shares(seeded_store: Store) -> None:
    cases = preview(seeded_store, GenerateConfig(mutations_per_prompt=8)).test_set.cases
    counts = Counter("+".join(case.strategies) for case in cases if case.strategies)
    assert set(counts) == set(default_chains()) - {"plain"}
    assert max(counts.values()) <= 2 * min(counts.values()) + 1


def test_controls_do_not_crowd_attacks_out(seeded_store: Store) -> None:
    cases = preview(seeded_store, GenerateConfig()).test_set.cases
    counts = Counter(case.plugin for case in cases)
    largest = max(count for name, count in counts.items() if not PLUGINS.get(name).is_control)
    assert all(counts[name] <= largest + 1 for name in counts)


def test_prompts_are_what_the_chain_makes_of_the_goal(seeded_store: Store) -> None:
    config = GenerateConfig(plugins=("harm-violence",), strategies=("rot13+base64", "hex"))
    for case in preview(seeded_store, config).test_set.cases:
        layers = [case.goal]
        for strategy in parse_chain("+".join(case.strategies)):
            layers.append(strategy.disguise(layers[-1], seed=0))
        assert case.prompt == layers[-1]
        assert case.metadata == ({"layers": layers[1:-1]} if len(layers) > 2 else {})


def test_taxonomy_adds_up_and_controls_have_none(seeded_store: Store) -> None:
    cases = preview(seeded_store, GenerateConfig(strategies=("base64",))).test_set.cases
    assert all(("AML.T0068" in case.taxonomy) != case.is_control for case in cases)


def test_seeds_differ(seeded_store: Store) -> None:
    assert (
        preview(seeded_store, GenerateConfig(seed=1)).test_set.id
        != preview(seeded_store, GenerateConfig(seed=2)).test_set.id
    )


def test_another_process_generates_the_same(seeded_store: Store) -> None:
    program = (
        "import sys; from workbench.core.settings import read_settings\n"
        "from workbench.store.database import open_store\n"
        "from workbench.campaign.generate import GenerateConfig, preview\n"
        "store = open_store(read_settings({'WORKBENCH_HOME': sys.argv[1]}))\n"
        "print(preview(store, GenerateConfig(seed=3)).test_set.id)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(seeded_store.home)],
        capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"},
    )  # fmt: skip
    assert done.stdout.strip() == preview(seeded_store, GenerateConfig(seed=3)).test_set.id


def test_generate_saves_what_preview_shows(seeded_store: Store) -> None:
    config = GenerateConfig(max_tests=20)
    made = preview(seeded_store, config).test_set
    testsets.save(seeded_store, made)
    assert testsets.load(seeded_store, made.id) == made == preview(seeded_store, config).test_set
    assert made.recipe["pair_set"] == load_goals(seeded_store).pair_set


def test_a_result_counts_every_case_once(seeded_store: Store) -> None:
    plan = preview(seeded_store, GenerateConfig(max_tests=50))
    result = plan.result()
    assert result["test_set"] == plan.test_set.id
    for name in ("by_plugin", "by_strategy", "by_category"):
        assert sum(result[name].values()) == result["tests"] == 50
        assert type(result[name]) is dict  # a Counter does not survive dataclasses.asdict
    assert 0 < result["controls"] < 50
    assert len(result["samples"]) == 13


def test_estimate_counts_cases(seeded_store: Store) -> None:
    plan = preview(seeded_store, GenerateConfig(max_tests=10))
    assert plan.result()["estimate"] == {
        "calls": 10,
        "cpu_s": pytest.approx(10 * CPU_S_PER_CALL),
        "usd": 0,
    }


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_tests": 0}, "max_tests is 0"),
        ({"mutations_per_prompt": -1}, "mutations_per_prompt is -1"),
        ({"plugins": ("harm-violance",)}, "unknown plugin 'harm-violance'; known: .*harm-violence"),
        ({"strategies": ("base46",)}, "unknown strategy 'base46'"),
        ({"strategies": ("base64+",)}, "empty or plain layer"),
        ({"strategies": ("plain+hex",)}, "empty or plain layer"),
        ({"strategies": ("hex", "hex")}, "'hex' is given twice"),
    ],
)
def test_bad_configurations_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GenerateConfig(**fields)


def test_without_a_pair_set_no_held_out_request_is_to_be_had(store: Store) -> None:
    with pytest.raises(DataError, match=r"pair set.*01_expand_pairs"):
        preview(store, GenerateConfig(plugins=("harm-violence",)))


def test_attacks_on_applications_need_no_pair_set(store: Store) -> None:
    plan = preview(store, GenerateConfig(surface="model", max_tests=60))
    assert "01_expand_pairs" in plan.left_out["harm-violence"]
    assert len(plan.test_set) == 60
    assert {case.plugin for case in plan.test_set if case.assertions} >= {"pii", "secret-leak"}


def test_a_disguise_inside_a_document_leaves_the_document_alone(store: Store) -> None:
    config = GenerateConfig(
        plugins=("prompt-injection-indirect",), strategies=("hex",), max_tests=10
    )
    for case in preview(store, config).test_set:
        payload = parse_chain("hex")[0].disguise(case.goal, seed=0)
        assert payload in case.prompt != payload
        assert case.metadata["layers"] == [payload]


def test_what_worked_before_is_dealt_more_often(store: Store) -> None:
    config = GenerateConfig(
        plugins=("pii", "secret-leak"), strategies=("hex", "rot13", "base64"), max_tests=60,
        mutations_per_prompt=9,
    )  # fmt: skip
    even = Counter(preview(store, config).cells)
    told = {"target": "x", "plugin": "pii", "strategy": "rot13"}
    cold = [
        {"target": "x", "plugin": plugin, "strategy": chain, "successes": 0, "attempts": 50}
        for plugin in config.plugins
        for chain in config.strategies
        if (plugin, chain) != ("pii", "rot13")
    ]
    add_outcomes(store.engine, "e", [{**told, "successes": 45, "attempts": 50}, *cold])
    plan = preview(store, config)
    steered = Counter(plan.cells)
    assert steered["pii", "rot13"] >= even["pii", "rot13"] + 3
    assert all(steered[cell] >= 3 for cell in even)  # half is dealt evenly
    assert plan.recipe["history"]
    again = preview(store, replace(config, explore=1.0))
    assert Counter(again.cells) == even


@pytest.mark.parametrize("chain", ["base64+paraphrase", "paraphrase+crescendo"])
def test_what_a_model_writes_comes_first(chain: str) -> None:
    with pytest.raises(ConfigError, match="reorder its layers"):
        GenerateConfig(strategies=(chain,))


class Scribe:
    """A model strategy that writes what it was asked to write, numbered."""

    def __init__(self, fail: frozenset[str] = frozenset()) -> None:
        self.fail = fail

    def planned(self, goals, *, attacker, per_goal, seed):
        return [Request(prompt=goal) for goal in goals for _ in range(per_goal)]

    async def drafts(self, goals, *, attacker, per_goal, seed):
        attacker.dropped["refused"] += len(self.fail)
        return [
            [
                Draft(prompt=f"{goal} ({at})", turns=("hello",), notes={"technique": "numbers"})
                for at in range(per_goal)
            ]
            if goal not in self.fail
            else []
            for goal in goals
        ]


def test_models_write_what_is_left_open(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    config = GenerateConfig(
        plugins=("pii",), strategies=("plain", "paraphrase", "paraphrase+hex"), max_tests=30
    )
    plan = preview(store, config)
    assert plan.pending
    assert all(not case.strategies for case in plan.test_set)
    goals = {slot.goal.text for slot in plan.pending.values()}
    refused = frozenset(sorted(goals)[:1])
    monkeypatch.setattr(model_driven, "get_model_strategy", lambda name: Scribe(refused))
    attacker = SimpleNamespace(dropped=Counter())
    assert planned(plan, attacker)
    done = asyncio.run(fill(plan, attacker))
    assert done.dropped == {"refused": 1}
    assert {slot.goal.text for slot in done.pending.values()} == refused
    assert len(done.test_set) == len(plan.slots) - len(done.pending)
    written = [case for case in done.test_set if case.strategies]
    assert len({(*case.turns, case.prompt) for case in written}) == len(written)
    for case in written:
        layers = case.metadata.get("layers", [])
        payload = layers[-1]
        text = bytes.fromhex(payload).decode() if "hex" in case.strategies else payload
        assert text.startswith(case.goal)
        assert payload in case.prompt
        assert case.turns == ("hello",)
        assert case.metadata["draft"] == {"technique": "numbers"}
