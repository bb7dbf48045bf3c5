"""Dealing: whatever cells, limits and history, it ends, keeps its limits and starves nobody."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.campaign.dealing import Cell, Dealer, Slot, deal
from workbench.campaign.plugins.catalog import Plugin
from workbench.campaign.plugins.goals import Goal
from workbench.campaign.strategies.base import Strategy
from workbench.campaign.strategies.catalog import PLAIN
from workbench.core.identity import text_id


def strategy(name, disguise, kind="encoding"):
    return Strategy(name=name, kind=kind, taxonomy=(), description=name, disguise=disguise)


CHAINS = {
    PLAIN: (),
    "prefix": (strategy("prefix", lambda text, *, seed: f"> {text}"),),
    "same": (strategy("same", lambda text, *, seed: text),),
    "one": (strategy("one", lambda text, *, seed: "always this"),),
    "few": (strategy("few", lambda text, *, seed: f"{text}, {seed % 3}", "augmentation"),),
    "many": (strategy("many", lambda text, *, seed: f"{text}.{seed}", "augmentation"),),
    "model": (strategy("model", None, "model"),),
    "layered": (
        strategy("up", lambda text, *, seed: text.upper()),
        strategy("tail", lambda text, *, seed: f"{text}!"),
    ),
}


def plugin(name, *, is_control=False):
    return Plugin(
        name=name, about="", category="c", severity="low", taxonomy=(), is_control=is_control,
        goals=lambda source: (),
    )  # fmt: skip


def chain(name):
    """Return a chain whose cell is called by the name of its strategies."""
    return CHAINS[name]


def cells_of(plugins, names):
    """Return the full table, as generation makes it; plugins are (is control, goals) by name."""
    return [
        Cell(
            plugin=plugin(name, is_control=is_control), chain=chain(one),
            goals=tuple(Goal(text=f"{name} goal {n}", category="c") for n in range(goals)),
        )
        for name, (is_control, goals) in plugins.items()
        for one in names
    ]  # fmt: skip


plugins_ = st.dictionaries(
    st.sampled_from("pqrs"), st.tuples(st.booleans(), st.integers(0, 6)), min_size=1
)
names_ = st.lists(st.sampled_from(sorted(CHAINS)), min_size=1, unique=True)
counts_ = st.tuples(st.integers(-3, 400), st.integers(-3, 400))


@st.composite
def tables(draw):
    cells = cells_of(draw(plugins_), draw(names_))
    keys = [cell.key for cell in cells]
    known = st.sampled_from([*keys, ("gone", "base64")])
    worked = draw(st.dictionaries(known, counts_, max_size=len(keys)))
    return cells, worked


def dealt(cells, *, most=40, mutations=4, seed=0, worked=None, explore=0.5, with_plain=True):
    dealer = Dealer(seed=seed, most=mutations, with_plain=with_plain)
    return deal(cells, dealer, most=most, seed=seed, worked=worked or {}, explore=explore)


def text_of(slot: Slot) -> str:
    return slot.goal.framed(slot.layers[-1])


@settings(max_examples=200, deadline=2000)
@given(
    table=tables(),
    options=st.fixed_dictionaries(
        {
            "most": st.integers(1, 60), "mutations": st.integers(0, 8), "seed": st.integers(0, 9),
            "explore": st.floats(0, 1), "with_plain": st.booleans(),
        }
    ),
)  # fmt: skip
def test_it_ends_within_its_limits_whatever_the_history(table, options):
    cells, worked = table
    options = {**options, "worked": worked}
    slots = dealt(cells, **options)
    assert slots == dealt(cells, **options)  # a seed decides all
    assert len(slots) <= options["most"]
    disguises = Counter((one.cell.plugin.name, one.goal.text) for one in slots if one.cell.chain)
    assert all(count <= options["mutations"] for count in disguises.values())
    written = [one for one in slots if not one.cell.is_model_driven]
    texts = Counter((one.cell.plugin.name, text_of(one)) for one in written)
    assert set(texts.values()) <= {1}
    for one in written:
        assert (one.layers[0], bool(one.cell.chain)) == (one.goal.text, len(one.layers) > 1)
        assert not one.cell.chain or one.layers[-1] != one.goal.text
    forms = Counter((one.cell.key, one.goal.text, one.variant) for one in slots)
    assert set(forms.values()) <= {1}
    known = {cell.key: {goal.text for goal in cell.goals} for cell in cells}
    bare = {cell.plugin.name: {goal.text for goal in cell.goals} for cell in cells}
    assert all(
        one.goal.text in known.get(one.cell.key, bare[one.cell.plugin.name]) for one in slots
    )


@settings(max_examples=100, deadline=2000)
@given(table=tables(), mutations=st.integers(0, 5), seed=st.integers(0, 5))
def test_with_room_for_all_of_it_every_goal_of_an_attack_is_dealt_all_that_it_may(
    table, mutations, seed
):
    """Goals run out, or their disguises do; a place that stays empty has nobody left to take it."""
    cells, worked = table
    for history in ({}, worked):
        slots = dealt(cells, most=5_000, mutations=mutations, seed=seed, worked=history)
        used = Counter((one.cell.plugin.name, one.goal.text) for one in slots if one.cell.chain)
        for cell in cells:
            if cell.plugin.is_control or "prefix" not in cell.key[1]:
                continue
            mine = {one.goal.text for one in slots if one.cell.key == cell.key}
            for goal in cell.goals:
                assert goal.text in mine or used[cell.plugin.name, goal.text] == mutations


@settings(max_examples=100, deadline=2000)
@given(
    width=st.integers(1, 5), names=st.lists(st.sampled_from(["prefix", "many", "layered", "model"]),
    min_size=1, unique=True), most=st.integers(1, 80), seed=st.integers(0, 9),
)  # fmt: skip
def test_without_history_cells_get_even_shares(width, names, most, seed):
    plugins = {f"p{n}": (False, 100) for n in range(width)}
    cells = cells_of(plugins, names)
    slots = dealt(cells, most=most, mutations=100, seed=seed, with_plain=False)
    shares = Counter(one.cell.key for one in slots)
    counts = [shares[cell.key] for cell in cells]
    assert len(slots) == min(most, 100 * width * len(names))
    assert max(counts) - min(counts) <= 1
    by_plugin = Counter(one.cell.plugin.name for one in slots)
    by_chain = Counter(one.cell.key[1] for one in slots)
    # any beginning has all plugins, and all chains, alike: to one row and one column of the table
    assert max(by_plugin.values()) - min(by_plugin[name] for name in plugins) <= 1
    spread = max(by_chain.values()) - min(by_chain[one] for one in {c.key[1] for c in cells})
    assert spread <= max(width, 1)


@settings(max_examples=100, deadline=2000)
@given(
    attacks=st.integers(0, 3), controls=st.integers(0, 3), most=st.integers(1, 100),
    names=names_, worked=st.dictionaries(
        st.tuples(st.sampled_from(["a0", "c0", "c1"]), st.sampled_from([PLAIN, "prefix", "many"])),
        counts_, max_size=5,
    ),
)  # fmt: skip
def test_a_control_has_no_more_cases_than_the_biggest_attack(
    attacks, controls, most, names, worked
):
    plugins = {f"a{n}": (False, 5) for n in range(attacks)}
    plugins |= {f"c{n}": (True, 50) for n in range(controls)}
    if not plugins:
        return
    slots = dealt(cells_of(plugins, names), most=most, worked=worked)
    shares = Counter(one.cell.plugin.name for one in slots)
    biggest = max((shares[f"a{n}"] for n in range(attacks)), default=most)
    # one case may bring its plain form along
    assert all(shares[f"c{n}"] <= biggest + 1 for n in range(controls))


def test_controls_alone_fill_a_set():
    slots = dealt(cells_of({"c0": (True, 50), "c1": (True, 50)}, [PLAIN]), most=60)
    assert Counter(one.cell.plugin.name for one in slots) == {"c0": 30, "c1": 30}
    worked = {("c0", PLAIN): (9, 10)}
    assert len(dealt(cells_of({"c0": (True, 50)}, [PLAIN]), most=60, worked=worked)) == 50


def test_no_mutation_leaves_the_plain_forms():
    slots = dealt(cells_of({"p": (False, 7)}, sorted(CHAINS)), mutations=0)
    assert {one.cell.chain for one in slots} == {()}
    assert len(slots) == 7
    assert dealt(cells_of({"p": (False, 7)}, ["prefix", "many", "model"]), mutations=0) == []


@pytest.mark.parametrize("explore", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("counts", [(50, 3), (-9, 3), (0, -9), (-5, -5), (10**9, 0)])
def test_counts_that_cannot_be_do_no_harm(counts, explore):
    cells = cells_of({"p": (False, 5), "q": (False, 5)}, ["prefix", "layered"])
    slots = dealt(cells, most=12, worked={("p", "prefix"): counts}, explore=explore)
    assert len(slots) == 12


def test_what_worked_gets_more_and_what_did_not_gets_its_even_share():
    cells = cells_of({"p": (False, 400), "q": (False, 400)}, ["prefix", "layered"])
    worked = {cell.key: (0, 100) for cell in cells} | {("p", "prefix"): (95, 100)}
    shares = Counter(
        one.cell.key for one in dealt(cells, most=200, worked=worked, explore=0.4, with_plain=False)
    )
    assert shares["p", "prefix"] >= 200 * 0.6
    assert min(shares.values()) >= 200 * 0.4 / 4 - 1


def test_what_worked_counts_where_there_are_more_cells_than_places():
    cells = cells_of({f"p{n}": (False, 50) for n in range(40)}, ["prefix", "layered"])
    best = cells[0].key
    worked = {cell.key: (0, 100) for cell in cells} | {best: (95, 100)}
    shares = Counter(
        one.cell.key for one in dealt(cells, most=40, mutations=50, worked=worked, with_plain=False)
    )
    assert shares[best] >= 4  # a case after each draw; evenly dealt it would be one or none


def test_a_disguise_of_few_forms_ends_however_many_are_allowed():
    """Of three forms a millionth is not looked for one by one."""
    began = time.process_time()
    slots = dealt(cells_of({"p": (False, 20)}, ["few", "same"]), most=1_000, mutations=10**6)
    assert Counter(one.cell.key for one in slots if one.cell.chain) == {("p", "few"): 60}
    assert time.process_time() - began < 2


def test_many_goals_take_time_in_proportion():
    began = time.process_time()
    plugins = dict.fromkeys(("p", "q", "r"), (False, 2_000))
    slots = dealt(cells_of(plugins, sorted(CHAINS)), most=20_000, mutations=4)
    assert len(slots) == 20_000
    assert len({text_id(one.cell.plugin.name, one.cell.key[1], text_of(one), str(one.variant))
                for one in slots}) == 20_000  # fmt: skip
    assert time.process_time() - began < 10
