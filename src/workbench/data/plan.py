"""Planning a build: which requests give how many pairs, in which shard, and which may not.

The plan looks at requests only, never at the pairs that grow from them, so it is small. All pairs
of a leak group grow in one shard; each shard depends on its part of the plan alone. So shards can
be made in any order, by any number of processes, and again after a kill.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from workbench.core.errors import ConfigError
from workbench.core.identity import stable_fraction
from workbench.data.dedupe import normalize, resembles_any
from workbench.data.families import Worn, merge_families, resembled_families, sample_families, worn
from workbench.data.grammar import HARMFUL_SHARE
from workbench.data.pairs import Source, Stem
from workbench.data.split import TRAINED_ONLY, core_key, group_requests, request_split
from workbench.data.wrappers import family_split
from workbench.store.records import Pair

__all__ = [
    "FEEDBACK_HELD_OUT", "SHARD_PAIRS", "Plan", "Planned", "ShardPlan", "apportion", "make_plan",
    "source_shares",
]  # fmt: skip

SHARD_PAIRS: Final = 20_000
"""Most pairs of a shard, unless one leak group alone has more."""
CONTAMINATED: Final = "request of the evaluation sources"
FEEDBACK_HELD_OUT: Final = "feedback on a request that is tested on"

_SPARE = 1.2
"""How many times the stems that a source needs are planned, for those whose pairs are dropped."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """A stem with its leak group and the pairs that it shall give."""

    stem: Stem
    group: str
    quota: int


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """All that one shard depends on."""

    stems: Sequence[Planned]
    seed: int
    attacks: Sequence[str]
    """Normalized prompts of the evaluation sources: nothing like them is kept."""
    known_families: frozenset[str]
    """Wrapper families of the evaluation sources."""
    same_families: Mapping[str, str]
    """Wrapper family → the one by whose name it is split, where two are one."""
    has_evaluation: bool
    """Whether ``test_both`` is left to evaluation sources."""

    @cached_property
    def takes_nested(self) -> bool:
        """Whether pairs in two wrappers may be used, which name the inner one alone.

        Both are of one side by their names; that is not enough where other sources keep wrappers
        out, or move them to the other side.
        """
        moved = (one for one in self.same_families.items() if len(set(map(family_split, one))) > 1)
        return not self.known_families and not any(moved)

    @property
    def wanted(self) -> int:
        """Pairs that the shard shall have."""
        return sum(planned.quota for planned in self.stems)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The shards of a build, and what was kept out of all of them."""

    shards: Sequence[ShardPlan]
    dropped: Counter[str] = field(default_factory=Counter)


def make_plan(
    sources: Sequence[Source],
    *,
    target: int,
    seed: int,
    weights: Mapping[str, Mapping[str, float]],
    evaluated: Sequence[Pair],
    kept_out: Sequence[str],
) -> Plan:
    """Return what to grow.

    Raises:
        ConfigError: If a weight is for a value that no request has.

    Args:
        sources: Where pairs come from; each gives as many as the others, as far as it has them.
        target: Pairs in all.
        seed: Decides about order and style of everything that grows.
        weights: Field (``category``, ``language``) → value → how often a request is used where
            others are used once.
        evaluated: Pairs of evaluation sources, which alone are ``test_both``.
        kept_out: Texts of other people's test sets that nothing may resemble.
    """
    stems = [stem for source in sources for stem in source.stems]
    for name, by_value in weights.items():
        for value in by_value.keys() - {getattr(stem, name) for stem in stems}:
            raise ConfigError(f"weights: no request of any source has {name} {value!r}")
    origins = np.repeat(np.arange(len(sources)), [len(source.stems) for source in sources])
    parents = [
        TRAINED_ONLY + (stem.parent_id or core_key(stem.core, ""))
        if sources[origin].is_trained_only
        else stem.parent_id
        for stem, origin in zip(stems, origins.tolist(), strict=True)
    ]
    groups = group_requests(
        [stem.core for stem in stems], parents, others=[stem.texts for stem in stems]
    )
    sides = {text for one in evaluated for text in (one.adversarial, one.clean, one.core)}
    tainted = _tainted_groups(stems, groups, {normalize(text) for text in {*sides, *kept_out}})
    dropped: Counter[str] = Counter()
    allowed = np.ones(len(stems), dtype=np.bool_)
    for place, (stem, group) in enumerate(zip(stems, groups, strict=True)):
        reason = ""
        if group in tainted:
            reason = CONTAMINATED
        elif sources[origins[place]].is_trained_only and request_split(group) != "train":
            reason = FEEDBACK_HELD_OUT
        if reason:
            allowed[place] = False
            dropped[reason] += stem.size or 1
    quotas, is_planned = _quotas(sources, stems, origins, allowed, target=target, weights=weights)
    planned = [
        Planned(stem=stems[place], group=groups[place], quota=int(quotas[place]))
        for place in np.flatnonzero(is_planned).tolist()
    ]
    prompts = {*(pair.adversarial for pair in evaluated), *kept_out}
    attacks = tuple(sorted({normalize(text) for text in prompts}))
    bare = [worn(pair.adversarial, pair.core) for pair in evaluated]
    families = _families(sources, seed=seed)
    known = {pair.wrapper_family for pair in evaluated} - {""}
    template = ShardPlan(
        stems=(),
        seed=seed,
        attacks=attacks,
        known_families=frozenset(
            known | resembled_families(families, whole=attacks, bare=bare) if attacks else known
        ),
        same_families=merge_families(families),
        has_evaluation=bool(evaluated),
    )
    return Plan(shards=[replace(template, stems=part) for part in _pack(planned)], dropped=dropped)


