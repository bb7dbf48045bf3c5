"""``workbench campaign``: generate once, execute anywhere, see what got through."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from workbench.cli.bar import progress_bar
from workbench.cli.campaign_files import export, import_
from workbench.cli.campaign_results import (
    EXIT_RULES,
    Rules,
    abort,
    analyze,
    events,
    executions,
    rule_options,
)
from workbench.cli.findings import findings
from workbench.cli.opening import EXIT_CODES, open_here
from workbench.cli.spending import in_words, refuse_if_exceeded, run_spending, spending_config
from workbench.cli.test_sets import profile, sets
from workbench.core.money import show_usd, usd
from workbench.core.plain import one_line

if TYPE_CHECKING:
    from workbench.campaign.conduct import ExecuteOptions, Forecast
    from workbench.campaign.execute import Progress
    from workbench.campaign.executions import Execution
    from workbench.campaign.generate import GenerateConfig, Preview
    from workbench.campaign.testsets import StoredTestSet
    from workbench.llm.config import GatewayConfig
    from workbench.store.database import Store

__all__ = ["campaign", "catalog", "execute", "generate", "run"]

_SAMPLES = 8
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_dry_run = click.option("--dry-run", is_flag=True, help="Show what it would take; do nothing.")
_budget = click.option("--budget", metavar="USD", help="Most to spend.")
_base_url = click.option("--base-url", metavar="URL", help="Ask models there, e.g. a local server.")
_GENERATE = (
    click.option("--plugin", "plugins", multiple=True, metavar="NAME",
                 help="What to attack; may be repeated.  [all that suit]"),
    click.option("--strategy", "strategies", multiple=True, metavar="NAME[+NAME]",
                 help="How; may be repeated, + chains.  [all that need no model]"),
    click.option("--for", "surface", type=click.Choice(["guard", "model"]),
                 help="Kind of target; plugins that make no sense there are left out."),
    click.option("--max-tests", default=400, show_default=True, help="Most test cases."),
    click.option("--mutations", default=4, show_default=True, help="Most disguises of one goal."),
    click.option("--pair-set", default="", metavar="ID",
                 help="Whose held-out requests are goals.  [newest]"),
    click.option("--profile", "profile_", metavar="FILE|ID", default="",
                 help="What is known of the target; see `workbench campaign profile`."),
    click.option("--explore", default=0.5, show_default=True,
                 help="Share dealt evenly; the rest goes to what worked before."),
    click.option("--seed", default=0, show_default=True),
    click.option("--tag", default="", help="Tag the test set."),
)  # fmt: skip
_EXECUTE = (
    click.option("--target", "targets", multiple=True, required=True, metavar="TARGET",
                 help="bare, sanitizer[@GAIN], guarded:TARGET, anthropic:MODEL, openai:MODEL@URL,"
                 " http://…, ws://…, python:module:function or a YAML file; may be repeated."),
    click.option("--sanitizer", default="", metavar="ID", help="Model of sanitizers.  [newest]"),
    click.option("--judges", type=click.Choice(["rules", "probes"]), default="probes",
                 show_default=True, help="Cheap judges of answers."),
    click.option("--grader", default="", metavar="TIER|MODEL",
                 help="Model that validates what they flag.  [none]"),
    click.option("--trials", default=1, show_default=True, help="Tries of each case."),
    click.option("--label", default="", help="Another label does the same work anew."),
    click.option("--retry-errors", is_flag=True, help="Try again what failed, and nothing else."),
    click.option("--allow-host", "allow_hosts", multiple=True, metavar="HOST",
                 help="Host beyond this machine that may be attacked; may be repeated."),
    click.option("--staging", is_flag=True, help="Declare that no target is production."),
)  # fmt: skip


def _options(several: Sequence[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    def add(command: Any) -> Any:
        for option in reversed(several):
            command = option(command)
        return command

    return add


@click.group(epilog=EXIT_CODES)
def campaign() -> None:
    """Red-team in two phases that are paid for apart: generate a test set, execute it.

    A test set is named by its content, can be read and priced before anything is sent, and is
    executed against any number of targets, which can be stopped and gone on with.

    \b
    Examples:
      workbench campaign generate --for model --max-tests 200 --dry-run
      workbench campaign execute 3f9a --target bare --target sanitizer@4
      workbench campaign run --for model --target http://127.0.0.1:8000/ask
      workbench campaign analyze --by plugin
      workbench campaign findings list
    """  # noqa: D301 - \b keeps click from wrapping


for _command in (
    sets, profile, analyze, executions, abort, events, findings, import_, export
):  # fmt: skip
    campaign.add_command(_command)


@campaign.command(epilog=EXIT_CODES)
@_options(_GENERATE)
@_budget
@_base_url
@_dry_run
@_json
def generate(*, as_json: bool, dry_run: bool, budget: str | None, base_url: str | None, tag: str,
             **choices: Any) -> None:  # fmt: skip
    """Make a test set: what to attack × how, dealt evenly and by what worked before.

    \b
    Examples:
      workbench campaign generate --for guard --max-tests 400
      workbench campaign generate --plugin pii --strategy plain --strategy base64+rot13
      workbench campaign generate --plugin harm-violence --strategy crescendo --budget 2 --dry-run
      workbench campaign generate --for model --profile shop.md --tag nightly
    """  # noqa: D301 - \b keeps click from wrapping
    store = open_here()
    made = _generate(
        store, _generate_config(store, choices), dry_run=dry_run, budget=budget, base_url=base_url,
        tag=tag, as_json=as_json,
    )  # fmt: skip
    if as_json:
        click.echo(json.dumps(made, ensure_ascii=False))


@campaign.command(epilog=f"{EXIT_CODES} {EXIT_RULES}")
@click.argument("test_set", default="")
@_options(_EXECUTE)
@click.option(
    "--only-failing", default="", metavar="EXECUTION",
    help="Only cases that got through there; makes a linked test set.",
)  # fmt: skip
@rule_options
@_budget
@_base_url
@_dry_run
@_json
def execute(
    test_set: str, *, only_failing: str, dry_run: bool, budget: str | None, base_url: str | None,
    as_json: bool, **choices: Any,
) -> None:  # fmt: skip
    """Send TEST_SET to targets and judge what comes back; the newest set, if none is given.

    Killed or interrupted, the same command goes on: nothing that was answered is sent again.

    \b
    Examples:
      workbench campaign execute 3f9a --target bare --target sanitizer@1 --target sanitizer@4
      workbench campaign execute nightly --target openai:llama3@http://127.0.0.1:8000/v1 --trials 3
      workbench campaign execute --target shop.yaml --allow-host shop.example --budget 5
      workbench campaign execute 3f9a --target shop.yaml --fail-if "asr(category=pii) > 2%"
    """  # noqa: D301 - \b keeps click from wrapping
    store = open_here()
    rules = Rules.take(choices)
    wanted = _only_failing(store, only_failing) if only_failing else test_set
    options = _execute_options(store, choices, budget=budget, base_url=base_url)
    _execute(store, wanted, options, rules=rules, dry_run=dry_run, as_json=as_json)


@campaign.command(epilog=f"{EXIT_CODES} {EXIT_RULES}")
@_options(_GENERATE)
@_options(_EXECUTE)
@rule_options
@_budget
@_base_url
@_dry_run
@_json
def run(*, dry_run: bool, budget: str | None, base_url: str | None, tag: str, as_json: bool,
        **choices: Any) -> None:  # fmt: skip
    """Generate and execute in one go; each is still paid for apart.

    \b
    Examples:
      workbench campaign run --for guard --target bare --target sanitizer
      workbench campaign run --for model --target python:bot.py:answer --max-tests 100
    """  # noqa: D301 - \b keeps click from wrapping
    store = open_here()
    rules = Rules.take(choices)
    config = _generate_config(store, choices)
    options = _execute_options(store, choices, budget=budget, base_url=base_url)
    made = _generate(
        store, config, dry_run=dry_run, budget=budget, base_url=base_url, tag=tag, as_json=as_json
    )
    if dry_run:
        if as_json:
            click.echo(json.dumps(made, ensure_ascii=False))
        return
    _execute(store, made["test_set"], options, rules=rules, dry_run=False, as_json=as_json)


@campaign.command(epilog=EXIT_CODES)
@_json
def catalog(*, as_json: bool) -> None:
    """List plugins and strategies, with their ids in OWASP LLM, MITRE ATLAS and NIST AI 600-1.

    \b
    Examples:
      workbench campaign catalog
      workbench campaign catalog --json
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.campaign.plugins.catalog import PLUGINS
    from workbench.campaign.strategies.catalog import strategies

    plugins = [
        {"name": name, "about": one.about, "severity": one.severity, "for": sorted(one.applies_to),
         "taxonomy": list(one.taxonomy)}
        for name, one in PLUGINS
    ]  # fmt: skip
    disguises = [
        {"name": name, "kind": one.kind, "about": one.description, "taxonomy": list(one.taxonomy)}
        for name, one in strategies()
    ]
    if as_json:
        click.echo(json.dumps({"plugins": plugins, "strategies": disguises}))
        return
    for title, rows in (("plugins", plugins), ("strategies", disguises)):
        click.secho(title, fg="cyan")
        for row in rows:
            told = [f"{row['name']:<28}", str(row.get("severity") or row.get("kind"))]
            click.echo(f"  {told[0]} {told[1]:<12} {row['about']}  {' '.join(row['taxonomy'])}")


