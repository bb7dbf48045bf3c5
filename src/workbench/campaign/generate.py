"""Phase 1: from plugins and strategies to a test set that can be read and priced before it runs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from workbench.campaign import profile as profiles
from workbench.campaign.dealing import Cell, Dealer, Slot, deal, disguised
from workbench.campaign.interop.promptfoo import promptfoo_id, promptfoo_tests
from workbench.campaign.plugins.catalog import PLUGINS
from workbench.campaign.plugins.goals import GoalSource, goal_source
from workbench.campaign.strategies.base import PLAIN, chain_name
from workbench.campaign.strategies.catalog import default_chains, parse_chain
from workbench.core.errors import ConfigError, DataError
from workbench.core.identity import canonical_json, content_id
from workbench.store.campaign_results import TestSetResult
from workbench.store.campaigns import outcomes
from workbench.store.database import Store
from workbench.store.records import TestCase, TestSet

if TYPE_CHECKING:
    from workbench.campaign.profile import Profile
    from workbench.campaign.strategies.attacker import Attacker
    from workbench.campaign.strategies.drafts import Draft
    from workbench.llm.messages import Request

__all__ = ["CPU_S_PER_CALL", "GenerateConfig", "Preview", "fill", "planned", "preview"]

CPU_S_PER_CALL = 0.03
"""CPU seconds to send one case through a local target and judge it, mostly the encoder's; measured
with vectors not yet cached (246 cases, bare target, 2 cores: .026 s). An estimate."""
_CONFIRMED = 3
"""Successes that a finding counts for which a person confirmed."""


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """What to generate."""

    plugins: tuple[str, ...] = ()
    """Names of plugins; empty means all that suit the surface."""
    strategies: tuple[str, ...] = ()
    """Names of strategies, or chains ``a+b``; empty: all that need no model, some chains."""
    surface: Literal["", "guard", "model"] = ""
    """Kind of target that the set is for; plugins that make no sense there are left out."""
    max_tests: int = 400
    """Most test cases, >= 1."""
    mutations_per_prompt: int = 4
    """Most disguises of one goal, its plain form not counted, >= 0."""
    pair_set: str = ""
    """Version of the pair set whose held-out requests are the goals; empty means the newest."""
    profile: str = ""
    """Id of the target's stored profile; empty for none."""
    explore: float = 0.5
    """Share in [0, 1] of the cases dealt evenly; the rest goes to what worked before."""
    seed: int = 0
    """Seed of goals, strategies and disguises."""

    def __post_init__(self) -> None:
        for name, least in (("max_tests", 1), ("mutations_per_prompt", 0)):
            if (value := getattr(self, name)) < least:
                raise ConfigError(f"{name} is {value}; give at least {least}")
        if not 0 <= self.explore <= 1:
            raise ConfigError(f"explore is {self.explore}; give a share from 0 to 1")
        if self.surface not in {"", "guard", "model"}:
            raise ConfigError(f"surface is {self.surface!r}; write guard, model or nothing")
        for name, names in (("plugins", self.plugins), ("strategies", self.strategies)):
            twice = [one for one, count in Counter(names).items() if count > 1]
            if twice:
                raise ConfigError(f"{name}: {twice[0]!r} is given twice; drop one")
        for one in self.plugins:
            PLUGINS.get(one)
        for one in self.strategies:
            _check_chain(one)


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What would be generated; nothing is stored yet, and nothing was spent."""

    slots: tuple[Slot, ...]
    drafts: Mapping[int, Draft] = field(default_factory=dict)
    """Position of a slot that a model has to write → what it wrote."""
    recipe: dict[str, Any]
    limited_by: str
    """Why there are not more cases: ``max_tests`` or ``mutations_per_prompt or goals``."""
    left_out: dict[str, str]
    """Plugin → why it has no cases."""
    profile: Profile | None = None
    """Of the target, where one is known."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Why drafts of models were dropped → how many."""

    @property
    def pending(self) -> dict[int, Slot]:
        """Position → slot that a model still has to write."""
        return {
            at: slot
            for at, slot in enumerate(self.slots)
            if slot.cell.is_model_driven and at not in self.drafts
        }

    @property
    def cells(self) -> dict[tuple[str, str], int]:
        """(plugin, chain) → cases, those that a model has to write included."""
        return dict(sorted(Counter(slot.cell.key for slot in self.slots).items()))

    @cached_property
    def test_set(self) -> TestSet:
        """The cases that are written already."""
        cases: dict[str, TestCase] = {}
        texts: set[tuple[str, ...]] = set()
        for at, slot in enumerate(self.slots):
            if slot.cell.is_model_driven and at not in self.drafts:
                continue
            case = _case(slot, self.drafts.get(at), seed=self.recipe["seed"])
            text = (case.plugin, *case.turns, case.prompt)
            if text not in texts:  # two drafts may be one and the same text
                texts.add(text)
                cases[case.id] = case
        return TestSet(cases=tuple(cases.values()), recipe=self.recipe)

    def result(self, test_set: TestSet | None = None) -> TestSetResult:
        """Return what the test set is, and what executing it against one local target takes."""
        test_set = test_set or self.test_set
        cases = test_set.cases
        return {
            "kind": "test_set",
            "test_set": test_set.id,
            "promptfoo_id": promptfoo_id(promptfoo_tests(test_set)),
            "tests": len(cases),
            "controls": sum(case.is_control for case in cases),
            "by_plugin": dict(Counter(case.plugin for case in cases)),
            "by_strategy": dict(Counter(chain_name(case.strategies) for case in cases)),
            "by_category": dict(Counter(case.category for case in cases)),
            "estimate": {
                "calls": sum(len(case.turns) + 1 for case in cases),
                "cpu_s": round(len(cases) * CPU_S_PER_CALL, 3),
                "usd": 0.0,
            },
            "samples": [
                {
                    "plugin": case.plugin,
                    "strategy": chain_name(case.strategies),
                    "goal": case.goal,
                    "prompt": "\n\n".join((*case.turns, case.prompt))[:400],
                }
                for case in cases[:: max(1, len(cases) // 12)]
            ],
        }


def preview(store: Store, config: GenerateConfig, *, profile: Profile | None = None) -> Preview:
    """Return what a configuration gives; ``testsets.save`` stores its test set.

    Cases are dealt over all plugin × strategy cells (see ``campaign.dealing``); each disguised goal
    comes with its plain form. What a model has to write is counted, and written by :func:`fill`.

    Args:
        store: Where pair set, profile and earlier outcomes are.
        config: What to generate.
        profile: Of the target, instead of the stored one that the configuration names.

    Raises:
        DataError: If a plugin needs a pair set and there is none, or no plugin has a goal.
    """
    if config.profile and profile is None:
        profile = profiles.load(store, config.profile)
    source = goal_source(store, pair_set=config.pair_set, profile=profile, seed=config.seed)
    chains = config.strategies or default_chains()
    cells, left_out = _cells(config, source, chains)
    if not cells:
        why = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise DataError(f"no plugin has a goal ({why}); choose others")
    worked = _worked(store)
    dealer = Dealer(seed=config.seed, most=config.mutations_per_prompt, with_plain=PLAIN in chains)
    slots = deal(
        cells, dealer, most=config.max_tests, seed=config.seed, worked=worked,
        explore=config.explore,
    )  # fmt: skip
    made = asdict(config) | {"pair_set": source.pair_set, "profile": profile.id if profile else ""}
    history = content_id(sorted([*key, *counts] for key, counts in worked.items()))
    recipe = json.loads(canonical_json(made | {"history": history if worked else ""}))
    full = len(slots) == config.max_tests
    return Preview(
        slots=tuple(slots),
        recipe=recipe,
        limited_by="max_tests" if full else "mutations_per_prompt or goals",
        left_out=left_out,
        profile=profile,
    )


def planned(plan: Preview, attacker: Attacker) -> list[Request]:
    """Return the model calls that :func:`fill` is expected to make, for ``Gateway.estimate``."""
    from workbench.campaign.strategies.model_driven import get_model_strategy

    found: list[Request] = []
    for name, goals in _orders(plan).items():
        strategy = get_model_strategy(name)
        per_goal = max(len(places) for places in goals.values())
        found += strategy.planned(
            list(goals), attacker=attacker, per_goal=per_goal, seed=plan.recipe["seed"]
        )
    return found


async def fill(plan: Preview, attacker: Attacker) -> Preview:
    """Return the plan with what models wrote; spends money through the attacker.

    Slots for which no usable draft came stay pending and are no cases; why is in ``dropped``.

    Raises:
        BudgetError: At the limit. Answers are kept by the gateway: called again, it goes on.
        ModelError: If the service has answered nothing at all.
    """
    from workbench.campaign.strategies.model_driven import get_model_strategy

    drafts: dict[int, Draft] = dict(plan.drafts)
    for name, goals in _orders(plan).items():
        per_goal = max(len(places) for places in goals.values())
        written = await get_model_strategy(name).drafts(
            list(goals), attacker=attacker, per_goal=per_goal, seed=plan.recipe["seed"]
        )
        for places, several in zip(goals.values(), written, strict=True):
            drafts |= zip(places, several, strict=False)
    return replace(plan, drafts=drafts, dropped=dict(attacker.dropped))


def _orders(plan: Preview) -> dict[str, dict[str, list[int]]]:
    """Return model strategy → goal → positions of the slots that wait for its drafts."""
    orders: dict[str, dict[str, list[int]]] = {}
    for at, slot in plan.pending.items():
        goals = orders.setdefault(slot.cell.chain[0].name, {})
        goals.setdefault(slot.goal.text, []).append(at)
    return orders


def _cells(
    config: GenerateConfig, source: GoalSource, chains: Sequence[str]
) -> tuple[list[Cell], dict[str, str]]:
    parsed = [parse_chain(chain) for chain in chains]
    cells: list[Cell] = []
    left_out: dict[str, str] = {}
    for name in config.plugins or PLUGINS.names():
        plugin = PLUGINS.get(name)
        if config.surface and config.surface not in plugin.applies_to:
            left_out[name] = f"makes no sense for a {config.surface}"
        elif why := plugin.why_skipped(source):
            left_out[name] = why
        else:
            goals = tuple(plugin.goals(source))
            cells += [Cell(plugin=plugin, chain=chain, goals=goals) for chain in parsed]
    return cells, left_out


def _case(slot: Slot, draft: Draft | None, *, seed: int) -> TestCase:
    cell, goal = slot.cell, slot.goal
    layers, turns, metadata = slot.layers, goal.turns, dict(goal.metadata)
    if draft is not None:
        layers = disguised(draft.prompt, cell.chain[1:], seed=seed + slot.variant)
        turns = (*goal.turns, *draft.turns)
        metadata |= {"draft": dict(draft.notes)} if draft.notes else {}
    prompt = goal.framed(layers[-1])
    # What stands between goal and prompt, so that a judge can tell a half-undone chain.
    between = [one for one in layers if one not in {goal.text, prompt}]
    return TestCase(
        prompt=prompt,
        goal=goal.text,
        plugin=cell.plugin.name,
        strategies=tuple(strategy.name for strategy in cell.chain),
        category=goal.category,
        severity=cell.plugin.severity,
        taxonomy=cell.taxonomy,
        is_control=cell.plugin.is_control,
        turns=turns,
        assertions=goal.assertions,
        metadata=metadata | ({"layers": between} if between else {}),
    )


def _worked(store: Store) -> dict[tuple[str, str], tuple[int, int]]:
    """Return (plugin, chain) → successes and attempts; what people confirmed counts more."""
    from workbench.campaign.learning import confirmed_cells

    worked = outcomes(store.engine)
    for key, net in confirmed_cells(store).items():
        successes, attempts = worked.get(key, (0, 0))
        successes = max(0, successes + net * _CONFIRMED)
        worked[key] = (successes, max(successes, attempts + max(0, net * _CONFIRMED)))
    return worked


def _check_chain(text: str) -> None:
    """Refuse a chain in which a model would have to reword what is disguised already."""
    if any(one.disguise is None for one in parse_chain(text)[1:]):
        raise ConfigError(f"chain {text!r}: what a model writes comes first; reorder its layers")
