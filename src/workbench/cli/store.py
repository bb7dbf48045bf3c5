"""``workbench store``: whether it is whole, and all of it in one file."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import click

from workbench.cli.opening import EXIT_CODES, open_here

__all__ = ["backup", "restore", "store", "verify"]

_RETENTION = "workbench.cli.store_retention"


class _Commands(click.Group):
    """Also offers the commands of retention, loaded when one is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_later()])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or _later().get(cmd_name)


def _later() -> dict[str, click.Command]:
    if find_spec(_RETENTION) is None:
        return {}
    from importlib import import_module

    module = import_module(_RETENTION)
    return {name: getattr(module, name) for name in module.__all__}


@click.group(cls=_Commands)
def store() -> None:
    """See whether the store is whole; back it up and restore it.

    \b
    Examples:
      workbench store verify
      workbench store backup store.tar.zst
      WORKBENCH_HOME=/data/new workbench store restore store.tar.zst
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
