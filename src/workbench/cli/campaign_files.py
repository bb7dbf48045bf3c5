"""``workbench campaign import`` and ``export``: the files of other tools."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from workbench.cli.campaign_generate import json_option
from workbench.cli.opening import EXIT_CODES, open_here
from workbench.core.errors import ConfigError

if TYPE_CHECKING:
    from workbench.store.records import Attempt

__all__ = ["export", "import_"]


@click.command(name="import", epilog=EXIT_CODES)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--format", "form", required=True,
    type=click.Choice(["promptfoo", "promptfoo-results", "garak"]),
)  # fmt: skip
@click.option("--test-set", default="", metavar="ID", help="That promptfoo's results are of.")
@json_option
def import_(file: Path, *, form: str, test_set: str, as_json: bool) -> None:
    """Take in test sets and results of other tools.

    FILE is a test set of promptfoo, or what promptfoo or garak tried. Verdicts stay those of the
    other tool; `campaign analyze` adds intervals and comparisons.

    \b
    Examples:
      workbench campaign import redteam.yaml --format promptfoo
      workbench campaign import out.json --format promptfoo-results --test-set 3f9a
      workbench campaign import garak.report.jsonl --format garak
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.campaign import testsets
    from workbench.campaign.imported import keep_attempts
    from workbench.campaign.interop.garak import read_garak
    from workbench.campaign.interop.promptfoo import read_promptfoo
    from workbench.campaign.interop.promptfoo_results import read_results

    store = open_here()
    told: dict[str, Any]
    if form == "promptfoo":
        found = read_promptfoo(file)
        told = {"test_set": testsets.save(store, found), "tests": len(found)}
    elif form == "garak":
        report = read_garak(file)
        done = keep_attempts(
            store, report.test_set, report.attempts, source="garak", path=file,
            threshold=report.threshold,
        )  # fmt: skip
        told = {"test_set": done.test_set, "execution": done.id, "attempts": done.count}
        told["skipped"] = dict(report.skipped)
    else:
        if not test_set:
            raise ConfigError("--test-set is missing: which test set are the results of?")
        cases = testsets.load(store, test_set)
        done = keep_attempts(store, cases, read_results(file), source="promptfoo", path=file)
        told = {"test_set": done.test_set, "execution": done.id, "attempts": done.count}
    click.echo(json.dumps(told) if as_json else "  ".join(f"{k} {v}" for k, v in told.items()))


@click.command(epilog=EXIT_CODES)
@click.argument("identity", metavar="TEST_SET|EXECUTION")
@click.option(
    "--format", "form", required=True,
    type=click.Choice(["promptfoo", "promptfoo-results", "garak", "inspect"]),
    help="promptfoo writes a test set, the others an execution.",
)  # fmt: skip
@click.option("--out", required=True, type=click.Path(path_type=Path))
@click.option("--target", default="", help="Of an execution, only this one.")
def export(identity: str, *, form: str, out: Path, target: str) -> None:
    """Write a test set or an execution for other tools.

    \b
    Examples:
      workbench campaign export 3f9a --format promptfoo --out redteam.yaml
      workbench campaign export 5b1c77d2 --format garak --out report.jsonl --target bare
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.campaign import testsets
    from workbench.campaign.executions import load_execution
    from workbench.campaign.interop.garak import write_garak
    from workbench.campaign.interop.inspect_logs import write_inspect_log
    from workbench.campaign.interop.promptfoo import write_promptfoo
    from workbench.campaign.interop.promptfoo_results import write_results

    store = open_here()
    if form == "promptfoo":
        click.echo(f"promptfoo id {write_promptfoo(testsets.stored(store, identity), out)}")
        return
    done = load_execution(store, identity)
    if target and target not in done.targets:
        raise ConfigError(f"--target {target!r}: the execution has {', '.join(done.targets)}")
    attempts: Iterable[Attempt] = (one for one in done.attempts() if target in {"", one.target})
    cases = testsets.load(store, done.test_set)
    write = {
        "promptfoo-results": write_results, "garak": write_garak, "inspect": write_inspect_log
    }[form]  # fmt: skip
    write(attempts, out, cases=cases)
