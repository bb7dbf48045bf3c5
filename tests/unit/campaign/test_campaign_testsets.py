from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import select

from campaign_fakes import make_case, make_set
from workbench.campaign import testsets
from workbench.campaign.interop.promptfoo import promptfoo_id, promptfoo_tests
from workbench.core.errors import DataError, StoreError
from workbench.store import schema
from workbench.store import test_sets as rows
from workbench.store.database import Store, open_store
from workbench.store.events import events
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
    (after,) = testsets.list_test_sets(store)
    assert [replace(after, created_at=one.created_at) for one in before] == before
    assert after.created_at >= before[0].created_at  # made again: now the newest
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
    with pytest.raises(DataError, match="workbench campaign generate"):
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


def test_a_stored_set_reads_as_the_one_in_memory(store: Store) -> None:
    hostile = make_case(9, prompt="\x00\u2028\ud800 </script>\r\n' é 漢", turns=("a\nb",))
    saved = TestSet(cases=(*make_set(2_000).cases, hostile))
    found = testsets.stored(store, testsets.save(store, saved))
    assert len(found) == 2_001
    assert tuple(found) == tuple(found) == saved.cases
    assert found.id == saved.id


def test_a_whole_id_is_found_without_reading_the_list(store: Store, monkeypatch) -> None:
    kept = testsets.save(store, make_set(2))
    monkeypatch.setattr(rows, "owned_test_sets", None)
    assert testsets.stored(store, kept).id == kept
    assert testsets.share(store, kept, user="other") == kept


def test_ids_may_be_cut_short_and_tags_name_sets(store: Store) -> None:
    first, second = testsets.save(store, make_set(1)), testsets.save(store, make_set(2))
    assert testsets.stored(store, second[:10]).id == second
    rows.add_tag(store.engine, first, "nightly", owner=store.settings.user)
    rows.add_tag(store.engine, first, "nightly", owner=store.settings.user)
    assert testsets.stored(store, "nightly").id == first
    assert [one.id for one in testsets.list_test_sets(store, tag="nightly")] == [first]
    rows.add_tag(store.engine, second, "nightly", owner=store.settings.user)
    with pytest.raises(DataError, match="several test sets"):
        testsets.stored(store, "nightly")
    rows.remove_tag(store.engine, first, "nightly", owner=store.settings.user)
    assert testsets.stored(store, "nightly").id == second


def test_a_part_is_linked_to_its_whole(store: Store) -> None:
    whole = testsets.save(store, make_set(4, 2))
    part = testsets.subset(store, whole, lambda case: case.is_control, why={"is_control": True})
    assert [case.is_control for case in testsets.stored(store, part)] == [True, True]
    (_, row) = testsets.list_test_sets(store)
    assert (row.parent, row.recipe["part_of"]) == (whole, whole)
    for keep in (True, False):
        with pytest.raises(DataError, match="is kept; choose another part"):
            testsets.subset(store, whole, lambda _, keep=keep: keep, why={})


def test_the_difference_of_two_sets(store: Store) -> None:
    one, two = testsets.save(store, make_set(3)), testsets.save(store, make_set(2, 1))
    found = testsets.compare(store, one, two)
    assert found.common == 2
    assert [case.is_control for case in found.added] == [True]
    assert [case.goal for case in found.removed] == [make_case(2).goal]


def test_shared_with_somebody_it_is_theirs_too(store: Store) -> None:
    other = as_user(store, "other")
    test_set_id = testsets.save(store, make_set(2))
    with pytest.raises(DataError, match="owns no test set"):
        testsets.share(other, test_set_id, user="third")
    testsets.share(store, test_set_id, user="other")
    assert testsets.load(other, test_set_id) is not None
    (theirs,) = testsets.list_test_sets(other)
    assert theirs.recipe["shared_by"] == store.settings.user
    other.engine.dispose()


def test_content_goes_with_its_last_owner(store: Store) -> None:
    other = as_user(store, "other")
    test_set_id = testsets.save(store, make_set(2))
    testsets.share(store, test_set_id, user="other")
    assert testsets.delete(store, test_set_id) == (test_set_id, False)
    assert testsets.list_test_sets(store) == []
    assert len(testsets.load(other, test_set_id)) == 2
    path = testsets.stored(other, test_set_id).path
    assert testsets.delete(other, test_set_id) == (test_set_id, True)
    assert not path.exists()
    assert testsets.save(store, make_set(2)) == test_set_id  # and may come back
    other.engine.dispose()


def test_what_was_measured_with_or_cut_from_stays(store: Store, monkeypatch) -> None:
    whole = testsets.save(store, make_set(2, 1))
    monkeypatch.setattr(rows, "owned_test_sets", None)  # which may be long
    part = testsets.subset(store, whole, lambda case: case.is_control, why={})
    with pytest.raises(DataError, match=f"in use by {part[:12]}"):
        testsets.delete(store, whole)
    with store.artifacts.create("execution", "e" * 64, {"test_set": part}):
        pass
    with pytest.raises(DataError, match="in use by eeee"):
        testsets.delete(store, part)
    store.artifacts.remove("execution", "e" * 64)
    assert testsets.delete(store, part) == (part, True)
    assert testsets.delete(store, whole) == (whole, True)


def test_saving_tells_an_event_with_what_it_cost(store: Store) -> None:
    test_set_id = testsets.save(store, make_set(3), cost_usd="0.12")
    (told,) = events(store.engine, kind="test_set_generated")
    assert (told.subject, told.details["cost_usd"]) == (test_set_id, "0.12")
