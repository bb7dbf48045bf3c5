"""What came of executions, on the command line: rates, the gate, files for CI, events."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from workbench import __version__
from workbench.cli.campaign_generate import json_option
from workbench.cli.opening import EXIT_CODES, open_here
from workbench.core.errors import ConfigError, GateError
from workbench.core.plain import one_line

if TYPE_CHECKING:
    from workbench.campaign.executions import Execution
    from workbench.store.database import Store

__all__ = ["EXIT_RULES", "Rules", "abort", "analyze", "events", "executions", "rule_options"]

EXIT_RULES = "4 also where an expression of --fail-if holds."
_GROUPS = ("all", "plugin", "strategy", "category", "severity")
_RULES = (
    click.option("--fail-if", "fail_if", multiple=True, metavar="EXPRESSION",
                 help='Exit 4 where it holds, e.g. "asr(category=pii) > 2%"; may be repeated.'),
    click.option("--junit", type=click.Path(path_type=Path), help="Write JUnit XML there."),
    click.option("--sarif", type=click.Path(path_type=Path), help="Write findings as SARIF there."),
)  # fmt: skip


def rule_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that :class:`Rules` takes."""
    for option in reversed(_RULES):
        command = option(command)
    return command


@dataclass(frozen=True, kw_only=True)
class Rules:
    """When a campaign fails a build, and what is written for CI."""

    fail_if: tuple[str, ...]
    junit: Path | None
    sarif: Path | None

    @classmethod
    def take(cls, choices: dict[str, Any]) -> Rules:
        """Return the rules of a command's options, and take these out; refuse bad expressions.

        Raises:
            ConfigError: If an expression cannot be read; nothing was sent then.
        """
        from workbench.campaign.conditions import parse

        rules = cls(**{name: choices.pop(name) for name in ("fail_if", "junit", "sarif")})
        for expression in rules.fail_if:
            parse(expression)
        return rules

    def apply(self, store: Store, execution: Execution, *, as_json: bool) -> int:
        """Show an execution, write the files that are asked for, and return the exit status."""
        from workbench.campaign.analysis import analyze as analyzed
        from workbench.campaign.gate import evaluate, failure
        from workbench.store.findings import findings

        result = analyzed(store, execution.id)
        known = findings(store.engine, execution.id)
        checks = evaluate(self.fail_if, execution, findings=known)
        if self.junit:
            from workbench.campaign.junit import junit

            _write(self.junit, junit(execution, checks=checks))
        if self.sarif:
            from workbench.campaign.sarif import sarif

            _write(self.sarif, json.dumps(sarif(known, tool_version=__version__), indent=1))
        if as_json:
            told = [{"expression": one.expression, "passed": one.passed} for one in checks]
            click.echo(json.dumps({**result, "checks": told}))
        else:
            _show(result, by="all")
        for check in checks:
            mark = "passed" if check.passed else "FAILED"
            click.echo(f"{mark}: {check.expression}  ({check})", err=as_json)
        if why := failure(checks):
            raise GateError(why)
        return 0


@click.command(epilog=f"{EXIT_CODES} {EXIT_RULES}")
@click.argument("execution", default="")
@click.option("--by", type=click.Choice(_GROUPS), default="all", show_default=True)
@rule_options
@json_option
def analyze(execution: str, *, by: str, as_json: bool, **choices: Any) -> None:
    """Show how EXECUTION went; keeps its findings.

    The newest one, if none is given.

    \b
    Examples:
      workbench campaign analyze
      workbench campaign analyze 5b1c77d2 --by strategy
      workbench campaign analyze 5b1c77d2 --fail-if "asr_high(severity=critical) > 5%"
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.campaign.executions import load_execution

    store = open_here()
    found = load_execution(store, execution)
    rules = Rules.take(choices)
    if by != "all" and not as_json:
        from workbench.campaign.rates import rates_by

        _show_rates(by, rates_by(found, by))
    sys.exit(rules.apply(store, found, as_json=as_json))


@click.command(epilog=EXIT_CODES)
@json_option
def executions(*, as_json: bool) -> None:
    """List executions, the newest first.

    \b
    Examples:
      workbench campaign executions --json
    """  # noqa: D301 - \b keeps click from wrapping
    store = open_here()
    rows = store.artifacts.rows("execution")
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        said = row["metadata"]
        targets = ", ".join(map(one_line, said["targets"]))
        told = f"{row['id'][:12]}  {row['created_at'][:19]}  {row['owner']}"
        click.echo(f"{told}  test set {said['test_set'][:12]}  {targets}")


@click.command(epilog=EXIT_CODES)
@click.argument("execution")
def abort(execution: str) -> None:
    """Have a running EXECUTION stop.

    What it has stored is kept. The id stands in the event ``attack_run_started``; see `workbench
    campaign events`.

    \b
    Examples:
      workbench campaign abort 5b1c77d2
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.campaign.execute import abort as stop

    store = open_here()
    stop(store, _started(store, execution))
    click.echo("asked to stop; calls in flight still end and are kept")


@click.command(epilog=EXIT_CODES)
@click.option("--kind", default="", help="Only events of this kind.")
@click.option("--subject", default="", metavar="ID", help="Only what happened to this.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1))
@json_option
def events(*, kind: str, subject: str, limit: int, as_json: bool) -> None:
    """Show what happened in campaigns, oldest first.

    \b
    Examples:
      workbench campaign events --kind vulnerable_prompt_detected --limit 20
      workbench campaign events --json > events.jsonl
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.store.events import events as told

    for one in told(open_here().engine, kind=kind, subject=subject, limit=limit):
        if as_json:
            click.echo(json.dumps(asdict(one)))
        else:
            details = one_line(json.dumps(one.details, ensure_ascii=False))
            head = f"{one.at[:19]}  {one.kind:<28} {one.subject[:12]}"
            click.echo(f"{head}  {one_line(one.who)}  {details}")


def _show(result: Mapping[str, Any], *, by: str) -> None:
    _show_rates("attacks that succeed", result["totals"])
    _show_rates("controls spoilt", [row for row in result["controls"] if row["group"] == by])
    click.echo(f"{result['findings']} findings; `workbench campaign findings list` shows them")


def _show_rates(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        return
    click.secho(title, fg="cyan")
    for row in rows:
        rate = row["rate"]
        shown = f"{rate['value']:>7.1%} [{rate['low']:.1%}, {rate['high']:.1%}]"
        name = one_line(f"{row['target']}  {row['group']}")
        click.echo(f"  {name:<48} {shown}  {row['successes']} of {row['attempts']}")


def _started(store: Store, beginning: str) -> str:
    from workbench.campaign.testsets import list_test_sets
    from workbench.core.errors import DataError
    from workbench.store.events import events as told

    mine = {one.id for one in list_test_sets(store)}
    runs = told(store.engine, kind="attack_run_started", limit=10_000)
    known = {one.subject for one in runs if one.details.get("test_set") in mine}
    found = [one for one in known if one.startswith(beginning)]
    if len(found) != 1:
        raise DataError(f"{len(found)} executions begin with {beginning!r}; give the id of one")
    return found[0]


def _write(path: Path, text: str) -> None:
    from workbench.store.artifacts import write_atomic

    try:
        write_atomic(path, text.encode("utf-8", "replace"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; name a file that can be written") from None
    click.echo(f"wrote {path}", err=True)
