"""``workbench campaign findings``: what got through, looked at by people, and where it goes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from workbench.cli.campaign_generate import json_option
from workbench.cli.opening import EXIT_CODES, open_here
from workbench.core.errors import ConfigError, DataError
from workbench.core.plain import one_line

if TYPE_CHECKING:
    from workbench.campaign.summarize import Evidence
    from workbench.llm.config import GatewayConfig
    from workbench.store.database import Store
    from workbench.store.records import Finding

__all__ = ["export", "feed_back", "findings", "list_", "set_", "show", "stats", "summarize"]

_STATES = ("needs_review", "confirmed", "false_positive", "fixed")
_SPARE = ("owner", "alike", "target", "strategy")
_ID_CHARS = 12

_execution = click.option("--execution", default="", metavar="ID", help="Only of this execution.")
_status = click.option(
    "--status", default="", type=click.Choice(["", *_STATES]), help="Only these."
)
_owner = click.option("--owner", default="", metavar="NAME", help="Only those of this person.")
_all = click.option("--all", "all_", is_flag=True, help="All of each cluster, not only the worst.")


@click.group(epilog=EXIT_CODES)
def findings() -> None:
    """Triage what got through, and have it learned from.

    The riskiest stand first. Findings that are one problem are a cluster, of which the riskiest
    stands for all; each comes with a guess of what you will say, and how sure that is.

    \b
    Examples:
      workbench campaign findings list --status needs_review
      workbench campaign findings show 90aa41ce
      workbench campaign findings set 90aa41ce --status confirmed --cluster --minutes 3
      workbench campaign findings feed-back
    """  # noqa: D301 - \b keeps click from wrapping


@findings.command(name="list", epilog=EXIT_CODES)
@_execution
@_status
@_owner
@click.option("--cluster", default="", metavar="ID", help="All like this finding.")
@_all
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1), help="Most rows.")
@json_option
def list_(
    *, execution: str, status: str, owner: str, cluster: str, all_: bool, limit: int, as_json: bool
) -> None:
    """List findings, the riskiest first, one of each cluster.

    \b
    Examples:
      workbench campaign findings list --execution 5b1c77d2 --status needs_review
      workbench campaign findings list --cluster 90aa41ce
      workbench campaign findings list --all --json > findings.jsonl
    """  # noqa: D301 - \b keeps click from wrapping
    store = open_here()
    found = _find(store, execution, status=status, owner=owner)
    if cluster:
        wanted = _cluster(_one(store, cluster))
        found, all_ = [one for one in found if _cluster(one) == wanted], True
    alike = Counter(map(_cluster, found))
    shown = found if all_ else _one_each(found)
    if as_json:
        for one in shown[:limit]:
            click.echo(json.dumps({**asdict(one), "alike": alike[_cluster(one)]}))
        return
    from workbench.notebook.progress import show_table

    rows = [_row(one, alike=alike[_cluster(one)]) for one in shown[:limit]]
    if rows:
        show_table(list(rows[0]), [list(row.values()) for row in rows], spare=_SPARE)
    left = len(shown) - len(rows)
    click.echo(f"{len(found)} findings, {len(alike)} clusters" + (f"; {left} more" * bool(left)))


@findings.command(epilog=EXIT_CODES)
@click.argument("finding")
@json_option
def show(finding: str, *, as_json: bool) -> None:
    """Show all of a FINDING, and what people said of it.

    The id may be cut short.

    \b
    Examples:
      workbench campaign findings show 90aa41ce
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.campaign.triage import history

    store = open_here()
    one = _one(store, finding)
    log = history(store, one.id)
    if as_json:
        click.echo(json.dumps({**asdict(one), "history": log}))
        return
    for name, value in asdict(one).items():
        click.echo(f"{click.style(name, fg='cyan')}: {one_line(str(value))}")
    for row in log:
        changed = ", ".join(f"{name} {a} → {b}" for name, (a, b) in row["changed"].items())
        told = f"{row['at']}  {row['who']}  {changed}  {row['note']}  {row['minutes']:g} min"
        click.echo(one_line(told))


