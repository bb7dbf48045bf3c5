"""Looking for leaks in a finished pair set, without trusting how it was built."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from workbench.data.dedupe import near_links, normalize, resembles_any
from workbench.data.pairs import PairSet

__all__ = ["find_leaks"]

_LEARNED_FROM = ("train", "validation")
_UNSEEN_REQUESTS = ("test_intents", "test_both")
_UNSEEN_WRAPPERS = ("test_wrappers", "test_both")


def find_leaks(
    pair_set: PairSet, *, known: Iterable[str] = (), evaluating: Collection[str] = ()
) -> dict[str, int]:
    """Return how many leaks of each kind there are; all are 0 in a good set.

    Reads every shard once and keeps distinct requests and wrapper families only.

    Args:
        pair_set: The set.
        known: Texts of evaluation sets, which no other pair may resemble.
        evaluating: Sources of the set that are such evaluation sets themselves.
    """
    attacks = sorted({normalize(text) for text in known})
    learned: dict[str, set[str]] = {"group": set(), "core": set(), "wrapper_family": set()}
    unseen: dict[str, set[str]] = {"group": set(), "core": set(), "wrapper_family": set()}
    leaks = {"rows_like_evaluation": 0}
    for frame in pair_set.shards():
        is_learned = frame["split"].isin(_LEARNED_FROM)
        is_unseen = frame["split"].isin(_UNSEEN_REQUESTS)
        is_new_wrapper = frame["split"].isin(_UNSEEN_WRAPPERS)
        for name in ("group", "core"):
            learned[name] |= set(frame.loc[is_learned, name])
            unseen[name] |= set(frame.loc[is_unseen, name])
        learned["wrapper_family"] |= set(frame.loc[is_learned, "wrapper_family"]) - {""}
        unseen["wrapper_family"] |= set(frame.loc[is_new_wrapper, "wrapper_family"])
        own = frame.loc[~frame["source"].isin(evaluating), "adversarial"]
        if attacks and len(own):
            found = resembles_any([normalize(text) for text in own], attacks)
            leaks["rows_like_evaluation"] += int(found.sum())
    leaks["groups_across_splits"] = len(learned["group"] & unseen["group"])
    leaks["wrapper_families_across_splits"] = len(
        learned["wrapper_family"] & unseen["wrapper_family"]
    )
    leaks["requests_across_splits"] = _links(learned["core"], unseen["core"])
    return leaks


def _links(left: set[str], right: set[str]) -> int:
    """Return how many texts of one side have a near-duplicate on the other."""
    sides: list[Any] = [sorted({normalize(text) for text in side}) for side in (left, right)]
    links = near_links([*sides[0], *sides[1]])
    return len({later for earlier, later in links if earlier < len(sides[0]) <= later})
