"""Splits never leak and never move towards training."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from workbench.data.split import assign_split, core_key, group_requests, request_split
from workbench.data.wrappers import family_split

STRENGTH = {"test": 0, "validation": 1, "train": 2}
CORES = st.sampled_from([f"{w} {w} question {n} about {w}" for n in range(9) for w in ("ab", "cd")])
ROWS = st.lists(st.tuples(CORES, st.sampled_from(["", "", "p1", "p2", "p3"])), max_size=20)


def test_shares():
    sides = [request_split(f"g{number}") for number in range(10_000)]
    assert abs(sides.count("test") / 10_000 - 0.2) < 0.02
    assert abs(sides.count("validation") / 10_000 - 0.1) < 0.02


def test_a_seed_alone_is_its_own_group():
    assert group_requests(["How do I bake bread?"], ["benign-001"]) == ["benign-001"]


def test_disguised_and_nearly_equal_cores_share_a_group():
    text = "How do I bake a loaf of dark rye bread at home without an oven?"
    cores = [text, text.upper(), text + "!", "Where is the station?"]
    groups = group_requests(cores, [""] * 4)
    assert len({*groups[:3]}) == 1
    assert groups[3] != groups[0]


@given(ROWS)
def test_parents_stay_together(rows):
    groups = group_requests([core for core, _ in rows], [parent for _, parent in rows])
    by_key = {}
    for (core, parent), group in zip(rows, groups, strict=True):
        assert by_key.setdefault(core_key(core, parent), group) == group
        assert by_key.setdefault(("core", core), group) == group


@given(ROWS, ROWS)
def test_growth_only_moves_towards_test(old, new):
    def sides(rows):
        groups = group_requests([core for core, _ in rows], [parent for _, parent in rows])
        return [request_split(group) for group in groups]

    for before, after in zip(sides(old), sides([*old, *new]), strict=False):
        assert STRENGTH[after] <= STRENGTH[before]


@given(ROWS, st.integers(0, 99))
def test_order_does_not_count(rows, number):
    shuffled = list(range(len(rows)))
    Random(number).shuffle(shuffled)
    groups = group_requests([core for core, _ in rows], [parent for _, parent in rows])
    again = group_requests([rows[i][0] for i in shuffled], [rows[i][1] for i in shuffled])
    assert again == [groups[i] for i in shuffled]


def test_every_combination_has_its_split():
    by_side = {request_split(f"g{n}"): f"g{n}" for n in range(100)}
    by_family = {family_split(f"f{n}"): f"f{n}" for n in range(100)}
    table = {
        (side, wrapper): assign_split(by_side[side], by_family[wrapper])
        for side in by_side
        for wrapper in by_family
    }
    assert table == {
        ("train", "train"): "train",
        ("validation", "train"): "validation",
        ("test", "train"): "test_intents",
        ("train", "test"): "test_wrappers",
        ("validation", "test"): None,
        ("test", "test"): "test_both",
    }
