"""Dealing goals over plugin × strategy cells: evenly first, then to what worked before."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from workbench.campaign.plugins.catalog import Plugin
from workbench.campaign.plugins.goals import Goal
from workbench.campaign.strategies.base import Strategy, chain_name
from workbench.core.identity import seeded

__all__ = ["Cell", "Dealer", "Slot", "deal", "disguised"]

_BEST = 20
"""One in so many cells gets a case after each draw of all success rates."""

_MISSES = 20
"""Forms of a goal in a row that gave nothing new, after which it has no more."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One plugin under one chain of strategies."""

    plugin: Plugin
    chain: tuple[Strategy, ...]
    goals: tuple[Goal, ...]

    @cached_property
    def key(self) -> tuple[str, str]:
        """Names of plugin and chain."""
        return self.plugin.name, chain_name([one.name for one in self.chain])

    @cached_property
    def taxonomy(self) -> tuple[str, ...]:
        """Ids of plugin and strategies, sorted; controls have none."""
        if self.plugin.is_control:
            return ()
        return tuple(sorted({*self.plugin.taxonomy, *(x for s in self.chain for x in s.taxonomy)}))

    @cached_property
    def is_model_driven(self) -> bool:
        """Whether a model writes the attack, so that its text is not known yet."""
        return any(one.disguise is None for one in self.chain)

    @cached_property
    def has_variants(self) -> bool:
        """Whether the chain has many forms of one goal, rather than one."""
        return any(one.kind in {"augmentation", "model"} for one in self.chain)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One test case to be: a goal in a cell."""

    cell: Cell
    goal: Goal
    variant: int = 0
    """Which form of the goal, where the chain has several."""
    layers: tuple[str, ...] = ()
    """The goal and what each strategy made of it; the goal alone while a model has to write."""


class Dealer:
    """Gives the next case of a cell and keeps count of the disguises of each goal.

    Args:
        seed: Of orders and disguises.
        most: Disguises of one goal, its plain form not counted.
        with_plain: Whether each disguised goal comes with its plain form.
    """

    def __init__(self, *, seed: int, most: int, with_plain: bool) -> None:
        self._seed = seed
        self._most = most
        self._with_plain = with_plain
        self._texts: set[tuple[str, str]] = set()
        self._pools: dict[str, _Pool] = {}
        self._used: dict[tuple[str, str], Counter[str]] = {}

    def next_slots(self, cell: Cell) -> list[Slot]:
        """Return the cell's next case, after its plain form where that was not dealt yet.

        Of the goals left to it one with fewest disguises so far; nothing where none is left.
        """
        pool = self._pool(cell)
        used = self._used.setdefault(cell.key, Counter())
        forms = self._most if cell.has_variants else 1
        limit = self._most if cell.chain else sys.maxsize
        missed: Counter[str] = Counter()
        while goal := pool.least_disguised(used, forms=forms, most=limit):
            variant = used[goal.text]
            used[goal.text] += 1
            if made := self._slot(cell, goal, variant):
                if not cell.chain:
                    return [made]
                pool.disguise(goal)
                return [*self._plain(cell, goal), made]
            missed[goal.text] += 1
            if missed[goal.text] == _MISSES:
                used[goal.text] = forms
        return []

    def _pool(self, cell: Cell) -> _Pool:
        name = cell.plugin.name
        if name not in self._pools:
            goals = list({goal.text: goal for goal in cell.goals}.values())
            seeded("goals", self._seed, name).shuffle(goals)
            self._pools[name] = _Pool(goals)
        return self._pools[name]

    def _slot(self, cell: Cell, goal: Goal, variant: int) -> Slot | None:
        if cell.is_model_driven:
            return Slot(cell=cell, goal=goal, variant=variant, layers=(goal.text,))
        layers = disguised(goal.text, cell.chain, seed=self._seed + variant)
        # A disguise that changes nothing, or repeats another's text, would count double.
        if cell.chain and layers[-1] == goal.text:
            return None
        if not self._is_new(cell.plugin.name, goal.framed(layers[-1])):
            return None
        return Slot(cell=cell, goal=goal, variant=variant, layers=layers)

    def _plain(self, cell: Cell, goal: Goal) -> list[Slot]:
        if not self._with_plain or not self._is_new(cell.plugin.name, goal.framed(goal.text)):
            return []
        bare = Cell(plugin=cell.plugin, chain=(), goals=cell.goals)
        return [Slot(cell=bare, goal=goal, layers=(goal.text,))]

    def _is_new(self, plugin: str, text: str) -> bool:
        known = len(self._texts)
        self._texts.add((plugin, text))
        return len(self._texts) > known


class _Pool:
    """The goals of a plugin by how often they were disguised; nobody searches them all."""

    def __init__(self, goals: Sequence[Goal]) -> None:
        self._levels: list[dict[str, Goal]] = [{goal.text: goal for goal in goals}]
        self._level_of = dict.fromkeys(self._levels[0], 0)

    def least_disguised(self, used: Counter[str], *, forms: int, most: int) -> Goal | None:
        """Return a goal that was used less than so many times, of those the least disguised.

        Args:
            used: How often each goal was, by one cell.
            forms: How often it may be.
            most: Disguises from which on a goal is out.
        """
        for level, goals in enumerate(self._levels):
            if level >= most:
                return None
            for text, goal in goals.items():
                if used.get(text, 0) < forms:  # a Counter's own default is slow
                    return goal
        return None

    def disguise(self, goal: Goal) -> None:
        """Count a disguise of a goal."""
        level = self._level_of[goal.text]
        del self._levels[level][goal.text]
        if level + 1 == len(self._levels):
            self._levels.append({})
        self._levels[level + 1][goal.text] = goal
        self._level_of[goal.text] = level + 1


def disguised(text: str, chain: Sequence[Strategy], *, seed: int) -> tuple[str, ...]:
    """Return a text and what each strategy of a chain makes of it; no model may be among them."""
    layers = [text]
    for strategy in chain:
        assert strategy.disguise is not None
        layers.append(strategy.disguise(layers[-1], seed=seed))
    return tuple(layers)


def deal(
    cells: Sequence[Cell],
    dealer: Dealer,
    *,
    most: int,
    seed: int,
    worked: Mapping[tuple[str, str], tuple[int, int]],
    explore: float,
) -> list[Slot]:
    """Return slots, dealt in rounds over all cells, then by what worked before.

    A share of the places is dealt evenly, so that what never worked is tried too. The rest goes to
    cells by Thompson sampling: each draws its success rate from what is known of it, and the
    highest gets the next case. A control gets no further cases while it has as many as any attack.

    Args:
        cells: Plugin × chain, each once.
        dealer: Gives the cases.
        most: Slots, at most.
        seed: Of orders and draws.
        worked: Cell → successes and attempts so far; all is dealt evenly where it is empty.
        explore: Share dealt evenly, in [0, 1].

    Source:
        Thompson 1933, Biometrika 25:285-294; Chapelle & Li 2011, NeurIPS 24.
    """
    ranked = _spread(cells, seed=seed)
    table = _Table(ranked, dealer, most=most)
    even = most if not worked else round(most * explore)
    before = -1
    while before < len(table.slots) < even:
        before = len(table.slots)
        for cell in ranked:
            if len(table.slots) >= even:  # there may be more cells than places
                break
            table.serve(cell)
    if worked:
        _deal_by_success(ranked, table, worked, seed=seed, most=most)
    return table.slots[:most]


def _deal_by_success(
    cells: Sequence[Cell],
    table: _Table,
    worked: Mapping[tuple[str, str], tuple[int, int]],
    *,
    seed: int,
    most: int,
) -> None:
    draw = seeded("thompson", seed)
    shapes = {}
    for cell in cells:
        successes, attempts = worked.get(cell.key, (0, 0))
        shapes[cell.key] = (cell, 1 + max(0, successes), 1 + max(0, attempts - successes))
    waiting: dict[tuple[str, str], tuple[Cell, int, int]] = {}
    while shapes and len(table.slots) < most:
        rates = {key: draw.betavariate(won, lost) for key, (_, won, lost) in shapes.items()}
        best = sorted(rates, key=rates.__getitem__, reverse=True)
        for key in best[: max(1, len(best) // _BEST)]:
            cell = shapes[key][0]
            if table.serve(cell):
                shapes |= waiting
                waiting.clear()
                continue
            shape = shapes.pop(key)
            if cell.plugin.is_control and key in table.open:  # until there are more attacks
                waiting[key] = shape


def _spread(cells: Sequence[Cell], *, seed: int) -> list[Cell]:
    """Return cells in an order of which any beginning has all plugins and chains alike.

    Pass after pass each plugin gets another chain, those of one pass far apart from each other.
    """
    by_key = {cell.key: cell for cell in cells}
    plugins, chains = (list(dict.fromkeys(names)) for names in zip(*by_key, strict=True))
    for names in (plugins, chains):
        seeded("spread", seed, *names).shuffle(names)
    width = len(chains)
    return [
        by_key[plugin, chains[(turn + at * width // len(plugins)) % width]]
        for turn in range(width)
        for at, plugin in enumerate(plugins)
    ]


class _Table:
    """The slots dealt so far, and which cells still have some to give."""

    def __init__(self, cells: Sequence[Cell], dealer: Dealer, *, most: int) -> None:
        self._dealer = dealer
        self._most = most
        self._attacks = [cell.plugin.name for cell in cells if not cell.plugin.is_control]
        self._dealt: Counter[str] = Counter()
        self.open = {cell.key for cell in cells}
        self.slots: list[Slot] = []

    def serve(self, cell: Cell) -> bool:
        """Deal a cell its next slots; return whether it had any and might."""
        # More controls than attacks on any one harm would only dilute the set.
        ceiling = max((self._dealt[name] for name in self._attacks), default=self._most)
        if cell.plugin.is_control and self._dealt[cell.plugin.name] >= ceiling:
            return False
        new = self._dealer.next_slots(cell)
        if not new:
            self.open.discard(cell.key)
        self._dealt[cell.plugin.name] += len(new)
        self.slots += new
        return bool(new)
