"""What an execution needs, opened: targets and judges, from options and the store alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from workbench.campaign.grading import AnswerGrader, Grader, GuardGrader
from workbench.campaign.targets.base import Kind, Target
from workbench.campaign.targets.spec import open_targets, services_of
from workbench.core.cluster import check_executor
from workbench.core.errors import ConfigError
from workbench.core.identity import content_id
from workbench.llm.config import GatewayConfig, read_config
from workbench.store.database import Store
from workbench.store.records import TestSet

if TYPE_CHECKING:
    from workbench.campaign.targets.config import TargetSpec
    from workbench.campaign.testsets import StoredTestSet
    from workbench.diffusion.sanitizer import Sanitizer
    from workbench.embedding.encoder import Encoder
    from workbench.judge.opinions import AnswerJudge
    from workbench.judge.probe import Bench
    from workbench.llm.gateway import Gateway

__all__ = ["ExecuteOptions", "Opened", "config_of", "open_all", "work_of"]

_MOST_WORKERS = 4_096


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
    executor: str = ""
    """Who makes the attempts: ``processes``, ``dask`` or ``dask://host:8786``; empty: this process.
    It changes no figure of the execution, which any other may go on with."""
    workers: int = 0
    """How many, each with its part of every bound; 0: one for each core of this machine."""

    def __post_init__(self) -> None:
        if self.judges not in {"rules", "probes"}:
            raise ConfigError(f"judges is {self.judges!r}; write rules or probes")
        if self.executor and check_executor(self.executor) == "threads":
            raise ConfigError("executor is threads: calls overlap anyway; leave it out")
        if not 0 <= self.workers <= _MOST_WORKERS:
            raise ConfigError(f"workers is {self.workers}; give 0 to {_MOST_WORKERS}")
        if not self.targets:
            raise ConfigError("no target; give at least one, e.g. bare or http://127.0.0.1:8000")


@dataclass(frozen=True, kw_only=True)
class Opened:
    """What an execution needs, open."""

    store: Store
    """Acts for the run under which costs are entered."""
    targets: list[Target]
    graders: dict[Kind, Grader]


async def open_all(
    store: Store,
    specs: Sequence[TargetSpec],
    options: ExecuteOptions,
    *,
    work: str,
    stack: AsyncExitStack,
    tell: Callable[[str], None],
) -> Opened:
    """Return targets and graders; whatever they need is closed with the stack."""
    store = replace(store, settings=replace(store.settings, run_id=store.settings.run_id or work))
    config = config_of(store, options)
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
    return Opened(store=store, targets=targets, graders=graders)


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


def config_of(store: Store, options: ExecuteOptions) -> GatewayConfig:
    """Return how models are called, within the budget of the options."""
    config = options.llm or read_config(store.settings)
    if options.budget_usd is not None:
        config = replace(config, budgets=replace(config.budgets, run=options.budget_usd))
    return config


def work_of(
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
