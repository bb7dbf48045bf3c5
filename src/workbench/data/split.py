"""Leak-free splits: what belongs together stays together, and stays where it is as data grows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, TypeAlias

from workbench.core.identity import stable_fraction, text_id
from workbench.data.dedupe import near_links, normalize
from workbench.data.wrappers import family_split
from workbench.store.records import Split

__all__ = ["Side", "assign_split", "core_key", "group_requests", "request_split"]

Side: TypeAlias = Literal["train", "validation", "test"]

_REQUEST_SALT = "request/1"
_TEST_SHARE = 0.2
_VALIDATION_SHARE = 0.1
_STRENGTH: dict[Side, int] = {"test": 0, "validation": 1, "train": 2}


def request_split(group: str) -> Side:
    """Return the side of a leak group; it depends on the group's name alone."""
    fraction = stable_fraction(_REQUEST_SALT, group)
    if fraction < _TEST_SHARE:
        return "test"
    return "validation" if fraction < _TEST_SHARE + _VALIDATION_SHARE else "train"


def core_key(core: str, parent_id: str) -> str:
    """Return the name of a request: its seed's id, or the hash of what it says."""
    return parent_id or f"core-{text_id(normalize(core))[:24]}"


def group_requests(cores: Sequence[str], parents: Sequence[str]) -> list[str]:
    """Return the leak group of each row: union over equal parents and near-duplicate cores.

    A group is named after the member with the strongest side (test before validation before
    training), so when groups merge, the test side wins and no test row ever becomes training.

    Args:
        cores: The request inside each row.
        parents: Id of the seed or translation parent of each row; empty where there is none.

    Returns:
        One group name per row, with ``request_split(name)`` its side.
    """
    nodes = {
        node: index for index, node in enumerate(dict.fromkeys(zip(cores, parents, strict=True)))
    }
    roots = list(range(len(nodes)))

    def find(node: int) -> int:
        while roots[node] != node:
            roots[node] = roots[roots[node]]
            node = roots[node]
        return node

    names = [core_key(core, parent) for core, parent in nodes]
    first_of: dict[str, int] = {}
    for index, name in enumerate(names):
        roots[find(index)] = find(first_of.setdefault(name, index))
    for earlier, later in near_links([normalize(core) for core, _ in nodes]):
        roots[find(later)] = find(earlier)

    members: dict[int, set[str]] = defaultdict(set)
    for index, name in enumerate(names):
        members[find(index)].add(name)
    titles = {
        root: min(group, key=lambda name: (_STRENGTH[request_split(name)], name))
        for root, group in members.items()
    }
    return [titles[find(nodes[node])] for node in zip(cores, parents, strict=True)]


def assign_split(group: str, family: str) -> Split | None:
    """Return the split of a pair, or nothing where it may be in none.

    A request that chooses the model, in a wrapper that tests it, is neither unseen nor seen: in
    validation it would leak the wrapper into the choice, in a test it would be no fair test.
    """
    request, wrapper = request_split(group), family_split(family)
    if request == "test":
        return "test_both" if wrapper == "test" else "test_intents"
    if wrapper == "test":
        return "test_wrappers" if request == "train" else None
    return request
