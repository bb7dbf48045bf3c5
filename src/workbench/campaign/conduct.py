"""Both phases as people start them: everything that they need, opened and closed.

Notebooks, the command line and the server call these; what they do is in ``generate`` and
``execute``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from workbench.campaign.execute import Progress, execute
from workbench.campaign.executions import Execution
from workbench.campaign.grading import AnswerGrader, Grader, GuardGrader
from workbench.campaign.targets.base import Kind, Target
from workbench.campaign.targets.spec import open_targets, parse_target, services_of
from workbench.core.errors import ConfigError
from workbench.core.identity import content_id
from workbench.llm.config import GatewayConfig, read_config
from workbench.store.database import Store
from workbench.store.records import TestSet

if TYPE_CHECKING:
    from workbench.campaign.generate import Preview
    from workbench.campaign.strategies.attacker import Attacker
    from workbench.campaign.targets.config import TargetSpec
    from workbench.campaign.testsets import StoredTestSet
    from workbench.diffusion.sanitizer import Sanitizer
    from workbench.embedding.encoder import Encoder
    from workbench.judge.opinions import AnswerJudge
    from workbench.judge.probe import Bench
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
class ExecuteOptions:
    """Whom to attack, who judges, and within which limits."""

    targets: tuple[str, ...]
    """Lines or paths as ``targets.spec.parse_target`` reads them."""
    sanitizer: str = ""
    """Id of the model behind ``sanitizer`` and ``guarded``; empty for the newest."""
    judges: Literal["rules", "probes"] = "probes"
    """Cheap judges of answers: rules alone, or rules and the probes on embeddings and on text.
    Rules alone, without a grader, count every attack that was not declined: an upper bound."""
    grader: str = ""
    """Model that validates what cheap judges flag: a tier (``cheap``, ``standard``, ``strong``), a
    model by name, or empty for none."""
    trials: int = 1
    label: str = ""
    """The same work under another label is done anew."""
    budget_usd: Decimal | None = None
    """Most to spend, on models and on targets with a declared price each."""
    retry_errors: bool = False
    allow_hosts: tuple[str, ...] = ()
    """Hosts beyond this machine that may be attacked."""
    staging: bool = False
    """Whether the targets are declared not to be production."""
    llm: GatewayConfig | None = None
    """How models are called; as the settings say if not given."""

    def __post_init__(self) -> None:
        if self.judges not in {"rules", "probes"}:
            raise ConfigError(f"judges is {self.judges!r}; write rules or probes")
        if not self.targets:
            raise ConfigError("no target; give at least one, e.g. bare or http://127.0.0.1:8000")


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
    work = _work_of(test_set, specs, options)
    async with AsyncExitStack() as stack:
        opened = await _open(store, specs, options, work=work, stack=stack, tell=tell)
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
        for config in services_of([spec], _config(store, options)).values():
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


@dataclass(frozen=True, kw_only=True)
class _Opened:
    store: Store
    targets: list[Target]
    graders: dict[Kind, Grader]


async def _open(
    store: Store,
    specs: Sequence[TargetSpec],
    options: ExecuteOptions,
    *,
    work: str,
    stack: AsyncExitStack,
    tell: Callable[[str], None],
) -> _Opened:
    """Return targets and graders; whatever they need is closed with the stack."""
    store = replace(store, settings=replace(store.settings, run_id=store.settings.run_id or work))
    config = _config(store, options)
    sanitizer = _sanitizer(store, options) if any(one.needs_sanitizer for one in specs) else None
    gateways = {
        name: await _gateway(store, one, work=work, stack=stack, tell=tell)
        for name, one in services_of(specs, config).items()
    }
    targets = open_targets(
        specs, store=store, config=config, gateway=gateways, sanitizer=sanitizer, tell=tell,
        allow_hosts=options.allow_hosts, staging=options.staging,
    )  # fmt: skip
    graders: dict[Kind, Grader] = {}
    kinds = {target.kind for target in targets}
    bench = None
    if "guard" in kinds or options.judges == "probes":
        bench, encoder = _bench(store)
        graders["guard"] = GuardGrader(bench, encoder=encoder)
    if "model" in kinds:
        ask = None
        if options.grader:
            ask = (await _gateway(store, config, work=work, stack=stack, tell=tell)).map
        graders["model"] = await _answer_grader(
            options, bench=bench if options.judges == "probes" else None, ask=ask, config=config
        )
    return _Opened(store=store, targets=targets, graders=graders)


async def _answer_grader(
    options: ExecuteOptions, *, bench: Bench | None, ask: Any, config: GatewayConfig
) -> AnswerGrader:
    from workbench.judge.accuracy import accuracy, load_answers
    from workbench.judge.panel import Panel, ProbeAnswerJudge
    from workbench.judge.rules import RULES, UPPER_BOUND

    # Without probes and grader nobody can tell harm from an answer.
    cheap: list[AnswerJudge] = [*(RULES if bench or ask else UPPER_BOUND)]
    if bench:
        cheap.append(ProbeAnswerJudge(*bench.judges))
    strong = None
    if ask:
        from workbench.judge.rubric import RubricJudge

        tiers = ("cheap", "standard", "strong")
        named: dict[str, Any] = (
            {"tier": options.grader} if options.grader in tiers else {"model": options.grader}
        )
        strong = RubricJudge(ask, config=config, **named)
    panel = Panel(cheap=cheap)
    # A strong judge would cost a call per labelled answer. Its error is not measured here, nor is
    # that of the panel which it decides.
    measured = await accuracy([*cheap, *([] if strong else [panel])], load_answers())
    reports = bench.reports if bench else ()
    return AnswerGrader(
        Panel(cheap=cheap, strong=strong) if strong else panel, accuracy=measured, reports=reports
    )


async def _gateway(
    store: Store,
    config: GatewayConfig,
    *,
    work: str,
    stack: AsyncExitStack,
    tell: Callable[[str], None],
) -> Gateway:
    from workbench.llm.gateway import open_gateway

    opening = open_gateway(store, phase="execution", work=work, config=config, tell=tell)
    return await stack.enter_async_context(opening)


def _config(store: Store, options: ExecuteOptions) -> GatewayConfig:
    config = options.llm or read_config(store.settings)
    if options.budget_usd is not None:
        config = replace(config, budgets=replace(config.budgets, run=options.budget_usd))
    return config


def _innermost(spec: TargetSpec) -> TargetSpec:
    return _innermost(spec.target) if spec.target else spec


def _work_of(
    test_set: TestSet | StoredTestSet, specs: Sequence[TargetSpec], options: ExecuteOptions
) -> str:
    """Return the id of the piece of work: the same when it is resumed, however it is written."""
    judges = [options.judges, options.grader]
    whom = sorted(map(_whom, specs))
    same = [test_set.id, whom, options.sanitizer, judges, options.trials, options.label]
    return f"execute-{content_id(same)[:16]}"


def _whom(spec: TargetSpec) -> str:
    told = [spec.type, spec.name, spec.identity, spec.provider, spec.model, spec.function]
    return content_id([*told, spec.gain, _whom(spec.target) if spec.target else ""])


def _sanitizer(store: Store, options: ExecuteOptions) -> Sanitizer:
    from workbench.diffusion.sanitizer import Sanitizer

    model = options.sanitizer or store.artifacts.newest("model", said={"kind": "sanitizer"})
    if not model:
        raise ConfigError("no trained sanitizer; run 02_train_phase, or leave such targets out")
    folder = store.artifacts.path("model", store.artifacts.resolve("model", model))
    # It gets no judge of its own: the judges that report must not be the ones that select.
    return Sanitizer.load(folder, threads=1)


def _bench(store: Store) -> tuple[Bench, Encoder]:
    from workbench.embedding.vectors import open_encoder
    from workbench.judge.probe import train_bench

    encoder = open_encoder(store)
    return train_bench(store, encoder), encoder
