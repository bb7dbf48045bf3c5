"""``workbench campaign``: generate once, execute anywhere, see what got through."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from workbench.cli.bar import progress_bar
from workbench.cli.campaign_files import export, import_
from workbench.cli.campaign_generate import (
    GENERATE,
    base_url_option,
    budget_option,
    catalog,
    dry_run_option,
    generate,
    generate_config,
    json_option,
    make_test_set,
    with_options,
)
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
from workbench.core.errors import ModelError
from workbench.core.money import show_usd, usd

if TYPE_CHECKING:
    from workbench.campaign.conduct import ExecuteOptions, Forecast
    from workbench.campaign.execute import Progress
    from workbench.campaign.executions import Execution
    from workbench.campaign.testsets import StoredTestSet
    from workbench.store.database import Store
    from workbench.store.records import TestSet

__all__ = ["campaign", "execute", "run"]

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
    click.option("--executor", default="", metavar="WHERE",
                 help="Who makes the attempts: processes, dask or dask://HOST:PORT.  [this one]"),
    click.option("--workers", default=0, metavar="N", help="How many of them.  [one per core]"),
)  # fmt: skip


@click.group(epilog=EXIT_CODES)
def campaign() -> None:
    """Red-team: generate a test set once, execute it anywhere.

    The phases are paid for apart. A test set is named by its content, can be read and priced before
    anything is sent, and is executed against any number of targets, which can be stopped and gone
    on with.

    \b
    Examples:
      workbench campaign generate --for model --max-tests 200 --dry-run
      workbench campaign execute 3f9a --target bare --target sanitizer@4
      workbench campaign run --for model --target http://127.0.0.1:8000/ask
      workbench campaign analyze --by plugin
      workbench campaign findings list
    """  # noqa: D301 - \b keeps click from wrapping


for _command in (
    generate, catalog, sets, profile, analyze, executions, abort, events, findings, import_, export
):  # fmt: skip
    campaign.add_command(_command)


@campaign.command(epilog=f"{EXIT_CODES} {EXIT_RULES}")
@click.argument("test_set", default="")
@with_options(_EXECUTE)
@click.option(
    "--only-failing", default="", metavar="EXECUTION",
    help="Only cases that got through there; makes a linked test set.",
)  # fmt: skip
@rule_options
@budget_option
@base_url_option
@dry_run_option
@json_option
def execute(
    test_set: str, *, only_failing: str, dry_run: bool, budget: str | None, base_url: str | None,
    as_json: bool, **choices: Any,
) -> None:  # fmt: skip
    """Send TEST_SET to targets and judge what comes back.

    The newest set, if none is given. Killed or interrupted, the same command goes on: nothing whose
    answer was stored is sent again.

    \b
    Examples:
      workbench campaign execute 3f9a --target bare --target sanitizer@1 --target sanitizer@4
      workbench campaign execute nightly --target openai:llama3@http://127.0.0.1:8000/v1 --trials 3
      workbench campaign execute --target shop.yaml --allow-host shop.example --budget 5
      workbench campaign execute 3f9a --target shop.yaml --fail-if "asr(category=pii) > 2%"
      workbench campaign execute 3f9a --target shop.yaml --executor processes --workers 4
    """  # noqa: D301 - \b keeps click from wrapping
    store = open_here()
    rules = Rules.take(choices)
    options = _execute_options(store, choices, budget=budget, base_url=base_url)
    if only_failing:
        cases: TestSet | StoredTestSet = _only_failing(store, only_failing, dry_run=dry_run)
    else:
        cases = _stored(store, test_set)
    _execute(store, cases, options, rules=rules, dry_run=dry_run, as_json=as_json)


@campaign.command(epilog=f"{EXIT_CODES} {EXIT_RULES}")
@with_options(GENERATE)
@with_options(_EXECUTE)
@rule_options
@budget_option
@base_url_option
@dry_run_option
@json_option
def run(*, dry_run: bool, budget: str | None, base_url: str | None, tag: str, as_json: bool,
        **choices: Any) -> None:  # fmt: skip
    """Generate and execute in one go.

    \b
    Examples:
      workbench campaign run --for guard --target bare --target sanitizer
      workbench campaign run --for model --target python:bot.py:answer --max-tests 100
    """  # noqa: D301 - \b keeps click from wrapping
    store = open_here()
    rules = Rules.take(choices)
    config, known = generate_config(store, choices)
    options = _execute_options(store, choices, budget=budget, base_url=base_url)
    made = make_test_set(
        store, config, known, dry_run=dry_run, budget=budget, base_url=base_url, tag=tag,
        as_json=as_json,
    )  # fmt: skip
    if options.budget_usd is not None:
        left = max(options.budget_usd - usd(made["usd"]), usd(0))
        options = replace(options, budget_usd=left)
    if dry_run:
        if as_json:
            click.echo(json.dumps(made))
        return
    cases = _stored(store, made["test_set"])
    _execute(store, cases, options, rules=rules, dry_run=False, as_json=as_json)


def _execute_options(
    store: Store, choices: dict[str, Any], *, budget: str | None, base_url: str | None
) -> ExecuteOptions:
    from workbench.campaign.conduct import ExecuteOptions

    most = usd(budget) if budget is not None else None
    config = spending_config(store, budget=budget, base_url=base_url)
    return ExecuteOptions(budget_usd=most, llm=config, **choices)


def _only_failing(store: Store, execution: str, *, dry_run: bool) -> TestSet | StoredTestSet:
    """Return the cases that got through in an execution, saved as a linked test set."""
    from workbench.campaign import testsets
    from workbench.campaign.analysis import failing_cases
    from workbench.campaign.executions import load_execution
    from workbench.core.errors import DataError
    from workbench.store.records import TestSet

    found = load_execution(store, execution)
    failing = set(failing_cases(found))
    whole = testsets.stored(store, found.test_set)
    if not failing:
        raise DataError(f"nothing got through in execution {found.id[:12]}; there is nothing to do")
    if len(failing) == len(whole):
        return whole
    if dry_run:
        return TestSet(cases=tuple(case for case in whole if case.id in failing))
    why = {"failing_in": found.id}
    return testsets.stored(
        store, testsets.subset(store, whole.id, lambda case: case.id in failing, why=why)
    )


def _stored(store: Store, test_set: str) -> StoredTestSet:
    import pyarrow as pa

    from workbench.campaign import testsets

    # Arrow's own allocator keeps what it had once: 20 MB more, of a process that mostly waits.
    pa.set_memory_pool(pa.system_memory_pool())
    return testsets.stored(store, test_set)


def _execute(
    store: Store,
    cases: TestSet | StoredTestSet,
    options: ExecuteOptions,
    *,
    rules: Rules,
    dry_run: bool,
    as_json: bool,
) -> None:
    from workbench.campaign.conduct import forecast

    if dry_run:
        _show_forecast(asyncio.run(forecast(store, cases, options)), as_json=as_json)
        return
    refuse_if_exceeded(store)
    done = run_spending(_conduct(store, cases, options, as_json=as_json), job="execute")
    told = f"{done.count} attempts, {done.resumed} of them from before, {done.errors} errors"
    click.echo(
        f"execution {done.id[:12]}: {told}, {show_usd(done.usd)} paid to targets", err=as_json
    )
    status = rules.apply(store, done, as_json=as_json)
    if done.errors == done.count:
        raise ModelError("every attempt failed; `workbench campaign events --kind target_failed`")
    sys.exit(status)


async def _conduct(
    store: Store, cases: TestSet | StoredTestSet, options: ExecuteOptions, *, as_json: bool
) -> Execution:
    from workbench.campaign.conduct import conduct

    with progress_bar("attempts", as_json=as_json) as tell:

        def show(at: Progress) -> None:
            told = f"{at.successes:,} got through, {at.errors:,} errors"
            tell(at.done, at.total, f"{told}, {show_usd(at.usd)}" if at.usd else told)

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
