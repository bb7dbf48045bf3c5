from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import select

from campaign_fakes import make_case, make_set
from workbench.campaign import testsets
from workbench.campaign.interop import promptfoo_id, promptfoo_tests
from workbench.core.errors import DataError, StoreError
from workbench.store import schema
from workbench.store.database import Store, open_store
from workbench.store.records import TestSet


def as_user(store: Store, name: str) -> Store:
    return open_store(replace(store.settings, user=name))


def test_what_was_saved_is_loaded(store: Store) -> None:
    hostile = make_case(9, prompt="\x00\u2028\u200b</script>\r\n' é 漢", metadata={"layers": ["x"]})
    saved = TestSet(cases=(*make_set(3, 2).cases, hostile), recipe={"seed": 4})
    found = testsets.load(store, testsets.save(store, saved))
    assert found == saved
    assert found.id == saved.id


def test_the_same_content_is_one_copy_with_several_owners(store: Store) -> None:
    other = as_user(store, "other")
    first = testsets.save(store, make_set(4))
    second = testsets.save(other, replace(make_set(4), recipe={"mine": True}))
    assert first == second
    assert store.artifacts.newest("test_set") == first
    assert testsets.list_test_sets(store)[0].recipe == {}
    assert testsets.list_test_sets(other)[0].recipe == {"mine": True}
    other.engine.dispose()


def test_nobody_sees_another_owners_test_set(store: Store) -> None:
    other = as_user(store, "other")
    test_set_id = testsets.save(store, make_set(2))
    assert testsets.list_test_sets(other) == []
    with pytest.raises(DataError, match="'other' owns no test set"):
        testsets.load(other, test_set_id)
    other.engine.dispose()


def test_saving_twice_changes_nothing(store: Store) -> None:
    testsets.save(store, make_set(2))
    before = testsets.list_test_sets(store)
    testsets.save(store, replace(make_set(2), recipe={"late": 1}))
    assert testsets.list_test_sets(store) == before
    with store.engine.connect() as connection:
        assert len(connection.execute(select(schema.test_set_owners)).all()) == 1


def test_empty_id_is_the_newest_of_the_user(store: Store) -> None:
    testsets.save(store, make_set(1))
    newest = testsets.save(store, make_set(2))
    assert testsets.load(store).id == newest


def test_list_tells_size_and_promptfoo_id(store: Store) -> None:
    testsets.save(store, make_set(3))
    (row,) = testsets.list_test_sets(store)
    assert (row.tests, row.promptfoo_id) == (3, promptfoo_id(promptfoo_tests(make_set(3))))


def test_without_any_the_message_says_where_to_get_one(store: Store) -> None:
    with pytest.raises(DataError, match="04_generate_tests"):
        testsets.load(store)


def test_empty_and_repeating_sets_are_refused(store: Store) -> None:
    with pytest.raises(DataError, match="no cases"):
        testsets.save(store, TestSet(cases=()))
    with pytest.raises(DataError, match="1 cases twice"):
        testsets.save(store, TestSet(cases=(make_case(1), make_case(1))))


@pytest.mark.parametrize("damage", [b"", b"not zstd at all"])
def test_a_damaged_file_is_named(store: Store, damage: bytes) -> None:
    test_set_id = testsets.save(store, make_set(2))
    path = store.artifacts.path("test_set", test_set_id) / "cases.jsonl.zst"
    path.write_bytes(damage)
    with pytest.raises(StoreError, match=r"cases\.jsonl\.zst"):
        testsets.load(store, test_set_id)


def test_changed_content_is_noticed(store: Store) -> None:
    one, two = testsets.save(store, make_set(2)), testsets.save(store, make_set(3))
    other = store.artifacts.path("test_set", two) / "cases.jsonl.zst"
    (store.artifacts.path("test_set", one) / "cases.jsonl.zst").write_bytes(other.read_bytes())
    with pytest.raises(StoreError, match="no longer matches"):
        testsets.load(store, one)
