"""Both phases as people start them: everything that they need, opened and closed.

Notebooks, the command line and the server call these; what they do is in ``generate`` and
``execute``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from workbench.campaign.execute import Progress, execute
from workbench.campaign.executions import Execution
from workbench.campaign.opening import ExecuteOptions, config_of, open_all, work_of
from workbench.campaign.targets.spec import parse_target, services_of
from workbench.core.identity import content_id
from workbench.llm.config import GatewayConfig, read_config
from workbench.store.database import Store
from workbench.store.records import TestSet

if TYPE_CHECKING:
    from workbench.campaign.generate import Preview
    from workbench.campaign.strategies.attacker import Attacker
    from workbench.campaign.targets.config import TargetSpec
    from workbench.campaign.testsets import StoredTestSet
    from workbench.llm.estimate import Estimate
    from workbench.llm.gateway import Gateway
    from workbench.llm.messages import Request

__all__ = [
    "ExecuteOptions",
    "Forecast",
    "attacker_of",
    "conduct",
    "forecast",
    "generation_work",
    "open_attacker",
]


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What an execution is going to take, before any of it is spent."""

    attempts: int
    messages: int
    """To all targets; a conversation has several."""
    declared_usd: Decimal
    """For targets with a declared price."""
    models: Mapping[str, Estimate] = field(default_factory=dict)
    """Target → what the gateway expects."""

    def figures(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "attempts": self.attempts,
            "messages": self.messages,
            "declared_usd": float(self.declared_usd),
            "models": {name: one.figures() for name, one in self.models.items()},
        }


async def conduct(
    store: Store,
    test_set: TestSet | StoredTestSet,
    options: ExecuteOptions,
    *,
    progress: Callable[[Progress], None] | None = None,
    tell: Callable[[str], None] = print,
) -> Execution:
    """Return the execution of a test set; sends prompts, writes to the store, may spend money.

    Args:
        store: Where to.
        test_set: What to send.
        options: Whom to, and within which limits.
        progress: Called after each stored batch.
        tell: Called with a line when something is held or was lost earlier.

    Raises:
        ConfigError: If a target is not allowed or lacks something; nothing was sent.
        BudgetError: At the limit; what is stored is kept.
        WorkbenchError: As ``execute.execute``.
    """
    specs = [parse_target(line) for line in options.targets]
    work = work_of(test_set, specs, options)
    async with AsyncExitStack() as stack:
        opened = await open_all(store, specs, options, work=work, stack=stack, tell=tell)
        make = None
        if options.executor:
            from workbench.campaign.shards import crew_of, deal

            crew = crew_of(opened, specs, options, work=work, test_set=test_set.id)
            make = partial(deal, crew=crew)
        return await execute(
            opened.store,
            test_set,
            opened.targets,
            opened.graders,
            trials=options.trials,
            label=options.label,
            work=work,
            budget_usd=options.budget_usd,
            retry_errors=options.retry_errors,
            progress=progress,
            make=make,
        )


async def forecast(
    store: Store, test_set: TestSet | StoredTestSet, options: ExecuteOptions
) -> Forecast:
    """Return what an execution takes; needs no key, sends nothing and spends nothing.

    The strong judge is not counted: nobody knows yet what the cheap ones will flag.
    """
    from workbench.llm.gateway import open_gateway
    from workbench.llm.transport import open_transport

    specs = [parse_target(line) for line in options.targets]
    messages = options.trials * sum(len(case.turns) + 1 for case in test_set)
    models: dict[str, Estimate] = {}
    for line, spec in zip(options.targets, specs, strict=True):
        for config in services_of([spec], config_of(store, options)).values():
            requests = _asked(test_set, _innermost(spec), trials=options.trials)
            transport = open_transport(config, settings=replace(store.settings, offline=False))
            async with open_gateway(
                store, phase="execution", config=config, transport=transport
            ) as gateway:
                models[line] = await gateway.estimate(requests, is_kept=False)
    return Forecast(
        attempts=options.trials * len(test_set) * len(specs),
        messages=messages * len(specs),
        declared_usd=sum((_innermost(one).usd_per_call * messages for one in specs), Decimal(0)),
        models=models,
    )


def _asked(test_set: TestSet | StoredTestSet, spec: TargetSpec, *, trials: int) -> list[Request]:
    """Return a request per message to a model; what it will have answered before is left out."""
    from workbench.llm.messages import Request, Turn

    return [
        Request(
            prompt=said[-1], system=spec.system, model=spec.model, task="target",
            history=tuple(Turn("user", turn) for turn in said[:-1]), variant=trial,
            max_tokens=spec.max_tokens, namespace=f"forecast {case.id}",
        )
        for trial in range(trials)
        for case in test_set
        for said in ((*case.turns, case.prompt)[:last] for last in range(1, len(case.turns) + 2))
    ]  # fmt: skip


@asynccontextmanager
async def open_attacker(
    store: Store,
    plan: Preview,
    *,
    config: GatewayConfig | None = None,
    is_rehearsed: bool = False,
    tell: Callable[[str], None] = print,
) -> AsyncIterator[tuple[Attacker, Gateway]]:
    """Give who writes what a plan leaves to models, and the gateway that pays for it.

    Args:
        store: Where spending is entered, under the phase ``generation``.
        plan: Says what the piece of work is, so that it can be resumed.
        config: How models are called; as the settings say if not given.
        is_rehearsed: Only to estimate: no key is needed.
        tell: Called with a line when calls are held.
    """
    from workbench.llm.gateway import open_gateway
    from workbench.llm.transport import open_transport

    config = config or read_config(store.settings)
    work = generation_work(plan)
    job = store.settings.run_id or work
    store = replace(store, settings=replace(store.settings, run_id=job))
    online = replace(store.settings, offline=False)
    transport = open_transport(config, settings=online) if is_rehearsed else None
    async with open_gateway(
        store, phase="generation", work=work, config=config, transport=transport, tell=tell
    ) as gateway:
        yield attacker_of(plan, gateway, config=config), gateway


def generation_work(plan: Preview) -> str:
    """Return the id under which the cost of generating a plan is entered."""
    return f"generate-{content_id(plan.recipe)[:16]}"


def attacker_of(plan: Preview, gateway: Gateway, *, config: GatewayConfig) -> Attacker:
    """Return who writes attacks through a gateway; it never learns a profile's canaries."""
    from workbench.campaign.strategies.attacker import Attacker, practice_judge

    known = plan.profile
    return Attacker(
        ask=gateway.map,
        judge=practice_judge(gateway.map),
        profile=known.text if known else "",
        withheld=tuple(known.canaries.values()) if known else (),
        items_per_call=config.savings.items_per_call,
    )


def _innermost(spec: TargetSpec) -> TargetSpec:
    return _innermost(spec.target) if spec.target else spec
