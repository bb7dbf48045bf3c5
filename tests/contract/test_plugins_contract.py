"""What every registered plugin promises."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from workbench.campaign.plugins.application import load_attacks
from workbench.campaign.plugins.catalog import PLUGINS, TAXONOMY, Plugin
from workbench.campaign.plugins.goals import PAYLOAD, Goal, GoalPool, GoalSource
from workbench.campaign.plugins.taxonomy import OWASP
from workbench.campaign.profile import Profile, parse_profile, profile_template
from workbench.campaign.triage import SEVERITY_WEIGHTS
from workbench.core.errors import DataError
from workbench.core.files import read_object
from workbench.core.redact import redact
from workbench.core.settings import seeds_folder
from workbench.data.requests import HARM_CATEGORIES, load_benign, load_requests
from workbench.judge.assertions import check_assertions

ALL = [pytest.param(plugin, id=name) for name, plugin in PLUGINS]
APPLICATION = [pytest.param(one, id=name) for name, one in PLUGINS if not one.needs_pair_set]
BARE = parse_profile("# Purpose\n\nTell the time.\n")
FAMILIES = ("LLM", "AML.", "NIST.AI.600-1:")
DOCS = Path(__file__).parents[2] / "docs" / "plugins.md"


@pytest.fixture(scope="module")
def pool() -> GoalPool:
    requests = [*load_requests(), *load_benign()]
    return GoalPool(
        pair_set="x",
        by_category={
            name: tuple(one.request for one in requests if one.category == name)
            for name in (*HARM_CATEGORIES, "benign")
        },
        lookalikes=frozenset(one.request for one in requests if one.lookalike),
    )


def source(pool: GoalPool | None, *, profile: Profile | None = None, seed: int = 0) -> GoalSource:
    def load() -> GoalPool:
        if pool is None:
            raise DataError("no pair set; run 01_expand_pairs")
        return pool

    return GoalSource(load=load, profile=profile, seed=seed)


@pytest.mark.parametrize("profile", [None, parse_profile(profile_template())], ids=["none", "shop"])
@pytest.mark.parametrize("plugin", ALL)
def test_goals_are_distinct_stable_and_decidable(
    plugin: Plugin, pool: GoalPool, profile: Profile | None
) -> None:
    goals = plugin.goals(source(pool, profile=profile))
    assert goals == plugin.goals(source(pool, profile=profile))
    assert len({goal.text for goal in goals}) == len(goals) >= 15
    assert plugin.why_skipped(source(pool, profile=profile)) == ""
    for goal in goals:
        assert goal.text.strip()
        assert goal.category == plugin.category
        check_assertions(goal.assertions)
        assert goal.frame.count(PAYLOAD) == bool(goal.frame)
        assert goal.framed(PAYLOAD) == (goal.frame or PAYLOAD)
        leftover = re.findall(r"\{[a-z]+\}", goal.text + goal.frame.replace(PAYLOAD, ""))
        assert not leftover
        # What is stored is redacted first: nothing in a goal may depend on what that removes.
        assert redact(goal.framed(goal.text)) == goal.framed(goal.text)


@pytest.mark.parametrize("plugin", APPLICATION)
def test_application_plugins_need_no_pair_set(plugin: Plugin) -> None:
    without = source(None)
    assert len(plugin.goals(without)) == len(load_attacks()[plugin.name])
    assert without.pair_set == ""


@pytest.mark.parametrize("plugin", APPLICATION)
def test_another_seed_gives_other_canaries(plugin: Plugin) -> None:
    first, second = (plugin.goals(source(None, seed=seed)) for seed in (0, 1))
    words = [_canaries(goals) for goals in (first, second)]
    assert words[0].isdisjoint(words[1])
    assert len(words[0]) == sum(len(_canaries([goal])) for goal in first)


@pytest.mark.parametrize("plugin", APPLICATION)
def test_the_attack_itself_does_not_say_the_canary(plugin: Plugin) -> None:
    """An answer that quotes the attack while it declines is no success."""
    for goal in plugin.goals(source(None)):
        assert not any(canary in goal.text for canary in _canaries([goal]))


def test_what_a_plugin_lacks_is_said(pool: GoalPool) -> None:
    empty = GoalPool(pair_set="x", by_category={"other": ("a",)}, lookalikes=frozenset())
    for name, plugin in PLUGINS:
        lacking = source(empty, profile=BARE)
        reason = plugin.why_skipped(lacking)
        assert bool(reason) == (plugin.needs_pair_set or plugin.needs_tools), name
        assert bool(reason) != bool(plugin.goals(lacking)), name
        assert "pair set" in plugin.why_skipped(source(None)) or not plugin.needs_pair_set
    assert "no tools" in PLUGINS.get("tool-misuse").why_skipped(source(pool, profile=BARE))


@pytest.mark.parametrize("plugin", ALL)
def test_severity_taxonomy_and_targets_are_known(plugin: Plugin) -> None:
    assert plugin.severity in SEVERITY_WEIGHTS
    assert set(plugin.taxonomy) <= set(TAXONOMY)
    families = [any(one.startswith(family) for one in plugin.taxonomy) for family in FAMILIES]
    assert families == [not plugin.is_control] * len(FAMILIES)
    assert {"model"} <= plugin.applies_to <= {"guard", "model"}
    assert (plugin.category == "benign") == plugin.is_control
    assert PLUGINS.get(plugin.name) is plugin


def test_no_goal_belongs_to_two_plugins(pool: GoalPool) -> None:
    counts = Counter(goal.text for _, plugin in PLUGINS for goal in plugin.goals(source(pool)))
    assert max(counts.values()) == 1


def test_every_shipped_goal_has_a_plugin() -> None:
    assert set(load_attacks()) == {name for name, one in PLUGINS if not one.needs_pair_set}


def test_every_shared_list_of_assertions_is_used() -> None:
    shared = read_object(seeds_folder() / "attacks" / "assertions.json")
    used = [list(one.assertions) for attacks in load_attacks().values() for one in attacks]
    assert all(one in used for one in shared.values())
    assert not any(len(one) != 1 for one in used if one)


def test_each_harm_has_one_plugin_and_benign_goals_are_shared_out(pool: GoalPool) -> None:
    held_out = [plugin for _, plugin in PLUGINS if plugin.needs_pair_set]
    harms = [plugin.category for plugin in held_out if not plugin.is_control]
    assert sorted(harms) == sorted(HARM_CATEGORIES)
    for category in (*HARM_CATEGORIES, "benign"):
        plugins = [plugin for plugin in held_out if plugin.category == category]
        texts = [goal.text for plugin in plugins for goal in plugin.goals(source(pool))]
        assert sorted(texts) == sorted(pool.by_category[category])


def test_all_ten_risks_of_owasp_are_there() -> None:
    assert list(OWASP) == [f"LLM{number:02d}:2025" for number in range(1, 11)]


def test_the_page_lists_every_plugin() -> None:
    rows = "\n".join(_row(plugin) for _, plugin in PLUGINS)
    assert rows in DOCS.read_text(encoding="utf-8"), f"docs/plugins.md: put in this table\n{rows}"


def _row(plugin: Plugin) -> str:
    kinds = ", ".join(sorted(plugin.applies_to))
    ids = ", ".join(plugin.taxonomy) or "control"
    about = f"`{plugin.name}` | {plugin.about} | {plugin.category}"
    return f"| {about} | {plugin.severity} | {kinds} | {ids} |"


def _canaries(goals: tuple[Goal, ...] | list[Goal]) -> set[str]:
    decided = [str(one.get("value", "")) for goal in goals for one in goal.assertions]
    return {word for text in decided for word in re.findall(r"[a-z]+-[a-z]+-\d{4}", text)}
