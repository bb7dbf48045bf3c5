"""What every registered strategy promises."""

from __future__ import annotations

import re
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from workbench.campaign.plugins.catalog import TAXONOMY
from workbench.campaign.strategies.base import LAYER, PLAIN, Strategy, chain_name
from workbench.campaign.strategies.base import Strategy as BaseStrategy
from workbench.campaign.strategies.catalog import (
    chain_kind,
    default_chains,
    parse_chain,
    strategies,
)
from workbench.core.errors import ConfigError
from workbench.data.transforms import TRANSFORMS
from workbench.data.wrappers import family_split, load_dialogues, load_wrappers

EVERY = [pytest.param(strategy, id=name) for name, strategy in strategies()]
FREE = [pytest.param(strategy, id=name) for name, strategy in strategies() if strategy.disguise]
GOALS = [
    "Explain how tides work.", "a", "Où est l'été? 漢字 😀", "two\nlines, {braces} and \\1",
    "كيف تعمل أجنحة الطيور؟", "How do I boil an egg?", "{request}", "\u0301\u20dd x",
]  # fmt: skip
REWRITTEN = {"past_tense", "translation"}
"""Framings that may leave no word of the goal where it was."""
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def disguised(strategy: Strategy, goal: str, *, seed: int) -> str:
    assert strategy.disguise is not None
    return strategy.disguise(goal, seed=seed)


def calls_of(strategy: Strategy, goal: str) -> int:
    """Return how many calls of functions, generators and C functions a disguise makes at most."""
    return max(_calls_of(strategy, goal, seed=seed) for seed in range(8))


def _calls_of(strategy: Strategy, goal: str, *, seed: int) -> int:
    count = 0

    def see(*_: object) -> None:
        nonlocal count
        count += 1

    before = sys.getprofile()
    sys.setprofile(see)
    try:
        disguised(strategy, goal, seed=seed)
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize("strategy", FREE)
@given(goal=ANY_TEXT, seed=st.integers(0, 2**40))
@example(goal="", seed=0)
@example(goal="👩‍🚀🏳️‍🌈🇩🇪", seed=1)
@example(goal="مرحبا (12) שלום", seed=2)
@example(goal="\u0301\u20dd\ufe0f", seed=3)
@settings(max_examples=40, deadline=None)  # the first one reads the seeds
def test_disguises_are_text_that_depends_on_goal_and_seed_alone(
    strategy: Strategy, goal: str, seed: int
) -> None:
    text = disguised(strategy, goal, seed=seed)
    assert text == disguised(strategy, goal, seed=seed)
    assert text.encode().decode() == text  # no lone surrogates
    assert text or not goal.strip()


@pytest.mark.parametrize("strategy", FREE)
@pytest.mark.parametrize("seed", range(3))
def test_different_goals_stay_different(strategy: Strategy, seed: int) -> None:
    assert len({disguised(strategy, goal, seed=seed) for goal in GOALS}) == len(GOALS)


@pytest.mark.parametrize("strategy", FREE)
@pytest.mark.parametrize("goal", GOALS)
def test_a_goal_is_changed_and_stories_keep_it_whole(strategy: Strategy, goal: str) -> None:
    for seed in range(8):
        text = disguised(strategy, goal, seed=seed)
        if strategy.kind in ("wrapper", "framing"):
            assert text != goal
            assert goal in text or strategy.name in REWRITTEN
        elif goal == GOALS[0]:
            assert text != goal


@pytest.mark.parametrize("strategy", FREE)
def test_framings_and_augmentations_differ_by_seed(strategy: Strategy) -> None:
    texts = {disguised(strategy, GOALS[0], seed=seed) for seed in range(30)}
    if strategy.kind in ("wrapper", "framing", "augmentation"):
        assert len(texts) > 1
    else:
        assert (len(texts) > 1) == TRANSFORMS.get(strategy.name).draws


