"""``workbench campaign sets`` and ``profile``: what campaigns start from."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from workbench.cli.campaign_generate import json_option
from workbench.cli.opening import EXIT_CODES, open_here
from workbench.core.errors import ConfigError
from workbench.core.plain import one_line

if TYPE_CHECKING:
    from workbench.store.records import TestCase

__all__ = [
    "delete", "diff", "list_", "profile", "sets", "share", "show", "subset", "tag",
]  # fmt: skip


@click.group(epilog=EXIT_CODES)
def sets() -> None:
    """List, compare, tag, cut, share, delete test sets.

    A test set is known by the beginning of its id, or by a tag that only one has.

    \b
    Examples:
      workbench campaign sets list
      workbench campaign sets show 3f9a --limit 5
      workbench campaign sets subset 3f9a --plugin pii --plugin secret-leak
    """  # noqa: D301 - \b keeps click from wrapping


@sets.command(name="list", epilog=EXIT_CODES)
@click.option("--tag", default="", help="Only those with this tag.")
@json_option
def list_(*, tag: str, as_json: bool) -> None:
    """List your test sets, the newest last.

    promptfoo's id stands beside ours.

    \b
    Examples:
      workbench campaign sets list --tag nightly
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.campaign.testsets import list_test_sets

    found = list_test_sets(open_here(), tag=tag)
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found]))
        return
    for one in found:
        part = f"  part of {one.parent[:12]}" if one.parent else ""
        told = f"{one.id[:12]}  {one.created_at[:19]}  {one.tests:>7,} cases"
        shown = f"  promptfoo {one.promptfoo_id[:12]}  {one.cost_usd} USD{part}"
        click.echo(one_line(f"{told}{shown}  {' '.join(one.tags)}"))


@sets.command(epilog=EXIT_CODES)
@click.argument("test_set", default="")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1), help="Most cases.")
@json_option
def show(test_set: str, *, limit: int, as_json: bool) -> None:
    """Show the cases of TEST_SET, all of them as JSON Lines with --json.

    \b
    Examples:
      workbench campaign sets show 3f9a --limit 5
      workbench campaign sets show 3f9a --json > cases.jsonl
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.campaign.testsets import stored

    found = stored(open_here(), test_set)
    for at, case in enumerate(found):
        if as_json:
            click.echo(json.dumps({"id": case.id, **case.to_json()}, ensure_ascii=True))
        elif at < limit:
            chain = "+".join(case.strategies) or "plain"
            told = one_line(f"{case.id[:12]}  {case.plugin} · {chain} · {case.severity}")
            click.secho(told, fg="cyan")
            for turn in (*case.turns, case.prompt):
                click.echo(f"  {one_line(turn)[:400]}")
    if not as_json:
        click.echo(f"{len(found)} cases in test set {found.id[:12]}")


@sets.command(epilog=EXIT_CODES)
@click.argument("first")
@click.argument("second")
@json_option
def diff(first: str, second: str, *, as_json: bool) -> None:
    """Show what SECOND has and lacks beside FIRST.

    \b
    Examples:
      workbench campaign sets diff 3f9a 77ab
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.campaign.testsets import compare

    found = compare(open_here(), first, second)
    if as_json:
        told = {"added": found.added, "removed": found.removed}
        cases = {name: [case.to_json() for case in some] for name, some in told.items()}
        click.echo(json.dumps({**cases, "common": found.common}))
        return
    for mark, some in (("-", found.removed), ("+", found.added)):
        for case in some:
            chain = "+".join(case.strategies) or "plain"
            click.echo(one_line(f"{mark} {case.plugin} · {chain}: {case.prompt[:100]}"))
    click.echo(f"{found.common} in both, {len(found.removed)} removed, {len(found.added)} added")


@sets.command(epilog=EXIT_CODES)
@click.argument("test_set")
@click.argument("name")
@click.option("--remove", is_flag=True, help="Take the tag off.")
def tag(test_set: str, name: str, *, remove: bool) -> None:
    """Tag TEST_SET with NAME.

    \b
    Examples:
      workbench campaign sets tag 3f9a nightly
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.campaign.testsets import stored
    from workbench.store.test_sets import add_tag, remove_tag

    if not name.isprintable() or not name.strip() or len(name) > 64:  # noqa: PLR2004 - of the store
        raise ConfigError(f"tag {name[:80]!r}: write 1 to 64 printable characters")
    store = open_here()
    change = remove_tag if remove else add_tag
    change(store.engine, stored(store, test_set).id, name, owner=store.settings.user)


@sets.command(epilog=EXIT_CODES)
@click.argument("test_set")
@click.option("--plugin", multiple=True, help="Keep cases of this plugin; may be repeated.")
@click.option("--category", multiple=True, help="Of this category.")
@click.option("--severity", multiple=True, help="Of this severity.")
@click.option("--strategy", multiple=True, help="Disguised so, as `analyze` names it.")
@click.option("--case", multiple=True, metavar="ID", help="This case; the id may be cut short.")
def subset(test_set: str, **wanted: tuple[str, ...]) -> None:
    """Make a linked test set of some cases of TEST_SET.

    Prints its id.

    \b
    Examples:
      workbench campaign sets subset 3f9a --severity critical
      workbench campaign sets subset 3f9a --plugin pii --strategy base64
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.campaign import testsets

    why = {name: list(values) for name, values in wanted.items() if values}
    if not why:
        raise ConfigError("nothing says which cases to keep; give e.g. --plugin pii")
    store = open_here()
    whole = testsets.stored(store, test_set).id
    click.echo(testsets.subset(store, whole, _keeps(wanted), why=why))


@sets.command(epilog=EXIT_CODES)
@click.argument("test_set")
@click.argument("user")
def share(test_set: str, user: str) -> None:
    """Put TEST_SET on the list of USER too.

    \b
    Examples:
      workbench campaign sets share 3f9a ana
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.campaign import testsets

    click.echo(f"{testsets.share(open_here(), test_set, user=user)[:12]} is shared with {user}")


@sets.command(epilog=EXIT_CODES)
@click.argument("test_set")
def delete(test_set: str) -> None:
    """Take TEST_SET off your list; its content goes with the last owner.

    What an execution was measured with, or a part was cut from, stays.

    \b
    Examples:
      workbench campaign sets delete 3f9a
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.campaign import testsets

    gone, is_removed = testsets.delete(open_here(), test_set)
    rest = "removed" if is_removed else "off your list; others still have it"
    click.echo(f"{gone[:12]} is {rest}")


@click.command(epilog=EXIT_CODES)
@click.argument("file", required=False, type=click.Path(path_type=Path))
def profile(file: Path | None) -> None:
    """Store a target profile, or print one to fill in.

    Prints the id of the profile in FILE; without FILE, a template.

    \b
    Examples:
      workbench campaign profile > shop.md
      workbench campaign profile shop.md
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.campaign import profile as profiles

    if file is None:
        click.echo(profiles.profile_template())
        return
    known = profiles.read_profile(file)
    click.echo(profiles.save(open_here(), known))


def _keeps(wanted: dict[str, tuple[str, ...]]) -> Callable[[TestCase], bool]:
    from workbench.campaign.strategies.base import chain_name

    def keep(case: TestCase) -> bool:
        told = {
            "plugin": case.plugin,
            "category": case.category,
            "severity": case.severity,
            "strategy": chain_name(case.strategies),
        }
        is_named = not wanted["case"] or any(case.id.startswith(one) for one in wanted["case"])
        return is_named and all(not wanted[name] or told[name] in wanted[name] for name in told)

    return keep
