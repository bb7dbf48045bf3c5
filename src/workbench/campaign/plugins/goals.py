"""Goals of attacks, and where plugins take them from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Final

from workbench.campaign.profile import Profile
from workbench.core.errors import DataError
from workbench.core.plain import storable
from workbench.store.database import Store

__all__ = ["PAYLOAD", "Goal", "GoalPool", "GoalSource", "goal_source", "load_goals"]

PAYLOAD: Final = "{payload}"
"""Stands in a frame where the attack goes."""

_HELD_OUT = ("test_intents", "test_both")
"""Splits of unseen requests; ``test_wrappers`` repeats requests that were trained on."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What an attacker, or a control, wants."""

    text: str
    """In plain words; strategies disguise this and nothing else."""
    category: str
    assertions: tuple[dict[str, Any], ...] = ()
    """What in a model's answer decides, see ``judge.rules``; empty where only graders can tell."""
    frame: str = ""
    """Text around the disguised attack, e.g. a web page, with one :data:`PAYLOAD`; may be empty."""
    turns: tuple[str, ...] = ()
    """What is said before, one message each."""
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Strategies encode what they get, so it has to be text that can be.
        for name in ("text", "frame"):
            object.__setattr__(self, name, storable(getattr(self, name)))
        object.__setattr__(self, "turns", tuple(map(storable, self.turns)))

    def framed(self, payload: str) -> str:
        """Return the message to send: the disguised attack inside its frame."""
        before, placeholder, after = self.frame.partition(PAYLOAD)
        return before + payload + after if placeholder else payload


@dataclass(frozen=True, kw_only=True)
class GoalPool:
    """Held-out requests of one pair set."""

    pair_set: str
    """Version of the pair set whose training side has none of them."""
    by_category: dict[str, tuple[str, ...]]
    """Category → distinct requests, sorted."""
    lookalikes: frozenset[str]
    """Those of the benign ones that only look harmful."""


@dataclass(frozen=True, kw_only=True)
class GoalSource:
    """What plugins may draw on. The pair set is read when the first of them asks for it."""

    load: Callable[[], GoalPool]
    """Reads the held-out requests; raises ``DataError`` where there are none."""
    profile: Profile | None = None
    """What is known of the target."""
    seed: int = 0
    """Seed of canaries and of what stands in the slots of goals."""

    @cached_property
    def pool(self) -> GoalPool:
        """The held-out requests; raises as :func:`load_goals`."""
        return self.load()

    @property
    def pair_set(self) -> str:
        """Version of the pair set that goals came from; empty while no plugin has asked."""
        return self.pool.pair_set if "pool" in vars(self) else ""


def goal_source(
    store: Store, *, pair_set: str = "", profile: Profile | None = None, seed: int = 0
) -> GoalSource:
    """Return what plugins draw on: a pair set (empty: the newest), a profile and a seed."""
    load = partial(load_goals, store, pair_set=pair_set)
    return GoalSource(load=load, profile=profile, seed=seed)


def load_goals(store: Store, *, pair_set: str = "") -> GoalPool:
    """Return the requests of a pair set's test groups.

    Taken from the pair set rather than from the seeds, so that merged near-duplicate groups and
    other people's data are respected too.

    An empty version means the newest pair set.

    Raises:
        DataError: If there is no such pair set, or it holds out no request.
    """
    from workbench.data.build import load_pairs
    from workbench.data.requests import load_benign

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
