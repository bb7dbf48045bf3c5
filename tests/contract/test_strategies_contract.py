"""What every registered strategy promises."""

from __future__ import annotations

import pytest

from workbench.campaign.plugins.catalog import TAXONOMY
from workbench.campaign.strategies.catalog import (
    LAYER,
    PLAIN,
    Strategy,
    chain_kind,
    default_chains,
    parse_chain,
    strategies,
)
from workbench.data.wrappers import family_split

ALL = [pytest.param(strategy, id=name) for name, strategy in strategies()]
GOALS = ["Explain how tides work.", "a", "Où est l'été? 漢字 😀", "two\nlines, {braces} and \\1"]


@pytest.mark.parametrize("strategy", ALL)
@pytest.mark.parametrize("goal", GOALS)
def test_disguises_are_text_that_depends_on_goal_and_seed_alone(
    strategy: Strategy, goal: str
) -> None:
    text = strategy.disguise(goal, seed=3)
    assert text
    assert text == strategy.disguise(goal, seed=3)
    text.encode()  # no lone surrogates


@pytest.mark.parametrize("strategy", ALL)
def test_different_goals_stay_different(strategy: Strategy) -> None:
    assert len({strategy.disguise(goal, seed=1) for goal in GOALS}) == len(GOALS)


@pytest.mark.parametrize("strategy", ALL)
def test_a_long_goal_is_changed_and_wrappers_keep_it_whole(strategy: Strategy) -> None:
    text = strategy.disguise(GOALS[0], seed=0)
    assert text != GOALS[0]
    assert strategy.kind == "encoding" or GOALS[0] in text


@pytest.mark.parametrize("strategy", ALL)
def test_names_and_ids(strategy: Strategy) -> None:
    assert LAYER not in strategy.name
    assert strategy.name != PLAIN
    assert set(strategy.taxonomy) <= set(TAXONOMY)
    assert strategy.taxonomy
    assert strategies().get(strategy.name) is strategy
    assert chain_kind([strategy.name]) == strategy.kind


def test_wrappers_are_held_out() -> None:
    wrappers = [name for name, strategy in strategies() if strategy.kind == "wrapper"]
    assert {family_split(name.removeprefix("wrap-")) for name in wrappers} == {"test"}


def test_default_chains_parse_and_hold_every_strategy() -> None:
    parsed = {chain: parse_chain(chain) for chain in default_chains()}
    assert {one.name for chain in parsed.values() for one in chain} == set(strategies().names())
    assert [chain for chain, steps in parsed.items() if not steps] == [PLAIN]
    assert chain_kind(["rot13", "base64"]) == "layered"
    assert chain_kind([]) == PLAIN
