"""Test sets under the name of their content: one copy, any number of owners."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from workbench.campaign.interop import promptfoo_id, promptfoo_tests
from workbench.core.errors import DataError, StoreError
from workbench.core.identity import canonical_json
from workbench.store.campaigns import add_test_set_owner, owned_test_sets
from workbench.store.database import Store
from workbench.store.records import TestCase, TestSet

__all__ = ["OwnedTestSet", "list_test_sets", "load", "save"]

_CASES_FILE = "cases.jsonl.zst"


@dataclass(frozen=True, kw_only=True)
class OwnedTestSet:
    """A test set as its owner's list shows it."""

    id: str
    created_at: str
    """When this owner first saved it, ISO 8601 UTC."""
    tests: int
    promptfoo_id: str
    recipe: dict[str, Any]
    """How this owner made it."""


def save(store: Store, test_set: TestSet) -> str:
    """Return the id of a test set, stored once and owned by the user of the store.

    Writes to the store. Equal content saved by others is shared, each with an own recipe.

    Raises:
        DataError: If there are no cases, or one occurs twice.
        StoreError: If the disk is full or read-only.
    """
    ids = [case.id for case in test_set.cases]
    if not ids:
        raise DataError("the test set has no cases; choose more plugins or strategies")
    if len(set(ids)) < len(ids):
        raise DataError(f"the test set holds {len(ids) - len(set(ids))} cases twice; drop them")
    theirs = promptfoo_id(promptfoo_tests(test_set))
    facts: dict[str, Any] = {"tests": len(ids), "promptfoo_id": theirs}
    if not store.artifacts.exists("test_set", test_set.id):
        lines = "".join(canonical_json(case.to_json()) + "\n" for case in test_set.cases)
        with (
            store.artifacts.create("test_set", test_set.id, dict(facts)) as folder,
            pa.output_stream(folder / _CASES_FILE, compression="zstd") as packed,
        ):
            packed.write(lines.encode("utf-8", "surrogatepass"))
    facts["recipe"] = test_set.recipe
    add_test_set_owner(store.engine, test_set.id, owner=store.settings.user, metadata=facts)
    return test_set.id


def load(store: Store, test_set_id: str = "") -> TestSet:
    """Return a test set of the user of the store; an empty id means the newest.

    Raises:
        DataError: If this user owns none of that id.
        StoreError: If its file is damaged.
    """
    owned = {one.id: one for one in list_test_sets(store)}
    test_set_id = test_set_id or next(reversed(owned), "")
    if test_set_id not in owned:
        user = store.settings.user
        known = ", ".join(one[:12] for one in list(owned)[-3:]) or "none; run 04_generate_tests"
        raise DataError(f"{user!r} owns no test set {test_set_id!r}; newest: {known}")
    path = store.artifacts.path("test_set", test_set_id) / _CASES_FILE
    try:
        with pa.input_stream(path, compression="zstd") as packed:
            lines = packed.read().decode("utf-8", "surrogatepass").split("\n")
        cases = tuple(TestCase.from_json(json.loads(line)) for line in lines if line)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: damaged ({error}); generate the test set again") from error
    found = TestSet(cases=cases, recipe=owned[test_set_id].recipe)
    if found.id != test_set_id:
        raise StoreError(f"{path}: content no longer matches its id; generate the test set again")
    return found


def list_test_sets(store: Store) -> list[OwnedTestSet]:
    """Return the test sets of the user of the store, oldest first, and nobody else's."""
    return [
        OwnedTestSet(id=row["test_set"], created_at=row["created_at"], **row["metadata"])
        for row in owned_test_sets(store.engine, owner=store.settings.user)
    ]
