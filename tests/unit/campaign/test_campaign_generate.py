from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from workbench.campaign import testsets
from workbench.campaign.generate import CPU_S_PER_CALL, GenerateConfig, preview
from workbench.campaign.plugins.catalog import PLUGINS
from workbench.campaign.plugins.goals import load_goals
from workbench.campaign.strategies.catalog import default_chains, parse_chain
from workbench.core.errors import ConfigError, DataError
from workbench.data.build import load_pairs
from workbench.data.wrappers import family_split
from workbench.store.database import Store


def test_no_goal_was_seen_in_training_or_validation(seeded_store: Store) -> None:
    frame = load_pairs(seeded_store, "").frame
    seen = set(frame[frame["split"].isin(["train", "validation", "test_wrappers"])]["core"])
    cases = preview(seeded_store, GenerateConfig()).test_set.cases
    assert {case.goal for case in cases}.isdisjoint(seen)


def test_every_wrapper_is_held_out(seeded_store: Store) -> None:
    wrappers = [chain for chain in default_chains() if chain.startswith("wrap-")]
    assert len(wrappers) >= 6
    families = {chain.removeprefix("wrap-").partition("+")[0] for chain in wrappers}
    assert {family_split(family) for family in families} == {"test"}


def test_all_harms_and_both_controls_are_there(seeded_store: Store) -> None:
    cases = preview(seeded_store, GenerateConfig()).test_set.cases
    assert {case.plugin for case in cases} == set(PLUGINS.names())
    assert len({case.category for case in cases if not case.is_control}) == 6


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
    assert max(counts.values()) <= 2 * min(counts.values())


def test_controls_do_not_crowd_attacks_out(seeded_store: Store) -> None:
    cases = preview(seeded_store, GenerateConfig()).test_set.cases
    counts = Counter(case.plugin for case in cases)
    largest = max(count for name, count in counts.items() if name.startswith("harm-"))
    assert all(counts[name] <= largest + 1 for name in counts)


def test_prompts_are_what_the_chain_makes_of_the_goal(seeded_store: Store) -> None:
    for case in preview(
        seeded_store, GenerateConfig(strategies=("rot13+base64", "hex"))
    ).test_set.cases:
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


def test_without_a_pair_set_nothing_starts(store: Store) -> None:
    with pytest.raises(DataError, match=r"pair set.*01_expand_pairs"):
        preview(store, GenerateConfig())
