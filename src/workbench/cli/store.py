"""``workbench store``: whether it is whole, all of it in one file, and where artifacts are."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from workbench.cli import store_retention
from workbench.cli.opening import EXIT_CODES, open_here
from workbench.core.errors import InputError

if TYPE_CHECKING:
    from workbench.store.artifacts import ArtifactKind

__all__ = ["backup", "push", "restore", "store", "verify"]


@click.group()
def store() -> None:
    """See whether the store is whole; back it up and restore it.

    \b
    Examples:
      workbench store verify
      workbench store backup store.tar.zst
      WORKBENCH_HOME=/data/new workbench store restore store.tar.zst
      workbench store retain --dry-run
    """  # noqa: D301 - \b keeps click from wrapping


@store.command(epilog=EXIT_CODES)
@click.option("--repair", is_flag=True, help="Remove what killed processes left; touch no damage.")
@click.option("--deep", is_flag=True, help="Read every byte at remote locations too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def verify(*, repair: bool, deep: bool, as_json: bool) -> None:
    """Check database, artifacts and what refers to what; exit 1 if something is damaged.

    \b
    Examples:
      workbench store verify --json
      workbench store verify --repair
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.core.plain import one_line
    from workbench.store.verify import verify as check

    report = check(open_here(), repair=repair, deep=deep)
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=1))
    else:
        for one in report.problems:
            state = "repaired" if one.is_repaired else "DAMAGED" if one.is_damage else "rest"
            click.echo(one_line(f"{state:<8}  {one.check}  {one.subject}  {one.detail}"))
        checked = ", ".join(f"{count:,} {name}" for name, count in report.checked.items())
        click.echo(f"{'whole' if report.is_whole else 'damaged'}: looked at {checked}")
    if not report.is_whole:
        sys.exit(1)


@store.command(epilog=EXIT_CODES)
@click.argument("file", type=click.Path(path_type=Path))
def backup(file: Path) -> None:
    """Write everything of all users to FILE, a new .tar.zst; others may work meanwhile.

    \b
    Example:
      workbench store backup /backups/store-2026-11-27.tar.zst
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.store.backup import backup as write

    done = write(open_here(), file)
    click.echo(
        f"{done.path}: {sum(done.rows.values()):,} rows, {done.files:,} files,"
        f" {done.bytes / 1e6:,.1f} MB in {done.path.stat().st_size / 1e6:,.1f} MB"
    )


@store.command(epilog=EXIT_CODES)
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def restore(file: Path) -> None:
    """Make the store that WORKBENCH_HOME names from FILE; its folder is empty or not there.

    Where WORKBENCH_DATABASE_URL names a server, its database must have no tables.

    \b
    Example:
      WORKBENCH_HOME=/data/new workbench store restore store.tar.zst
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.core.settings import read_settings
    from workbench.store.backup import restore as read

    settings = read_settings()
    done = read(file, settings)
    click.echo(f"{settings.home}: {sum(done.rows.values()):,} rows, {done.files:,} files")


@store.command(epilog=EXIT_CODES)
def push() -> None:
    """Take the artifacts on this machine to WORKBENCH_ARTIFACTS_URL; what is there already stays.

    Killed or without network, the next call does the rest. What is damaged stays here: exit 1.

    \b
    Example:
      WORKBENCH_ARTIFACTS_URL=s3://my-bucket/workbench workbench store push
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.store.isolation import everybody
    from workbench.store.marks import marked

    opened = open_here()
    if not opened.settings.artifacts_url:
        raise InputError(
            "WORKBENCH_ARTIFACTS_URL is not set; say where to, e.g. s3://bucket/prefix"
        )
    engine = everybody(opened.engine)
    artifacts = opened.artifacts.seeing(engine)
    here = [one for one in marked(engine) if one.mark.at in {"folder", "archive"}]
    damaged = [
        wrong for one in here for wrong in artifacts.push(cast("ArtifactKind", one.kind), one.id)
    ]
    for wrong in damaged:
        click.echo(f"DAMAGED  {wrong}", err=True)
    click.echo(f"pushed {len(here) - len(damaged):,} artifacts")
    if damaged:
        sys.exit(1)


for _name in store_retention.__all__:
    store.add_command(getattr(store_retention, _name))
