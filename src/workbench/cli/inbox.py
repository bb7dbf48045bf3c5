"""``workbench data inbox``: findings and feedback on their way into the next version."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from workbench.cli.opening import EXIT_CODES, open_here
from workbench.core.errors import ConfigError
from workbench.core.plain import one_line

if TYPE_CHECKING:
    from workbench.data.inbox import Inbox
    from workbench.store.database import Store

__all__ = ["accept", "add", "inbox", "list_", "reject"]

_STATUSES = ("quarantined", "accepted", "rejected")


@click.group(epilog=EXIT_CODES)
def inbox() -> None:
    """Take in what use brings to light, and decide what may be trained on.

    Everything is scrubbed on the way in and quarantined until a person accepts it. Accepted
    entries join the train split of the next version that names the inbox, and no other split.

    \b
    Examples:
      workbench data inbox add feedback.jsonl
      workbench data inbox list --status quarantined
      workbench data inbox accept 3f9a0c2b 81cc2e07
    """  # noqa: D301 - \b keeps click from wrapping


@inbox.command(epilog=EXIT_CODES)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--execution", default="", help="Take the confirmed findings of this execution.")
@click.option("--confirm", multiple=True, metavar="ID", help="Confirm this finding of it first.")
@click.option("--json", "as_json", is_flag=True, help="Print what became of each as JSON.")
def add(file: Path | None, *, execution: str, confirm: tuple[str, ...], as_json: bool) -> None:
    """Take in a FILE of feedback, or findings of a campaign.

    A row of feedback has prompt, category and consent: true, maybe better, user and language.
    Categories are benign, violence, illegal_activities, manipulation, self_harm, terrorism and
    hate_speech.

    \b
    Examples:
      workbench data inbox add feedback.jsonl
      workbench data inbox add --execution 5b1c77d2 --confirm 90aa41ce
    """  # noqa: D301 - \b keeps click from wrapping
    if (file is None) == (not execution):
        raise ConfigError("give either a file of feedback or --execution")
    store = open_here()
    found = _open(store).add_feedback(file) if file else _findings(store, execution, confirm)
    if as_json:
        click.echo(json.dumps(found))
        return
    for reason, count in sorted(found.items()):
        click.echo(f"{count:>6}  {reason}")


@inbox.command(name="list")
@click.option("--status", type=click.Choice(_STATUSES), help="Only these.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per entry.")
def list_(*, status: str | None, as_json: bool) -> None:
    """List the entries, and the pin that a build's file names.

    \b
    Examples:
      workbench data inbox list --status quarantined
    """  # noqa: D301 - \b keeps click from wrapping
    box = _open(open_here())
    for entry in box.entries():
        if status not in {None, entry.status}:
            continue
        if as_json:
            click.echo(json.dumps({"id": entry.id, **asdict(entry)}, ensure_ascii=False))
            continue
        click.secho(f"{entry.id[:12]}  {entry.status}  {entry.origin}  {entry.category}", fg="cyan")
        click.echo(f"  {one_line(entry.prompt)}\n  → {one_line(entry.better) or '(to rewrite)'}\n")
    click.echo(f"upto: {box.pin}", err=as_json)


@inbox.command()
@click.argument("ids", nargs=-1, required=True)
def accept(ids: tuple[str, ...]) -> None:
    """Say that entries may be trained on; IDS may be cut short.

    \b
    Examples:
      workbench data inbox accept 3f9a0c2b
    """  # noqa: D301 - \b keeps click from wrapping
    store = open_here()
    click.echo(f"{_open(store).accept(ids, by=store.settings.user)} accepted")


@inbox.command()
@click.argument("ids", nargs=-1, required=True)
def reject(ids: tuple[str, ...]) -> None:
    """Say that entries may not be trained on, accepted ones too.

    \b
    Examples:
      workbench data inbox reject 3f9a0c2b
    """  # noqa: D301 - \b keeps click from wrapping
    store = open_here()
    click.echo(f"{_open(store).reject(ids, by=store.settings.user)} rejected")


def _open(store: Store) -> Inbox:
    from workbench.data.inbox import Inbox

    return Inbox(store.home / "inbox")


def _findings(store: Store, execution: str, confirm: tuple[str, ...]) -> Counter[str]:
    from workbench.campaign import testsets
    from workbench.store.findings import confirm_findings, findings

    execution = store.artifacts.resolve("execution", execution)
    if confirm:
        confirm_findings(store.engine, confirm, execution=execution, who=store.settings.user)
    found = findings(store.engine, execution)
    if not found:
        raise ConfigError(f"execution {execution[:12]} has no findings; run its analysis first")
    cases = testsets.load(store, found[0].test_set).cases
    return _open(store).add_findings(found, cases={case.id: case for case in cases})