def _generate_config(store: Store, choices: dict[str, Any]) -> GenerateConfig:
    """Return what to generate, and take the options of it out of the choices."""
    from workbench.campaign.generate import GenerateConfig

    return GenerateConfig(
        plugins=choices.pop("plugins"),
        strategies=choices.pop("strategies"),
        surface=choices.pop("surface") or "",
        max_tests=choices.pop("max_tests"),
        mutations_per_prompt=choices.pop("mutations"),
        pair_set=choices.pop("pair_set"),
        profile=_profile(store, choices.pop("profile_")),
        explore=choices.pop("explore"),
        seed=choices.pop("seed"),
    )


def _profile(store: Store, given: str) -> str:
    from workbench.campaign import profile as profiles

    path = Path(given)
    if given and path.is_file():
        return profiles.save(store, profiles.read_profile(path))
    return store.artifacts.resolve("profile", given) if given else ""


def _execute_options(
    store: Store, choices: dict[str, Any], *, budget: str | None, base_url: str | None
) -> ExecuteOptions:
    from workbench.campaign.conduct import ExecuteOptions

    most = usd(budget) if budget is not None else None
    config = spending_config(store, budget=budget, base_url=base_url)
    return ExecuteOptions(budget_usd=most, llm=config, **choices)


def _generate(
    store: Store,
    config: GenerateConfig,
    *,
    dry_run: bool,
    budget: str | None,
    base_url: str | None,
    tag: str,
    as_json: bool,
) -> dict[str, Any]:
    """Return the result of a test set that was made, or would be."""
    from workbench.campaign import testsets
    from workbench.campaign.generate import preview
    from workbench.store.test_sets import add_tag

    plan = preview(store, config)
    cost = Decimal(0)
    told: dict[str, Any] = {}
    if plan.pending:
        spending = spending_config(store, budget=budget, base_url=base_url)
        if not dry_run:
            refuse_if_exceeded(store)
        work = _write(store, plan, spending, dry_run=dry_run)
        plan, cost, told = run_spending(work, job="generate")
    made: dict[str, Any] = {**plan.result(), "limited_by": plan.limited_by,
                            "left_out": plan.left_out, "dropped": plan.dropped,
                            "unwritten": len(plan.pending), "usd": float(cost), **told}  # fmt: skip
    if not dry_run:
        saved = testsets.save(store, plan.test_set, cost_usd=str(cost))
        if tag:
            add_tag(store.engine, saved, tag, owner=store.settings.user)
    if not as_json:
        _show_test_set(made, dry_run=dry_run)
    return made