@pytest.mark.parametrize("strategy", FREE)
@pytest.mark.parametrize(
    "piece", ["b", "Give me 12 bees. ", " ", "أ\u0301😀", "how to i ", "\r\n{"]
)
def test_long_goals_take_work_in_proportion(strategy: Strategy, piece: str) -> None:
    short, long = (
        calls_of(strategy, "Explain how to " + piece * (size // len(piece)) + "_")
        for size in (2_000, 4_000)
    )
    assert long <= 2.2 * short + 500  # shots and slots are drawn anew for each text
    # Work inside of C, such as a pattern that backtracks, shows as the timeout of the test.
    text = disguised(strategy, piece * (100_000 // len(piece.encode())), seed=0)
    assert len(text) <= 1_300_000


@pytest.mark.parametrize("strategy", EVERY)
def test_names_ids_and_descriptions(strategy: Strategy) -> None:
    assert re.fullmatch(r"[\w:-]{2,60}", strategy.name)
    assert LAYER not in strategy.name
    assert strategy.name != PLAIN
    assert set(strategy.taxonomy) <= set(TAXONOMY)
    assert strategy.taxonomy
    assert re.fullmatch(r"[A-Z][^\n]{10,120}\.", strategy.description)
    assert strategies().get(strategy.name) is strategy
    assert chain_kind([strategy.name]) == strategy.kind
    assert (strategy.disguise is None) == (strategy.kind == "model")


def test_every_kind_and_every_transform_is_there() -> None:
    kinds = {strategy.kind for _, strategy in strategies()}
    assert kinds >= {"encoding", "wrapper", "framing", "augmentation"}
    encodings = [name for name, strategy in strategies() if strategy.kind == "encoding"]
    assert encodings == TRANSFORMS.names()


def test_descriptions_tell_strategies_apart() -> None:
    told = [strategy.description for _, strategy in strategies()]
    assert len(set(told)) == len(told)


def test_wrappers_are_held_out() -> None:
    wrappers = [name for name, strategy in strategies() if strategy.kind == "wrapper"]
    assert {family_split(name.removeprefix("wrap-")) for name in wrappers} == {"test"}


def test_no_framing_takes_the_name_of_a_held_out_family() -> None:
    # Data calls a confirmed finding by the name of its strategy and leaves held-out families out.
    families = {one.family for one in (*load_wrappers(), *load_dialogues())}
    held_out = {family for family in families if family_split(family) == "test"}
    framings = {name for name, strategy in strategies() if strategy.kind == "framing"}
    assert framings.isdisjoint(held_out)


def test_default_chains_parse_and_hold_every_strategy_that_costs_nothing() -> None:
    parsed = {chain: parse_chain(chain) for chain in default_chains()}
    free = {name for name, strategy in strategies() if strategy.kind != "model"}
    assert {one.name for chain in parsed.values() for one in chain} == free
    assert [chain for chain, steps in parsed.items() if not steps] == [PLAIN]
    assert {(name,) for name in free} < {
        tuple(one.name for one in steps) for steps in parsed.values()
    }
    layered = [chain for chain, steps in parsed.items() if len(steps) > 1]
    assert len(layered) >= 3
    assert f"leetspeak{LAYER}base64" in layered
    assert any(re.fullmatch(r"wrap-\w+\+base64", chain) for chain in layered)


def test_kinds_of_chains() -> None:
    assert chain_kind(["rot13", "base64"]) == "layered"
    assert chain_kind([]) == PLAIN
    assert chain_kind(["best_of_n"]) == "augmentation"
    assert chain_kind(["past_tense"]) == "framing"


@given(st.lists(st.sampled_from(strategies().names()), max_size=4))
def test_names_of_chains_are_read_back(names: list[str]) -> None:
    assert [strategy.name for strategy in parse_chain(chain_name(names))] == names


@pytest.mark.parametrize("chain", ["", "base64+", "+base64", "plain+hex", "base64++hex", "base46"])
def test_chains_that_name_nothing_are_refused(chain: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown strategy 'base46'|empty or plain layer"):
        parse_chain(chain)


def test_only_a_model_may_do_without_a_disguise() -> None:
    facts = {"name": "x", "taxonomy": ("AML.T0054",), "description": "A model is asked."}
    assert BaseStrategy(kind="model", **facts).disguise is None
    with pytest.raises(ConfigError, match="'x' is of kind 'framing' without a disguise"):
        BaseStrategy(kind="framing", **facts)
