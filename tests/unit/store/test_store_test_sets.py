"""Who owns a test set, and its tags: checked against a model of plain sets."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine

from workbench.store.schema import metadata
from workbench.store.test_sets import (
    add_tag,
    add_test_set_owner,
    owned_test_sets,
    owners_of,
    remove_tag,
    remove_test_set_owner,
    tags_of,
)

SETS, USERS, TAGS = ("a" * 64, "b" * 64), ("ana", "bo", "%"), ("nightly", "", "x\x1b[2J", "ü" * 64)

steps_ = st.lists(
    st.one_of(
        st.tuples(st.just("own"), st.sampled_from(SETS), st.sampled_from(USERS), st.integers(0, 3)),
        st.tuples(st.just("disown"), st.sampled_from(SETS), st.sampled_from(USERS)),
        st.tuples(
            st.sampled_from(["tag", "untag"]), st.sampled_from(SETS), st.sampled_from(USERS),
            st.sampled_from(TAGS),
        ),
    ),
    max_size=30,
)  # fmt: skip


@pytest.fixture(scope="module")
def engine():
    made = create_engine("sqlite://")
    yield made
    made.dispose()


@given(steps=steps_)
def test_whatever_is_done_lists_say_what_a_set_would(engine, steps):
    metadata.drop_all(engine)
    metadata.create_all(engine)
    owners: dict[tuple[str, str], int] = {}
    tags: set[tuple[str, str, str]] = set()
    for name, one, user, *more in steps:
        if name == "own":
            add_test_set_owner(engine, one, owner=user, metadata={"n": more[0]})
            owners.setdefault((one, user), more[0])  # the first words stand
        elif name == "disown":
            left = remove_test_set_owner(engine, one, owner=user)
            owners.pop((one, user), None)
            tags -= {mine for mine in tags if mine[:2] == (one, user)}
            assert left == sum(known == one for known, _ in owners)
        elif name == "tag":
            add_tag(engine, one, more[0], owner=user)
            tags.add((one, user, more[0]))
        else:
            remove_tag(engine, one, more[0], owner=user)
            tags.discard((one, user, more[0]))
    for user in USERS:
        rows = owned_test_sets(engine, owner=user)
        told = {row["test_set"]: row["metadata"]["n"] for row in rows}
        assert told == {one: n for (one, who), n in owners.items() if who == user}
        assert len(rows) == len(told)
        assert [row["created_at"] for row in rows] == sorted(row["created_at"] for row in rows)
        mine = {one: sorted(t for o, w, t in tags if (o, w) == (one, user)) for one in SETS}
        assert tags_of(engine, owner=user) == {one: some for one, some in mine.items() if some}
    for one in SETS:
        assert owners_of(engine, one) == sorted(who for known, who in owners if known == one)


def test_of_owners_at_once_each_is_there_once(store):
    barrier = threading.Barrier(8)

    def claim(number: int) -> None:
        barrier.wait(10)
        user = f"user{number % 2}"
        add_test_set_owner(store.engine, SETS[0], owner=user, metadata={"n": number % 2})
        add_tag(store.engine, SETS[0], "nightly", owner=user)

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert owners_of(store.engine, SETS[0]) == ["user0", "user1"]
    assert tags_of(store.engine, owner="user1") == {SETS[0]: ["nightly"]}