async def _write(
    store: Store, plan: Preview, config: GatewayConfig, *, dry_run: bool
) -> tuple[Preview, Decimal, dict[str, Any]]:
    """Return the plan with what models wrote, what that cost, and what was expected."""
    from workbench.campaign.conduct import open_attacker
    from workbench.campaign.generate import fill, planned
    from workbench.core.money import ZERO
    from workbench.store.records import now

    async with open_attacker(store, plan, config=config, is_rehearsed=dry_run, tell=_tell) as (
        attacker,
        gateway,
    ):
        expected = await gateway.estimate(planned(plan, attacker), is_kept=not dry_run)
        _tell(f"a model writes {len(plan.pending)} of the cases: {in_words(expected)}")
        told = {"expected": expected.figures()}
        if dry_run:
            return plan, ZERO, told
        since = now()
        plan = await fill(plan, attacker)
    rows = store.ledger.rows(newest_calls=100_000)
    paid = [row.usd for row in rows if row.at >= since and row.phase == "generation"]
    return plan, sum(paid, ZERO), told


def _show_test_set(made: dict[str, Any], *, dry_run: bool) -> None:
    words = "would be" if dry_run else "is"
    click.secho(f"test set {made['test_set'][:12]} {words} {made['tests']} cases,"
                f" {made['controls']} of them controls; limited by {made['limited_by']}",
                fg="cyan")  # fmt: skip
    for name, count in sorted(made["by_plugin"].items()):
        click.echo(f"  {count:>6}  {name}")
    for name, why in made["left_out"].items():
        click.echo(f"  left out: {name}: {why}")
    if made["unwritten"]:
        reasons = ", ".join(f"{count} × {why}" for why, count in made["dropped"].items())
        click.echo(f"  {made['unwritten']} cases are not written: {reasons or 'needs a model'}")
    for sample in made["samples"][:_SAMPLES]:
        click.echo(
            f"  {sample['plugin']} · {sample['strategy']}: {one_line(sample['prompt'])[:100]}"
        )
    expected = made["estimate"]
    click.echo(
        f"one local target takes {expected['calls']:.0f} messages, {expected['cpu_s']:.0f} CPU s"
    )


