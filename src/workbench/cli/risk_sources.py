"""``workbench risk sync`` and ``snapshots``: what sources say, frozen for assessments."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from workbench.cli.bar import progress_bar
from workbench.cli.campaign_generate import dry_run_option, json_option
from workbench.cli.opening import EXIT_CODES, open_here
from workbench.cli.spending import run_spending
from workbench.core.errors import ConfigError
from workbench.core.plain import one_line

if TYPE_CHECKING:
    from workbench.store.database import Store

__all__ = ["snapshots", "sync"]


@click.command(epilog=EXIT_CODES)
@click.argument("things", nargs=-1, metavar="[CVE|FILE]...")
@click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="NAME",
    help="Ask only these; may be repeated.  [all that need no account]",
)
@click.option(
    "--base-url",
    "base_urls",
    multiple=True,
    metavar="SOURCE=URL",
    help="Ask a mirror, or your ServiceNow instance; may be repeated.",
)
@click.option(
    "--file",
    "files",
    multiple=True,
    metavar="TABLE=FILE",
    help="Take a table from a file instead: kev, epss, cve, osv, techniques.",
)
@click.option(
    "--as-of",
    "dates",
    multiple=True,
    metavar="TABLE=DATE",
    help="Of what day a file is that does not say so.",
)
@dry_run_option
@json_option
def sync(
    things: tuple[str, ...], *, sources: tuple[str, ...], base_urls: tuple[str, ...],
    files: tuple[str, ...], dates: tuple[str, ...], dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Ask the publishers about CVE ids and the components of FILEs; freeze what they say.

    The only command of `risk` that opens connections, and only with WORKBENCH_OFFLINE=0. A source
    that fails keeps what it said last. With --file nothing is asked: a database that one can carry.

    \b
    Examples:
      WORKBENCH_OFFLINE=0 workbench risk sync sbom.json
      WORKBENCH_OFFLINE=0 workbench risk sync CVE-2021-44228 --source kev --source epss
      workbench risk sync --file kev=kev.csv --file epss=epss.csv.gz --as-of kev=2026-11-20
      workbench risk sync sbom.json --dry-run
    """  # noqa: D301 - \b keeps click from wrapping
    store = open_here()
    if files:
        if sources or things or base_urls or dry_run:
            raise ConfigError("--file takes tables from files and asks nobody; give nothing else")
        made = _of_files(store, files, dates)
    elif dates:
        raise ConfigError("--as-of is of files; give --file TABLE=FILE with it")
    else:
        cves, purls = _asked_about(things)
        if dry_run:
            _show_plan(sources, cves=len(cves), purls=len(purls), as_json=as_json)
            return
        made = _synced(store, sources, cves, purls, base_urls, as_json=as_json)
    _show(store, made, as_json=as_json)


@click.command(epilog=EXIT_CODES)
@click.argument("snapshot", default="")
@json_option
def snapshots(snapshot: str, *, as_json: bool) -> None:
    """List snapshots, newest first, or show what is in one; `sample` is shipped.

    \b
    Examples:
      workbench risk snapshots
      workbench risk snapshots sample
      workbench risk snapshots 3f9a --json
    """  # noqa: D301 - \b keeps click from wrapping
    store = open_here()
    if snapshot:
        _show(store, snapshot, as_json=as_json)
        return
    listed = list(store.artifacts.rows("snapshot"))
    if not listed and not as_json:
        click.echo("no snapshot yet; run `workbench risk sync`, or look at `sample`", err=True)
    for row in listed:
        if as_json:
            click.echo(json.dumps({"id": row["id"], **row["metadata"]}))
        else:
            rows = ", ".join(f"{name} {count:,}" for name, count in row["metadata"]["rows"].items())
            click.echo(f"{row['id'][:12]}  {row['metadata']['made_at'][:10]}  {rows}")


def _asked_about(things: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the CVE ids, and the package URLs, that arguments and files name."""
    from workbench.risk.intake.read import read_all
    from workbench.risk.intake.reading import cve_of

    files = [Path(one) for one in things if Path(one).exists()]
    named = {one: cve_of(one) for one in things if not Path(one).exists()}
    for one, cve in named.items():
        if not cve:
            raise ConfigError(f"{one_line(one)!r} is neither a file nor a CVE id; correct it")
    found = read_all(files)
    cves = [*named.values()]
    cves += [one.subject for one in found.occurrences if one.subject.startswith("CVE-")]
    purls = [] if found.components is None else found.components["purl"].unique().to_pylist()
    return list(dict.fromkeys(cves)), [one for one in purls if one]


def _synced(
    store: Store, sources: Sequence[str], cves: Sequence[str], purls: Sequence[str],
    base_urls: Sequence[str], *, as_json: bool,
) -> str:  # fmt: skip
    from workbench.risk.sync import sync as ask

    with progress_bar("requests", as_json=as_json) as tell:
        return run_spending(
            ask(store, sources=sources, cves=cves, purls=purls, progress=tell,
                base_urls=dict(_pair(one, "--base-url") for one in base_urls)),
            job="sync",
        )  # fmt: skip


def _of_files(store: Store, files: Sequence[str], dates: Sequence[str]) -> str:
    from workbench.core.fields import refuse_unknown
    from workbench.risk.snapshot_files import snapshot_of_files

    paths = {name: Path(path) for name, path in (_pair(one, "--file") for one in files)}
    as_of = dict(_pair(one, "--as-of") for one in dates)
    refuse_unknown(as_of, known=paths, where="--as-of")
    for name, day in as_of.items():
        if not _is_past(day):
            raise ConfigError(f"--as-of {name}={day}: is no day up to today, as 2026-11-20")
    return snapshot_of_files(store, paths, as_of=as_of)


def _is_past(text: str) -> bool:
    """Return whether a text is an ISO date, of today at the latest."""
    try:
        return date.fromisoformat(text) <= datetime.now(UTC).date()
    except ValueError:
        return False


def _pair(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (equals and name and value):
        raise ConfigError(f"{option} {text!r}: write NAME=VALUE")
    return name, value


def _show_plan(sources: Sequence[str], *, cves: int, purls: int, as_json: bool) -> None:
    from workbench.risk.sync import plan

    rows = plan(sources=sources, cves=cves, purls=purls)
    if as_json:
        click.echo(json.dumps([row._asdict() for row in rows]))
        return
    for row in rows:
        note = f"  ({row.note})" if row.note else ""
        click.echo(f"{row.source:<12} {row.requests:>6,} requests  {row.minutes:>6.1f} min{note}")


def _show(store: Store, snapshot: str, *, as_json: bool) -> None:
    from workbench.risk.snapshot import load_snapshot

    found = load_snapshot(store, snapshot)
    today = datetime.now(UTC).date()
    ages = found.ages(today)
    if as_json:
        click.echo(json.dumps({"id": found.id, "made_at": found.made_at, "sources": ages}))
        return
    click.echo(f"snapshot {found.id[:12]}, {found.age_days(today)} days old")
    for row in ages:
        error = f"  {one_line(row['error'])}" if row["error"] else ""
        age = f"{row['as_of'] or 'never':<10} {row['age_days']:>5} days"
        click.echo(f"  {row['name']:<10} {row['status']:<8} {row['rows']:>9,} rows  {age}{error}")