@findings.command(name="set", epilog=EXIT_CODES)
@click.argument("ids", nargs=-1, required=True)
@click.option("--status", default="", type=click.Choice(["", *_STATES]), help="What it is.")
@click.option("--note", default="", help="Why; personal data and secrets are taken out.")
@click.option("--owner", metavar="NAME", help="Who looks after it; '' for nobody.")
@click.option("--minutes", default=0.0, help="What it took, all of these together.")
@click.option("--cluster", is_flag=True, help="And all findings like these.")
@json_option
def set_(
    ids: tuple[str, ...], *, status: str, note: str, owner: str | None, minutes: float,
    cluster: bool, as_json: bool,
) -> None:  # fmt: skip
    """Say what findings are; IDS may be cut short. Who said it and when is kept.

    \b
    Examples:
      workbench campaign findings set 90aa41ce --status confirmed --minutes 4
      workbench campaign findings set 90aa41ce --cluster --status false_positive --note "quotes it"
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.campaign.triage import decide

    done = decide(
        open_here(), ids, status=status, note=note, owner=owner, minutes=minutes,
        whole_cluster=cluster,
    )  # fmt: skip
    if as_json:
        click.echo(json.dumps([asdict(one) for one in done]))
        return
    click.echo(f"{len(done)} changed")


@findings.command(epilog=EXIT_CODES)
@click.argument("ids", nargs=-1)
@_execution
@_status
@_all
@click.option("--model", is_flag=True, help="Have a model write them; spends money.")
@click.option("--budget", metavar="USD", help="Most that it may cost.")
@click.option("--base-url", metavar="URL", help="Another address, e.g. of a local server.")
@click.option("--dry-run", is_flag=True, help="Show what a model would take; spend nothing.")
def summarize(
    ids: tuple[str, ...], *, execution: str, status: str, all_: bool, model: bool,
    budget: str | None, base_url: str | None, dry_run: bool,
) -> None:  # fmt: skip
    """Tell anew what happened: technique, and why it worked. IDS may be cut short.

    The sentence that is quoted is chosen by the shipped encoder; nothing is made up. With --model
    a model writes one or two sentences of its own.

    \b
    Examples:
      workbench campaign findings summarize --execution 5b1c77d2
      workbench campaign findings summarize 90aa41ce --model --budget 0.10
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.campaign import triage
    from workbench.campaign.summarize import summarize as retell

    store = open_here()
    found = [_one(store, one) for one in ids] or _find(store, execution, status=status)
    found = found if ids or all_ else _one_each(found)
    if not found:
        raise DataError("no such findings; see workbench campaign findings list")
    known = triage.evidence_of(store, found)
    if model or dry_run:
        told = _ask(store, found, known, budget=budget, base_url=base_url, dry_run=dry_run)
        if told is None:
            return
    else:
        from workbench.embedding.vectors import open_encoder

        encoder = open_encoder(store)
        told = dict(
            zip((one.id for one in found), retell(found, known=known, encoder=encoder), strict=True)
        )
    click.echo(f"{triage.retell(store, told)} of {len(found)} told anew")


@findings.command(epilog=EXIT_CODES)
@click.option(
    "--format", "form", required=True, type=click.Choice(["csv", "json", "github", "jira", "sarif"])
)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="[default: print it]")
@click.option("--project", default="", metavar="KEY", help="Of Jira.")
@_execution
@_status
@_owner
@_all
def export(
    *, form: str, out: Path | None, project: str, execution: str, status: str, owner: str,
    all_: bool,
) -> None:  # fmt: skip
    """Write findings for other programs, one of each cluster.

    github and jira are lists of what their services take to create an issue.

    \b
    Examples:
      workbench campaign findings export --format csv --all --out findings.csv
      workbench campaign findings export --format jira --project SEC --status confirmed
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.campaign.export import export as write

    found = _find(open_here(), execution, status=status, owner=owner)
    alike = Counter(map(_cluster, found))
    text = write(found if all_ else _one_each(found), form, alike=alike, project=project)
    if out is None:
        click.echo(text, nl=False)
        return
    from workbench.store.artifacts import write_atomic

    try:
        write_atomic(out, text.encode("utf-8", "replace"))
    except OSError as error:
        raise ConfigError(f"{out}: {error.strerror}; name a file that can be written") from None


@findings.command(name="feed-back", epilog=EXIT_CODES)
@_execution
@json_option
def feed_back(*, execution: str, as_json: bool) -> None:
    """Give the confirmed findings back to data and tests.

    They go to the data inbox, and into the test set `regression`.

    In the inbox they wait until somebody accepts them. The test set holds the cases of all findings
    that were ever confirmed, fixed ones too.

    \b
    Examples:
      workbench campaign findings feed-back
      workbench campaign execute regression --target ...
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.campaign import learning, testsets

    store = open_here()
    told = learning.feed_back(store, _resolve(store, execution))
    found = learning.regression_set(store)
    told["regression_set"] = testsets.save(store, found)
    learning.tag_regression(store, told["regression_set"])
    if as_json:
        click.echo(json.dumps({**told, "regression_cases": len(found)}))
        return
    for reason, count in told["inbox"].items():
        click.echo(f"{count:>6}  {reason}")
    click.echo(f"{told['requests']:>6}  distinct requests")
    click.echo(f"{len(found):>6}  cases in test set {told['regression_set'][:_ID_CHARS]}")


