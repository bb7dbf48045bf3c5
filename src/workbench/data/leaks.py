"""Looking for leaks in a finished pair set, without trusting how it was built."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from workbench.data.dedupe import SAME_WRAPPER, THRESHOLD, near_links, normalize, resembles_any
from workbench.data.families import TELLING_CHARS, TEXTS_PER_FAMILY, worn
from workbench.data.pairs import PairSet

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["find_leaks"]

_LEARNED_FROM = ("train", "validation")
_UNSEEN_REQUESTS = ("test_intents", "test_both")
_UNSEEN_WRAPPERS = ("test_wrappers", "test_both")
_FIELDS = ("group", "core", "clean", "wrapper_family")


@dataclass(kw_only=True)
class _Side:
    """What one side of the split has; of prompts their hashes only."""

    texts: dict[str, set[str]] = field(default_factory=lambda: {name: set() for name in _FIELDS})
    worn: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    prompts: list[NDArray[np.uint64]] = field(default_factory=list)

    def take(self, frame: pd.DataFrame, *, names: Collection[str]) -> None:
        for name in names:
            self.texts[name] |= set(frame[name]) - {""}

    def take_prompts(self, frame: pd.DataFrame) -> None:
        from pandas.util import hash_array

        self.prompts.append(hash_array(frame["adversarial"].to_numpy(object), categorize=False))

    def take_wrappers(self, frame: pd.DataFrame) -> None:
        wrapped = frame[frame["wrapper_family"] != ""]
        for row in wrapped.groupby("wrapper_family").head(TEXTS_PER_FAMILY).itertuples():
            some = self.worn[str(row.wrapper_family)]
            text = worn(str(row.adversarial), str(row.core))
            if len(some) < TEXTS_PER_FAMILY and len(text) >= TELLING_CHARS:
                some.add(text)


def find_leaks(
    pair_set: PairSet, *, known: Iterable[str] = (), evaluating: Collection[str] = ()
) -> dict[str, int]:
    """Return how many leaks of each kind there are; all are 0 in a good set.

    Reads every shard once and keeps distinct requests, clean sides and hashes of prompts.

    Args:
        pair_set: The set.
        known: Texts of evaluation sets, which no other pair may resemble.
        evaluating: Sources of the set that are such evaluation sets themselves.
    """
    attacks = sorted({normalize(text) for text in known})
    learned, unseen = _Side(), _Side()
    like_evaluation = 0
    for frame in pair_set.shards():
        trained = frame[frame["split"].isin(_LEARNED_FROM)]
        learned.take(trained, names=_FIELDS)
        learned.take_wrappers(trained)
        learned.take_prompts(trained)
        unseen.take(frame[frame["split"].isin(_UNSEEN_REQUESTS)], names=("group", "core", "clean"))
        new_wrappers = frame[frame["split"].isin(_UNSEEN_WRAPPERS)]
        unseen.take(new_wrappers, names=("wrapper_family",))
        unseen.take_wrappers(new_wrappers)
        unseen.take_prompts(frame[~frame["split"].isin(_LEARNED_FROM)])
        own = frame.loc[~frame["source"].isin(evaluating), "adversarial"]
        if attacks and len(own):
            found = resembles_any([normalize(text) for text in own], attacks)
            like_evaluation += int(found.sum())
    shared = {name: len(learned.texts[name] & unseen.texts[name]) for name in _FIELDS}
    seen, new = (set[str]().union(*side.worn.values()) for side in (learned, unseen))
    before, after = (np.concatenate(side.prompts) for side in (learned, unseen))
    return {
        "groups_across_splits": shared["group"],
        "requests_across_splits": _links(learned.texts["core"], unseen.texts["core"], THRESHOLD),
        "clean_sides_across_splits": shared["clean"],
        "prompts_across_splits": len(np.intersect1d(before, after)),
        "wrapper_families_across_splits": shared["wrapper_family"],
        "wrapper_texts_across_splits": _links(seen, new, SAME_WRAPPER),
        "rows_like_evaluation": like_evaluation,
    }


def _links(left: set[str], right: set[str], threshold: float) -> int:
    """Return how many texts of one side have a near-duplicate on the other."""
    sides = [sorted({normalize(text) for text in side}) for side in (left, right)]
    links = near_links([*sides[0], *sides[1]], threshold=threshold)
    return len({later for earlier, later in links if earlier < len(sides[0]) <= later})