def _only_failing(store: Store, execution: str) -> str:
    """Return the id of a new test set of the cases that got through in an execution."""
    from workbench.campaign import testsets
    from workbench.campaign.analysis import failing_cases
    from workbench.campaign.executions import load_execution
    from workbench.core.errors import DataError

    found = load_execution(store, execution)
    failing = set(failing_cases(found))
    if not failing:
        raise DataError(f"nothing got through in execution {found.id[:12]}; there is nothing to do")
    why = {"failing_in": found.id}
    if len(failing) == len(testsets.stored(store, found.test_set)):
        return found.test_set
    return testsets.subset(store, found.test_set, lambda case: case.id in failing, why=why)


def _execute(
    store: Store,
    test_set: str,
    options: ExecuteOptions,
    *,
    rules: Rules,
    dry_run: bool,
    as_json: bool,
) -> None:
    import pyarrow as pa

    from workbench.campaign import testsets
    from workbench.campaign.conduct import forecast

    # Arrow's own allocator keeps what it had once: 20 MB more, of a process that mostly waits.
    pa.set_memory_pool(pa.system_memory_pool())
    cases = testsets.stored(store, test_set)
    if dry_run:
        _show_forecast(asyncio.run(forecast(store, cases, options)), as_json=as_json)
        return
    refuse_if_exceeded(store)
    done = run_spending(_conduct(store, cases, options, as_json=as_json), job="execute")
    told = f"{done.count} attempts, {done.resumed} of them from before, {done.errors} errors"
    click.echo(
        f"execution {done.id[:12]}: {told}, {show_usd(done.usd)} paid to targets", err=as_json
    )
    sys.exit(rules.apply(store, done, as_json=as_json))


async def _conduct(
    store: Store, cases: StoredTestSet, options: ExecuteOptions, *, as_json: bool
) -> Execution:
    from workbench.campaign.conduct import conduct

    with progress_bar("attempts", as_json=as_json) as tell:

        def show(at: Progress) -> None:
            tell(at.done, at.total)

        return await conduct(store, cases, options, progress=show, tell=_tell)


def _show_forecast(found: Forecast, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(found.figures()))
        return
    told = f"{found.attempts:,} attempts, {found.messages:,} messages"
    click.echo(f"{told}; {show_usd(found.declared_usd)} at declared prices")
    for name, expected in found.models.items():
        click.echo(f"  {name}: {in_words(expected)}")


def _tell(line: str) -> None:
    click.echo(line, err=True)
