"""Test sets under the name of their content: one copy, any number of owners."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from workbench.campaign.strategies.base import chain_name
from workbench.core.errors import ConfigError, DataError, StoreError
from workbench.core.identity import text_id
from workbench.store import test_sets as rows
from workbench.store.campaigns import unfinished
from workbench.store.database import Store
from workbench.store.events import tell
from workbench.store.records import TestCase, TestSet

__all__ = [
    "Difference", "OwnedTestSet", "StoredTestSet", "compare", "delete", "list_test_sets", "load",
    "save", "share", "stored", "subset",
]  # fmt: skip

_CASES_FILE = "cases.jsonl.zst"
_CHUNK = 1 << 20
_MOST_NAME = 200
"""Characters that the store keeps of a name."""


@dataclass(frozen=True, kw_only=True)
class OwnedTestSet:
    """A test set as its owner's list shows it."""

    id: str
    created_at: str
    """When this owner last saved it, ISO 8601 UTC."""
    tests: int
    promptfoo_id: str
    recipe: dict[str, Any]
    """How this owner made it."""
    cost_usd: str = "0"
    """What making it was billed."""
    tags: tuple[str, ...] = ()
    parent: str = ""
    """Test set that it is a part of."""


@dataclass(frozen=True, kw_only=True)
class StoredTestSet:
    """A test set that stays on disk: cases are read as they are asked for, any number of times."""

    id: str
    path: Path
    tests: int
    recipe: dict[str, Any] = field(default_factory=dict)

    def __iter__(self) -> Iterator[TestCase]:
        """Iterate over the cases in their order.

        Raises:
            StoreError: If the file is damaged.
        """
        with _damage_told(self.path):
            for line in _lines(self.path):
                yield TestCase.from_json(json.loads(line))

    def __len__(self) -> int:
        """Return how many cases there are."""
        return self.tests


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What sets one test set apart from another."""

    added: tuple[TestCase, ...]
    """Only in the second."""
    removed: tuple[TestCase, ...]
    """Only in the first."""
    common: int


def save(store: Store, test_set: TestSet, *, cost_usd: str = "0", parent: str = "") -> str:
    """Return the id of a test set, stored once and owned by the user of the store.

    Writes to the store. Equal content saved by others is shared, each with an own recipe.

    Args:
        store: Where to.
        test_set: Its cases and recipe.
        cost_usd: What making it was billed.
        parent: Test set that it is a part of.

    Raises:
        DataError: If there are no cases, or one occurs twice.
        StoreError: If the disk is full or read-only.
    """
    from workbench.campaign.interop.promptfoo import promptfoo_id, promptfoo_tests

    lines = [case.line for case in test_set]
    if not lines:
        raise DataError("the test set has no cases; choose more plugins or strategies")
    if twice := len(lines) - len(set(lines)):
        raise DataError(f"the test set holds {twice} cases twice; drop them")
    for name in {name for case in test_set for name in (case.plugin, chain_name(case.strategies))}:
        if len(name) > _MOST_NAME:
            raise DataError(f"name {name[:80]!r}… has {len(name)} characters; {_MOST_NAME} at most")
    made = text_id(f"[{','.join(lines)}]")
    theirs = promptfoo_id(promptfoo_tests(test_set))
    facts: dict[str, Any] = {"tests": len(lines), "promptfoo_id": theirs}
    if not store.artifacts.exists("test_set", made):
        with (
            store.artifacts.create("test_set", made, dict(facts)) as folder,
            pa.output_stream(folder / _CASES_FILE, compression="zstd") as packed,
        ):
            for line in lines:
                packed.write(f"{line}\n".encode("utf-8", "surrogatepass"))
    user = store.settings.user
    facts |= {"recipe": test_set.recipe, "cost_usd": cost_usd, "parent": parent}
    rows.add_test_set_owner(store.engine, made, owner=user, metadata=facts)
    told = {"tests": len(lines), "cost_usd": cost_usd, "parent": parent}
    tell(store, "test_set_generated", made, told)
    return made


def stored(store: Store, test_set_id: str = "") -> StoredTestSet:
    """Return a test set of the user of the store, left on disk; an empty id means the newest.

    Args:
        store: Where it is.
        test_set_id: Its id, or the beginning of it, or a tag that only one has.

    Raises:
        DataError: If this user owns none of that id, or several begin so.
        StoreError: If its file is damaged.
    """
    one = _resolve(store, test_set_id)
    path = store.artifacts.path("test_set", one.id) / _CASES_FILE
    with _damage_told(path):
        if _digest(path) != one.id:
            raise ValueError("content no longer matches its id")
    return StoredTestSet(id=one.id, path=path, tests=one.tests, recipe=one.recipe)


def load(store: Store, test_set_id: str = "") -> TestSet:
    """Return a test set of the user of the store in memory; finds and raises as :func:`stored`."""
    found = stored(store, test_set_id)
    return TestSet(cases=tuple(found), recipe=found.recipe)


def list_test_sets(store: Store, *, tag: str = "") -> list[OwnedTestSet]:
    """Return the test sets of the user of the store, the newest last, and nobody else's.

    Args:
        store: Where they are.
        tag: Only those with this tag.
    """
    owner = store.settings.user
    tags = rows.tags_of(store.engine, owner=owner)
    found = [
        _owned(row, tags=tags.get(row["test_set"], ()))
        for row in rows.owned_test_sets(store.engine, owner=owner)
    ]
    return [one for one in found if not tag or tag in one.tags]


def subset(
    store: Store, test_set_id: str, keep: Callable[[TestCase], bool], *, why: dict[str, Any]
) -> str:
    """Return the id of a new test set of some cases of another, linked to it; writes to the store.

    Args:
        store: Where they are.
        test_set_id: The whole.
        keep: Whether a case belongs to the part.
        why: What was kept, for the recipe.

    Raises:
        DataError: If nothing, or everything, is kept.
    """
    whole = stored(store, test_set_id)
    cases = tuple(case for case in whole if keep(case))
    if not cases or len(cases) == len(whole):
        kept = "every case" if cases else "no case"
        raise DataError(f"{kept} of test set {whole.id[:12]} is kept; choose another part")
    part = TestSet(cases=cases, recipe={"part_of": whole.id, "kept": why})
    return save(store, part, parent=whole.id)


def compare(store: Store, first: str, second: str) -> Difference:
    """Return what the second test set has and lacks beside the first."""
    ours = {case.id for case in stored(store, first)}
    added, common = [], set()
    for case in stored(store, second):
        common.add(case.id) if case.id in ours else added.append(case)
    removed = [case for case in stored(store, first) if case.id not in common]
    return Difference(added=tuple(added), removed=tuple(removed), common=len(common))


def share(store: Store, test_set_id: str, *, user: str) -> str:
    """Put a test set on another user's list too; return its id.

    Raises:
        ConfigError: If the name is empty.
        DataError: If the user of the store does not own it.
    """
    if not user.strip() or not user.isprintable() or len(user) > _MOST_NAME:
        raise ConfigError(f"no user {user[:80]!r} to share with; give a name")
    mine = _resolve(store, test_set_id)
    recipe = {**mine.recipe, "shared_by": store.settings.user}
    facts = {"tests": mine.tests, "promptfoo_id": mine.promptfoo_id, "recipe": recipe}
    facts |= {"cost_usd": "0", "parent": mine.parent}
    rows.add_test_set_owner(store.engine, mine.id, owner=user, metadata=facts)
    return mine.id


def delete(store: Store, test_set_id: str) -> tuple[str, bool]:
    """Take a test set off the user's list; return its id and whether its content was removed too.

    The content goes when nobody else owns it.

    Raises:
        DataError: If an execution or a part of it refers to it, or the user does not own it.
    """
    mine = _resolve(store, test_set_id)
    used = store.artifacts.referring("execution", "test_set", mine.id)
    used += rows.parts_of(store.engine, mine.id, owner=store.settings.user)
    used += sorted(run for run, of in unfinished(store.engine).items() if of == mine.id)
    if used:
        raise DataError(
            f"test set {mine.id[:12]} is in use by {', '.join(one[:12] for one in used[:3])}; what"
            " was measured with it could not be checked any more"
        )
    left = rows.remove_test_set_owner(store.engine, mine.id, owner=store.settings.user)
    if not left:
        store.artifacts.remove("test_set", mine.id)
    return mine.id, not left


def _owned(row: Mapping[str, Any], *, tags: Sequence[str] = ()) -> OwnedTestSet:
    return OwnedTestSet(
        id=row["test_set"], created_at=row["created_at"], tags=tuple(tags), **row["metadata"]
    )


def _resolve(store: Store, wanted: str) -> OwnedTestSet:
    """Return one of the user's test sets, its tags left out where the whole id is given."""
    user = store.settings.user
    if row := rows.owned_test_set(store.engine, wanted, owner=user):  # the list may be long
        return _owned(row)
    owned = list_test_sets(store)
    found = [one for one in owned if one.id.startswith(wanted)] or [
        one for one in owned if wanted in one.tags
    ]
    if found and (len(found) == 1 or not wanted):
        return found[-1]
    if found:
        raise DataError(f"several test sets begin with or are tagged {wanted!r}; give more of one")
    known = ", ".join(one.id[:12] for one in owned[-3:]) or "none; run workbench campaign generate"
    raise DataError(f"{user!r} owns no test set {wanted!r}; newest: {known}")


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: damaged ({error}); generate the test set again") from error


def _chunks(path: Path) -> Iterator[bytes]:
    with pa.input_stream(path, compression="zstd") as packed:
        while chunk := packed.read(_CHUNK):
            yield chunk


def _lines(path: Path) -> Iterator[str]:
    rest = b""
    for chunk in _chunks(path):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.decode("utf-8", "surrogatepass")
    if rest:
        raise ValueError("ends in the middle of a line")


def _digest(path: Path) -> str:
    """Return the id of the cases in a file: hash of their JSON list, never held whole.

    A line holds no line break, so the list is the file with commas between its lines.
    """
    size = sum(map(len, _chunks(path)))
    digest = hashlib.sha256((size + 1).to_bytes(8, "little") + b"[")
    for chunk in _chunks(path):
        size -= len(chunk)
        text = chunk.replace(b"\n", b",")
        digest.update(text if size else text[:-1] + b"]")
    return digest.hexdigest()
