"""Goals that no training pair has seen, by category."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.core.errors import DataError
from workbench.data.build import load_pairs
from workbench.data.requests import load_benign
from workbench.store.database import Store

__all__ = ["GoalPool", "load_goals"]

_HELD_OUT = ("test_intents", "test_both")
"""Splits of unseen requests; ``test_wrappers`` repeats requests that were trained on."""


@dataclass(frozen=True, kw_only=True)
class GoalPool:
    """Held-out requests of one pair set."""

    pair_set: str
    """Version of the pair set whose training side has none of them."""
    by_category: dict[str, tuple[str, ...]]
    """Category → distinct requests, sorted."""
    lookalikes: frozenset[str]
    """Those of the benign ones that only look harmful."""


def load_goals(store: Store, *, pair_set: str = "") -> GoalPool:
    """Return the requests of a pair set's test groups.

    Taken from the pair set rather than from the seeds, so that merged near-duplicate groups and
    other people's data are respected too.

    An empty version means the newest pair set.

    Raises:
        DataError: If there is no such pair set, or it holds out no request.
    """
    pairs = load_pairs(store, pair_set)
    frame = pairs.frame
    # A core seen in training or validation is not held out, whatever else a row says.
    seen = set(frame.loc[~frame["split"].isin(_HELD_OUT), "core"])
    held_out = frame[frame["split"].isin(_HELD_OUT) & (frame["core"] != "")]
    by_category: dict[str, set[str]] = {}
    for category, core in zip(held_out["category"], held_out["core"], strict=True):
        if core not in seen:
            by_category.setdefault(str(category), set()).add(str(core))
    if not by_category:
        raise DataError(
            f"pair set {pairs.version[:12]!r} holds out no request for tests; "
            "grow one with more requests in 01_expand_pairs"
        )
    return GoalPool(
        pair_set=pairs.version,
        by_category={name: tuple(sorted(found)) for name, found in sorted(by_category.items())},
        lookalikes=frozenset(one.request for one in load_benign() if one.lookalike),
    )
