"""``workbench risk``: what to fix first, why, and by when."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from workbench.cli.bar import progress_bar
from workbench.cli.campaign_generate import (
    base_url_option,
    budget_option,
    dry_run_option,
    json_option,
    with_options,
)
from workbench.cli.opening import EXIT_CODES, open_here
from workbench.cli.risk_documents import documents
from workbench.cli.risk_register import decide, diff, export, list_, show
from workbench.cli.risk_sources import snapshots, sync
from workbench.cli.spending import in_words, refuse_if_exceeded, run_spending, spending_config
from workbench.core.errors import ConfigError
from workbench.core.money import show_usd
from workbench.core.plain import one_line

if TYPE_CHECKING:
    from workbench.risk.assess import Assessed, AssessOptions, Pending
    from workbench.store.database import Store

__all__ = ["assess", "risk"]

_POLICIES = ("bod-26-04", "ssvc-deployer", "ssvc-coordinator")
_STAGES = ("evidence", "scores")
_SHOWN = 20
_SENTENCE_END = re.compile(r"(?<=[.!?])[ \t]+|\n+")
_ASSESS = (
    click.option("--assets", type=click.Path(path_type=Path, dir_okay=False),
                 help="Inventory as CSV: id, name, criticality, exposure, owner."),
    click.option("--asset", default="", metavar="ID",
                 help="Asset of CVE ids, and of files that name none."),
    click.option("--campaign", "campaigns", multiple=True, metavar="EXECUTION",
                 help="Findings of a campaign, `newest` for the last; may be repeated."),
    click.option("--target-asset", "target_assets", multiple=True, metavar="TARGET=ASSET",
                 help="Which asset a target is part of; may be repeated."),
    click.option("--snapshot", default="", metavar="ID",
                 help="What sources said; `sample` for the shipped one.  [newest]"),
    click.option("--policy", type=click.Choice(_POLICIES), default=_POLICIES[0], show_default=True,
                 help="Decision table."),
    click.option("--today", metavar="DATE", help="Day that is assessed.  [today, UTC]"),
    click.option("--explain", "model", default="rules", show_default=True,
                 metavar="rules|routed|MODEL", help="Who explains; models cost money."),
    click.option("--documents", default="", metavar="NAME", help="Documents that give context."),
    click.option("--sample", is_flag=True,
                 help="Assess the shipped sample: a small inventory, SBOM and VEX."),
    click.option("--draw", "draw_cves", default=0, metavar="N",
                 help="Also N CVEs of the snapshot on invented assets, to rehearse at size."),
    click.option("--draw-assets", default=50, show_default=True, metavar="N"),
    click.option("--seed", default=0, show_default=True, help="Of drawings and losses."),
    click.option("--label", default="", help="Another label is another assessment."),
    click.option("--approve", is_flag=True,
                 help="Stop for a decision after evidence and after scores."),
    click.option("--approved", type=click.Choice(_STAGES),
                 help="Go on past that stage, e.g. where nobody can be asked."),
    click.option("--executor", default="threads", show_default=True, metavar="WHERE",
                 help="Who gathers evidence: threads, processes, dask, or dask://HOST:PORT."),
)  # fmt: skip


@click.group(epilog=EXIT_CODES)
def risk() -> None:
    """Assess vulnerabilities and campaign findings in one register.

    What sources say is frozen in snapshots, so assessments open no connection. What is not known is
    taken at its worst and named; nothing is low for lack of data.

    \b
    Examples:
      workbench risk assess sbom.json vex.json --assets assets.csv --campaign newest
      workbench risk assess --sample
      workbench risk list --level critical --overdue
      workbench risk decide 3f9a --accept --due 2027-03-31 --note "isolated until the move"
      workbench risk export register.csv
    """  # noqa: D301 - \b keeps click from wrapping


for _command in (sync, snapshots, list_, show, decide, diff, export, documents):
    risk.add_command(_command)


@risk.command(epilog=EXIT_CODES)
@click.argument("things", nargs=-1, metavar="[CVE|FILE]...")
@with_options(_ASSESS)
@budget_option
@base_url_option
@dry_run_option
@json_option
def assess(
    things: tuple[str, ...], *, dry_run: bool, budget: str | None, base_url: str | None,
    approve: bool, approved: str | None, executor: str, as_json: bool, **choices: Any,
) -> None:  # fmt: skip
    """Assess CVE ids and FILEs: score, decide, explain, enter in the register.

    Files are recognized by what is in them: lists of ids, CSV, CycloneDX, SPDX, VEX, Grype, Trivy.
    Killed or interrupted, the same command goes on.

    \b
    Examples:
      workbench risk assess sbom.json vex.json scan.json --assets assets.csv
      workbench risk assess CVE-2021-44228 CVE-2014-0160 --asset web-1 --snapshot sample
      workbench risk assess --campaign newest --target-asset bookshop=shop --assets assets.csv
      workbench risk assess sbom.json --explain routed --budget 2 --dry-run
      workbench risk assess sbom.json --approve
      workbench risk assess --draw 500 --snapshot sample
    """  # noqa: D301 - \b keeps click from wrapping
    store = open_here()
    options = _options(store, things, choices, budget=budget, base_url=base_url)
    if dry_run:
        _show_forecast(store, options, as_json=as_json)
        return
    if options.model != "rules":
        refuse_if_exceeded(store)
    passed = _STAGES[: _STAGES.index(approved) + 1] if approved else ()
    narrative = _Sentences((lambda _: None) if as_json else _tell)
    from workbench.core.cluster import open_executor

    with progress_bar("risks", as_json=as_json) as bar, open_executor(executor, jobs=2) as workers:
        from workbench.risk import assess as room

        def step(stage: str, at: int, whole: int) -> None:
            if at >= whole:
                narrative("\n")
            bar(at, whole, stage)

        def ask(seen: Pending) -> bool:
            return not approve or seen.stage in passed or _is_approved(seen, as_json=as_json)

        done = run_spending(
            room.assess(
                store, options, executor=workers, approve=ask, tell=_tell, progress=step,
                on_text=narrative,
            ),
            job="assess",
        )  # fmt: skip
    narrative("\n")
    if isinstance(done, room.Pending):
        _show_pending(done, as_json=as_json)
    else:
        _show(done, as_json=as_json)


def _options(
    store: Store, things: Sequence[str], choices: dict[str, Any], *, budget: str | None,
    base_url: str | None,
) -> AssessOptions:  # fmt: skip
    from workbench.risk.assess import AssessOptions

    cves = tuple(one for one in things if one.upper().startswith("CVE-") and not Path(one).exists())
    files = tuple(Path(one) for one in things if one not in cves)
    if choices.pop("sample"):
        from workbench.risk.inputs import sample_inputs

        shipped, inventory = sample_inputs()
        files += shipped
        choices["assets"] = choices["assets"] or inventory
        choices["snapshot"] = choices["snapshot"] or "sample"
    day = choices.pop("today")
    targets = dict(_pair(one) for one in choices.pop("target_assets"))
    config = spending_config(store, budget=budget, base_url=base_url)
    return AssessOptions(
        files=files, cves=cves, today=_day(day) if day else None, target_assets=targets,
        llm=config, **choices,
    )  # fmt: skip


def _pair(text: str) -> tuple[str, str]:
    target, equals, asset = text.rpartition("=")
    if not (equals and target and asset):
        raise ConfigError(f"--target-asset {text!r}: write TARGET=ASSET, e.g. bookshop=shop")
    return target, asset


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"--today {text!r} is no date; write it as 2026-11-27") from None


def _is_approved(seen: Pending, *, as_json: bool) -> bool:
    """Ask on a terminal; elsewhere nobody can say yes."""
    if as_json or not sys.stdin.isatty():
        return False
    _show_pending(seen, as_json=False)
    return click.confirm("Go on?", err=True)


def _show_pending(seen: Pending, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"stage": seen.stage, **seen.summary}))
        return
    click.echo(f"stopped after {seen.stage}; nothing is in the register yet")
    for name, value in seen.summary.items():
        rows = value if isinstance(value, list) else [value]
        for row in rows:
            told = row if not isinstance(row, Mapping) else ", ".join(
                f"{key} {one}" for key, one in row.items()
            )  # fmt: skip
            click.echo(f"  {click.style(name.replace('_', ' '), fg='cyan')}: {one_line(str(told))}")
    click.echo(f"the same command with --approved {seen.stage} goes on")


def _show(done: Assessed, *, as_json: bool) -> None:
    result = done.result
    if as_json:
        click.echo(json.dumps(result))
        return
    from workbench.notebook.progress import show_table

    rows = [
        [row["level"], row["score"], row["subject"], row["asset"], row["component"][:40],
         row["due"] or "next upgrade", row["decision"], row["owner"]]
        for row in result["top"][:_SHOWN]
    ]  # fmt: skip
    heads = ["level", "score", "risk", "asset", "component", "due", "decision", "owner"]
    if rows:
        shown = [[one_line(str(cell)) for cell in row] for row in rows]
        show_table(heads, shown, spare=("owner", "decision", "component"))
    counts = result["counts"]
    levels = ", ".join(f"{count} {level}" for level, count in reversed(counts["by_level"].items()))
    click.echo(
        f"assessment {done.assessment.id[:12]}: {counts['open']:,} open risks ({levels}),"
        f" {counts['closed']:,} closed; {counts['overdue']:,} overdue; snapshot"
        f" {result['snapshot'][:12]} is {result['snapshot_age_days']} days old;"
        f" {show_usd(result['cost']['usd'])}"
    )
    for line in result["problems"][:_SHOWN]:
        click.echo(f"  left out: {one_line(line)}", err=True)


def _show_forecast(store: Store, options: AssessOptions, *, as_json: bool) -> None:
    from workbench.risk.forecast import forecast

    found = asyncio.run(forecast(store, options))
    if as_json:
        click.echo(json.dumps(found.figures()))
        return
    click.echo(
        f"{found.vulnerabilities:,} vulnerabilities and {found.model_risks:,} model risks on"
        f" {found.assets:,} assets; snapshot {found.snapshot[:12]}, {found.age_days} days old"
    )
    for line in found.problems:
        click.echo(f"  left out: {one_line(line)}")
    if found.estimate:
        click.echo(f"  explanations: {in_words(found.estimate)}")


class _Sentences:
    """Shows a text that comes in pieces, whole sentences at a time."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._held = ""

    def __call__(self, piece: str) -> None:
        *whole, self._held = _SENTENCE_END.split(self._held + piece)
        for sentence in filter(str.strip, whole):
            self._show(sentence)


def _tell(line: str) -> None:
    click.echo(one_line(line), err=True)