@findings.command(epilog=EXIT_CODES)
@_execution
@json_option
def stats(*, execution: str, as_json: bool) -> None:
    """Show states, time spent, and how good guesses were.

    \b
    Examples:
      workbench campaign findings stats --execution 5b1c77d2
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.campaign.prefill import prefill_quality

    found = _find(open_here(), execution)
    states = Counter(one.status for one in found)
    minutes, clusters = sum(one.minutes for one in found), len({_cluster(one) for one in found})
    quality = prefill_quality(found)
    if as_json:
        facts = {"states": states, "clusters": clusters, "minutes": minutes, "prefill": quality}
        click.echo(json.dumps(facts))
        return
    for state in _STATES:
        click.echo(f"{states[state]:>6}  {state}")
    click.echo(f"{clusters:>6}  clusters\n{minutes:>6.0f}  minutes spent")
    for name, one in quality["intervals"].items():
        figure = f"{one['value']:.2f} ({one['low']:.2f} to {one['high']:.2f})" if one else "–"
        click.echo(f"guesses: {name} {figure}, of {quality['n']} decided")


def _find(store: Store, execution: str, *, status: str = "", owner: str = "") -> list[Finding]:
    from workbench.store.findings import findings as rows

    execution, user = _resolve(store, execution), store.settings.user
    return rows(store.engine, execution, status=status, owner=owner, user=user)


def _resolve(store: Store, execution: str) -> str:
    return store.artifacts.resolve("execution", execution) if execution else ""


def _one(store: Store, beginning: str) -> Finding:
    from workbench.store.findings import findings as rows
    from workbench.store.findings import resolve_finding

    found = resolve_finding(store.engine, beginning, user=store.settings.user)
    return rows(store.engine, ids=[found])[0]


def _cluster(finding: Finding) -> str:
    return finding.cluster or finding.id


def _one_each(found: Sequence[Finding]) -> list[Finding]:
    """Return the first, which is the riskiest, of each cluster."""
    first: dict[str, Finding] = {}
    for one in found:
        first.setdefault(_cluster(one), one)
    return list(first.values())


def _row(one: Finding, *, alike: int) -> dict[str, str]:
    row = {
        "id": one.id[:_ID_CHARS], "risk": f"{one.risk:.2f}", "severity": one.severity,
        "plugin": one.plugin, "strategy": one.strategy, "target": one.target, "state": one.status,
        "guess": f"{one.suggested_status} {one.confidence:.0%}", "alike": str(alike),
        "owner": one.owner, "summary": one.summary,
    }  # fmt: skip
    return {name: one_line(cell) for name, cell in row.items()}


def _ask(
    store: Store, found: Sequence[Finding], known: Mapping[str, Evidence], *, budget: str | None,
    base_url: str | None, dry_run: bool,
) -> dict[str, str] | None:  # fmt: skip
    """Return what a model writes; nothing, but the estimate printed, where that was asked for."""
    from workbench.cli.spending import refuse_if_exceeded, run_spending, spending_config
    from workbench.core.identity import content_id

    config = spending_config(store, budget=budget, base_url=base_url)
    work = f"summarize-{content_id(sorted(one.id for one in found))[:12]}"
    job = store.settings.run_id or work
    store = replace(store, settings=replace(store.settings, run_id=job))
    if not dry_run:
        refuse_if_exceeded(store)
    writing = _write(store, config, found, known, work=work, dry_run=dry_run)
    return run_spending(writing, job=job)


async def _write(
    store: Store, config: GatewayConfig, found: Sequence[Finding], known: Mapping[str, Evidence],
    *, work: str, dry_run: bool,
) -> dict[str, str] | None:  # fmt: skip
    from workbench.campaign.summarize import requests_for, summarize_with_model
    from workbench.cli.spending import in_words
    from workbench.llm.gateway import open_gateway
    from workbench.llm.transport import open_transport

    def tell(line: str) -> None:
        click.echo(line, err=True)

    online = replace(store.settings, offline=False)  # an estimate needs neither key nor network
    transport = open_transport(config, settings=online) if dry_run else None
    async with open_gateway(
        store, phase="triage", work=work, config=config, transport=transport, tell=tell
    ) as gateway:
        asked = requests_for(found, known=known)
        estimate = in_words(await gateway.estimate(asked, is_kept=not dry_run))
        if dry_run:
            click.echo(estimate)
            return None
        tell(f"estimated: {estimate}")
        return await summarize_with_model(found, gateway.map, known=known)
