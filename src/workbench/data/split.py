"""Leak-free splits: what belongs together stays together, and stays where it is as data grows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import pairwise
from typing import Final, Literal, TypeAlias

import numpy as np

from workbench.core.identity import stable_fraction, text_id
from workbench.data.dedupe import THRESHOLD, near_links, normalize
from workbench.data.wrappers import family_split
from workbench.store.records import Split

__all__ = [
    "TRAINED_ONLY", "Side", "assign_split", "core_key", "group_requests", "group_texts",
    "request_split",
]  # fmt: skip

TRAINED_ONLY: Final = "train/"
"""Begins the name of a group that may only be trained on."""

Side: TypeAlias = Literal["train", "validation", "test"]

_REQUEST_SALT = "request/1"
_TEST_SHARE = 0.2
_VALIDATION_SHARE = 0.1
_STOCK_FROM = 8
"""Most requests that a text ties together; what more of them share is a stock answer."""
_STRENGTH: dict[Side, int] = {"test": 0, "validation": 1, "train": 2}


def request_split(group: str) -> Side:
    """Return the side of a leak group; it depends on the group's name alone."""
    if group.startswith(TRAINED_ONLY):
        return "train"
    fraction = stable_fraction(_REQUEST_SALT, group)
    if fraction < _TEST_SHARE:
        return "test"
    return "validation" if fraction < _TEST_SHARE + _VALIDATION_SHARE else "train"


def core_key(core: str, parent_id: str) -> str:
    """Return the name of a request: its seed's id, or the hash of what it says."""
    return parent_id or f"core-{text_id(normalize(core))[:24]}"


def group_texts(
    texts: Sequence[str],
    names: Sequence[str],
    *,
    side: Callable[[str], Side],
    threshold: float = THRESHOLD,
    ties: Iterable[tuple[str, str]] = (),
) -> list[str]:
    """Return the group of each row: union over equal names, near-duplicate texts, and ties.

    A group is called after its member with the strongest side (test before validation before
    training): when groups merge the test side wins, and no test row ever becomes training.

    Args:
        texts: Normalized text of each row.
        names: Name of each row.
        side: Gives the side of a name.
        threshold: Jaccard similarity from which two texts belong together.
        ties: Two names each that belong together for another reason.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not texts:
        return []
    # A graph of distinct texts and distinct names: each row ties its text to its name.
    text_nodes = {text: node for node, text in enumerate(dict.fromkeys(texts))}
    name_nodes = {name: node for node, name in enumerate(dict.fromkeys(names), len(text_nodes))}
    edges = [(text_nodes[text], name_nodes[name]) for text, name in zip(texts, names, strict=True)]
    edges += near_links(list(text_nodes), threshold=threshold)
    edges += [(name_nodes[one], name_nodes[other]) for one, other in ties]
    size = len(text_nodes) + len(name_nodes)
    graph = coo_array((np.ones(len(edges)), tuple(np.array(edges).T)), shape=(size, size))
    labels = connected_components(graph, directed=False)[1].tolist()
    members: dict[int, list[str]] = defaultdict(list)
    for name, node in name_nodes.items():
        members[labels[node]].append(name)
    titles = {
        label: min(group, key=lambda name: (_STRENGTH[side(name)], name))
        for label, group in members.items()
    }
    return [titles[labels[name_nodes[name]]] for name in names]


def group_requests(
    cores: Sequence[str], parents: Sequence[str], *, others: Sequence[Collection[str]] = ()
) -> list[str]:
    """Return the leak group of each row: of its request, its parent, and its other texts.

    Rows that share another text exactly, a clean side or a whole prompt, belong together, unless so
    many share it that it is a stock answer and tells nothing about a request.

    Args:
        cores: The requests.
        parents: The seed or parent that each comes from; empty where there is none.
        others: The other texts of each row; may be left out.
    """
    names = [core_key(core, parent) for core, parent in zip(cores, parents, strict=True)]
    sharing: dict[str, dict[str, None]] = defaultdict(dict)
    for name, texts in zip(names, others, strict=False):
        for text in texts:
            sharing[normalize(text)][name] = None
    ties = [
        tie for some in sharing.values() if 1 < len(some) <= _STOCK_FROM for tie in pairwise(some)
    ]
    return group_texts([normalize(core) for core in cores], names, side=request_split, ties=ties)


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