def apportion(
    total: int, *, weights: NDArray[np.float64], most: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return whole shares of a total, by weight and none above its most.

    Rounding follows the running sum, so that the shares of any run of neighbors are as exact as
    one share is.

    Args:
        total: What to share out; what nobody can take is left over.
        weights: ``(n,)`` positive.
        most: ``(n,)`` largest share of each, whole or infinite.
    """
    shares = np.zeros(len(weights), dtype=np.int64)
    while (left := total - int(shares.sum())) > 0 and (open_ := np.flatnonzero(shares < most)).size:
        running = np.cumsum(weights[open_])
        sums = np.floor(running / running[-1] * left + 1e-9)
        more = np.diff(sums, prepend=0)
        shares[open_] += np.minimum(more, most[open_] - shares[open_]).astype(np.int64)
    return shares


def source_shares(
    sources: Sequence[Source], *, target: int, room: Sequence[float] | None = None
) -> list[int]:
    """Return the pairs to draw from each source, as far as it has them.

    Those with a limit give that many, the others share the rest equally.

    Args:
        sources: The sources.
        target: Pairs in all.
        room: Most pairs that each can give; what its stems say if not given.
    """
    room = room or [float(_sizes(source.stems).sum()) for source in sources]
    wished = np.array(
        [min(size, source.limit or 0.0) for source, size in zip(sources, room, strict=True)]
    )
    weights = np.maximum(wished, 1e-9)
    fixed = apportion(target, weights=weights, most=wished)
    is_open = np.array([source.limit is None for source in sources])
    most = np.where(is_open, room, 0.0)
    rest = apportion(target - int(fixed.sum()), weights=np.ones(len(sources)), most=most)
    return [int(share) for share in fixed + rest]


def _sizes(stems: Sequence[Stem]) -> NDArray[np.float64]:
    return np.array([np.inf if stem.size is None else stem.size for stem in stems])


def _quotas(
    sources: Sequence[Source],
    stems: Sequence[Stem],
    origins: NDArray[np.intp],
    allowed: NDArray[np.bool_],
    *,
    target: int,
    weights: Mapping[str, Mapping[str, float]],
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the pairs to draw per stem, and which stems are planned at all."""
    sizes = _sizes(stems)
    sizes[~allowed] = 0
    room = [sizes[origins == number].sum() for number in range(len(sources))]
    shares = source_shares(sources, target=target, room=room)
    quotas = np.zeros(len(stems), dtype=np.int64)
    is_planned = np.zeros(len(stems), dtype=np.bool_)
    for number, share in enumerate(shares):
        mine = np.flatnonzero((origins == number) & (sizes > 0))
        # an order that no source chose: it decides who gives one more, or anything at all
        lots = [stable_fraction("lot", stems[place].core, str(place)) for place in mine.tolist()]
        mine = mine[np.argsort(lots)]
        weight = _weights([stems[place] for place in mine.tolist()], weights)
        quotas[mine] = apportion(share, weights=weight, most=sizes[mine])
        needed = int((quotas[mine] > 0).sum() * _SPARE) + 1 if share else 0
        is_planned[mine[np.argsort(-quotas[mine], kind="stable")[:needed]]] = True
    return quotas, is_planned


def _weights(
    stems: Sequence[Stem], weights: Mapping[str, Mapping[str, float]]
) -> NDArray[np.float64]:
    """Return ``(len(stems),)``: by the experiment's weights, and harmful ones by their share."""
    found = np.ones(len(stems))
    is_harmful = np.array([stem.category != "benign" for stem in stems], dtype=np.bool_)
    if all(stem.size is None for stem in stems) and is_harmful.any() and not is_harmful.all():
        benign = (~is_harmful).sum() / is_harmful.sum()
        found[is_harmful] = HARMFUL_SHARE / (1 - HARMFUL_SHARE) * benign
    for place, stem in enumerate(stems):
        for name, by_value in weights.items():
            found[place] *= by_value.get(getattr(stem, name), 1.0)
    return found


def _pack(planned: Sequence[Planned]) -> list[list[Planned]]:
    """Return the stems of each shard: whole leak groups, in an order that depends on names."""
    by_group: dict[str, list[Planned]] = defaultdict(list)
    for one in planned:
        by_group[one.group].append(one)
    shards: list[list[Planned]] = []
    room = 0
    for group in sorted(by_group, key=lambda name: (stable_fraction("shard", name), name)):
        members = by_group[group]
        size = sum(one.quota for one in members)
        if not shards or size > room:
            shards.append([])
            room = SHARD_PAIRS
        shards[-1] += members
        room -= size
    return shards


def _tainted_groups(stems: Sequence[Stem], groups: Sequence[str], known: set[str]) -> set[str]:
    """Return the leak groups in which any text resembles a known one."""
    if not known:
        return set()
    labelled = sorted(
        {
            (group, normalize(text))
            for stem, group in zip(stems, groups, strict=True)
            for text in stem.texts
        }
    )
    found = resembles_any([text for _, text in labelled], sorted(known))
    return {group for (group, _), is_known in zip(labelled, found, strict=True) if is_known}


def _families(sources: Sequence[Source], *, seed: int) -> Worn:
    """Return some texts of the wrapper families of all sources."""
    families: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for source in sources:
        for family, texts in sample_families(source.stems, seed=seed).items():
            families[family] |= texts
    return families
