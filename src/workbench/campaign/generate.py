"""Phase 1: from plugins and strategies to a test set that can be read and priced before it runs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from workbench.campaign.interop import promptfoo_id, promptfoo_tests
from workbench.campaign.plugins.catalog import PLUGINS, Plugin
from workbench.campaign.plugins.goals import GoalPool, load_goals
from workbench.campaign.strategies.catalog import (
    PLAIN,
    Strategy,
    chain_name,
    default_chains,
    parse_chain,
)
from workbench.core.errors import ConfigError, DataError
from workbench.core.identity import canonical_json, text_id
from workbench.store.database import Store
from workbench.store.records import TestCase, TestSet
from workbench.store.results import TestSetResult

__all__ = ["CPU_S_PER_CALL", "GenerateConfig", "Preview", "preview"]

CPU_S_PER_CALL = 0.03
"""CPU seconds to send one case through a local target and judge it, mostly the encoder's; measured
with vectors not yet cached (246 cases, bare target, 2 cores: .026 s). An estimate."""


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """What to generate."""

    plugins: tuple[str, ...] = ()
    """Names of plugins; empty means all."""
    strategies: tuple[str, ...] = ()
    """Names of strategies, or chains ``a+b``; empty means all and two chains."""
    max_tests: int = 400
    """Most test cases, >= 1."""
    mutations_per_prompt: int = 4
    """Most disguises of one goal, its plain form not counted, >= 0."""
    pair_set: str = ""
    """Version of the pair set whose held-out requests are the goals; empty means the newest."""
    seed: int = 0
    """Seed of goals, strategies and disguises."""

    def __post_init__(self) -> None:
        for field, least in (("max_tests", 1), ("mutations_per_prompt", 0)):
            if (value := getattr(self, field)) < least:
                raise ConfigError(f"{field} is {value}; give at least {least}")
        for field, names in (("plugins", self.plugins), ("strategies", self.strategies)):
            twice = [name for name, count in Counter(names).items() if count > 1]
            if twice:
                raise ConfigError(f"{field}: {twice[0]!r} is given twice; drop one")
        for name in self.plugins:
            PLUGINS.get(name)
        for name in self.strategies:
            parse_chain(name)


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What would be generated; nothing is stored yet."""

    test_set: TestSet
    cells: dict[tuple[str, str], int]
    """(plugin, chain) → cases."""
    limited_by: str
    """Why there are not more cases: ``max_tests`` or ``mutations_per_prompt or goals``."""

    def result(self) -> TestSetResult:
        """Return what the test set is, and what executing it against one local target takes."""
        cases = self.test_set.cases
        cpu_s = round(len(cases) * CPU_S_PER_CALL, 3)
        return {
            "kind": "test_set",
            "test_set": self.test_set.id,
            "promptfoo_id": promptfoo_id(promptfoo_tests(self.test_set)),
            "tests": len(cases),
            "controls": sum(case.is_control for case in cases),
            "by_plugin": dict(Counter(case.plugin for case in cases)),
            "by_strategy": dict(Counter(chain_name(case.strategies) for case in cases)),
            "by_category": dict(Counter(case.category for case in cases)),
            "estimate": {"calls": len(cases), "cpu_s": cpu_s, "usd": 0.0},
            "samples": [
                {
                    "plugin": case.plugin,
                    "strategy": chain_name(case.strategies),
                    "goal": case.goal,
                    "prompt": case.prompt[:400],
                }
                for case in cases[:: max(1, len(cases) // 12)]
            ],
        }


def preview(store: Store, config: GenerateConfig) -> Preview:
    """Return the test set of a configuration; ``testsets.save`` stores it.

    Cases are dealt in rounds over all plugin × strategy cells; each disguised goal comes with its
    plain form. A control plugin gets no further cases while it has as many as any harm plugin.

    Raises:
        DataError: If there is no pair set or it holds out no goal of these plugins.
    """
    pool = load_goals(store, pair_set=config.pair_set)
    cases = _deal(config, pool)
    if not cases:
        raise DataError(
            f"pair set {pool.pair_set[:12]!r} holds out no goal for the plugins "
            f"{', '.join(config.plugins) or 'of this version'}; its held-out categories: "
            f"{', '.join(pool.by_category)}"
        )
    recipe = json.loads(canonical_json(asdict(config) | {"pair_set": pool.pair_set}))
    cells = Counter((case.plugin, chain_name(case.strategies)) for case in cases)
    full = len(cases) == config.max_tests
    return Preview(
        test_set=TestSet(cases=tuple(cases), recipe=recipe),
        cells=dict(sorted(cells.items())),
        limited_by="max_tests" if full else "mutations_per_prompt or goals",
    )


def _deal(config: GenerateConfig, pool: GoalPool) -> list[TestCase]:
    chains = config.strategies or default_chains()
    plugins = [PLUGINS.get(name) for name in config.plugins or PLUGINS.names()]
    cells = [
        _Cell(plugin=plugin, chain=chain, goals=plugin.goals(pool), seed=config.seed)
        for plugin in plugins
        for chain in chains
    ]
    cells.sort(key=lambda cell: cell.rank)
    dealer = _Dealer(config, with_plain=PLAIN in chains)
    attacks = [plugin.name for plugin in plugins if not plugin.is_control]
    cases: list[TestCase] = []
    dealt: Counter[str] = Counter()
    before = -1
    while before < len(cases) < config.max_tests:
        before = len(cases)
        for cell in cells:
            # More controls than attacks on any one harm would only dilute the set.
            most = max((dealt[name] for name in attacks), default=config.max_tests)
            if cell.plugin.is_control and dealt[cell.plugin.name] >= most:
                continue
            new = dealer.next_cases(cell)
            dealt[cell.plugin.name] += len(new)
            cases.extend(new)
    return cases[: config.max_tests]


class _Cell:
    """One plugin under one chain, and the goals it has left."""

    def __init__(self, *, plugin: Plugin, chain: str, goals: Sequence[str], seed: int) -> None:
        self.plugin = plugin
        self.chain = parse_chain(chain)
        self.rank = text_id("cell", str(seed), plugin.name, chain)
        # Each cell has an order of its own: shared, every chain would start with the same goals.
        self.goals = sorted(goals, key=lambda goal: text_id(self.rank, goal))


class _Dealer:
    """Makes cases and keeps count of the disguises of each goal."""

    def __init__(self, config: GenerateConfig, *, with_plain: bool) -> None:
        self._seed = config.seed
        self._most = config.mutations_per_prompt
        self._with_plain = with_plain
        self._mutations: Counter[str] = Counter()
        self._prompts: set[tuple[str, str]] = set()

    def next_cases(self, cell: _Cell) -> list[TestCase]:
        """Return the cell's next case, after its plain form where that was not dealt yet.

        Of the goals left, one with fewest disguises so far.
        """
        while cell.goals:
            goal = min(cell.goals, key=lambda goal: self._mutations[goal])  # first of equals
            if cell.chain and self._mutations[goal] >= self._most:
                return []
            cell.goals.remove(goal)
            case = self._case(cell.plugin, cell.chain, goal)
            # A disguise that changes nothing, or repeats another's text, would count double.
            if (cell.chain and case.prompt == goal) or not self._is_new(case):
                continue
            self._mutations[goal] += bool(cell.chain)
            plain = self._case(cell.plugin, (), goal)
            return [plain, case] if self._with_plain and self._is_new(plain) else [case]
        return []

    def _is_new(self, case: TestCase) -> bool:
        key = (case.plugin, case.prompt)
        known = key in self._prompts
        self._prompts.add(key)
        return not known

    def _case(self, plugin: Plugin, chain: Sequence[Strategy], goal: str) -> TestCase:
        layers = [goal]
        for strategy in chain:
            layers.append(strategy.disguise(layers[-1], seed=self._seed))
        taxonomy = set(plugin.taxonomy).union(*(strategy.taxonomy for strategy in chain))
        return TestCase(
            prompt=layers[-1],
            goal=goal,
            plugin=plugin.name,
            strategies=tuple(strategy.name for strategy in chain),
            category=plugin.category,
            severity=plugin.severity,
            taxonomy=() if plugin.is_control else tuple(sorted(taxonomy)),
            is_control=plugin.is_control,
            # What stands between goal and prompt, so that a judge can tell a half-undone chain.
            metadata={"layers": layers[1:-1]} if len(chain) > 1 else {},
        )
