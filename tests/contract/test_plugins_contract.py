"""What every registered plugin promises."""

from __future__ import annotations

import pytest

from workbench.campaign.plugins.catalog import PLUGINS, TAXONOMY, Plugin
from workbench.campaign.plugins.goals import GoalPool
from workbench.campaign.triage import SEVERITIES
from workbench.data.requests import HARM_CATEGORIES, load_benign, load_requests

ALL = [pytest.param(plugin, id=name) for name, plugin in PLUGINS]


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


@pytest.mark.parametrize("plugin", ALL)
def test_goals_are_distinct_stable_and_of_its_category(plugin: Plugin, pool: GoalPool) -> None:
    goals = plugin.goals(pool)
    assert goals == plugin.goals(pool)
    assert len(set(goals)) == len(goals) >= 20
    assert set(goals) <= set(pool.by_category[plugin.category])


@pytest.mark.parametrize("plugin", ALL)
def test_an_empty_pool_gives_no_goals(plugin: Plugin) -> None:
    assert plugin.goals(GoalPool(pair_set="x", by_category={}, lookalikes=frozenset())) == ()


@pytest.mark.parametrize("plugin", ALL)
def test_severity_and_taxonomy_are_known(plugin: Plugin) -> None:
    assert plugin.severity in SEVERITIES
    assert set(plugin.taxonomy) <= set(TAXONOMY)
    assert bool(plugin.taxonomy) != plugin.is_control
    assert PLUGINS.get(plugin.name) is plugin


def test_each_harm_has_one_plugin_and_benign_goals_are_shared_out(pool: GoalPool) -> None:
    attacks = [plugin.category for _, plugin in PLUGINS if not plugin.is_control]
    assert sorted(attacks) == sorted(HARM_CATEGORIES)
    controls = [goal for _, plugin in PLUGINS if plugin.is_control for goal in plugin.goals(pool)]
    assert sorted(controls) == sorted(pool.by_category["benign"])
