"""``workbench risk documents``: policies, notes and reports that give explanations context."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from workbench.cli.campaign_generate import json_option
from workbench.cli.opening import EXIT_CODES, open_here
from workbench.core.errors import ConfigError
from workbench.core.plain import one_line

__all__ = ["add", "documents", "list_", "remove", "search"]

_name = click.option("--name", default="default", show_default=True, help="Of the index.")
_SHOWN_CHARS = 300


@click.group(epilog=EXIT_CODES)
def documents() -> None:
    """Keep documents beside the register, and find passages in them.

    PDF, DOCX, XLSX, Markdown and text; unchanged files are not read again.

    \b
    Examples:
      workbench risk documents add policies/ --tag policy
      workbench risk documents search "who patches the payment service"
      workbench risk assess sbom.json --documents default --explain routed --budget 2
    """  # noqa: D301 - \b keeps click from wrapping


@documents.command(epilog=EXIT_CODES)
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@_name
@click.option("--asset", default="", help="What they are about.")
@click.option("--tag", "tags", multiple=True, help="May be repeated.")
@click.option("--date", default="", help="ISO date; else what each file says.")
@click.option("--prune", is_flag=True, help="Take out what is no longer in the folders.")
@json_option
def add(
    paths: tuple[Path, ...], *, name: str, asset: str, tags: tuple[str, ...], date: str,
    prune: bool, as_json: bool,
) -> None:  # fmt: skip
    """Read PATHS, files or folders; a bad file stops no other.

    \b
    Examples:
      workbench risk documents add policies/ runbook.pdf --tag policy
      workbench risk documents add policies/ --prune
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.embedding.vectors import open_encoder
    from workbench.risk.documents.index import open_index
    from workbench.risk.documents.ingest import ingest

    store = open_here()
    index = open_index(store, name)
    made = ingest(
        index, paths, encoder=open_encoder(store), asset=asset, tags=tags, date=date, prune=prune,
        progress=None if as_json else lambda file: click.echo(one_line(file), err=True),
    )  # fmt: skip
    if as_json:
        click.echo(json.dumps(asdict(made)))
        return
    for line in made.problems:
        click.echo(f"left out: {one_line(line)}", err=True)
    told = f"{len(made.added)} added, {len(made.replaced)} replaced, {len(made.removed)} removed"
    click.echo(f"{told}, {len(made.unchanged)} unchanged; {made.chunks} passages")
    if made.note:
        click.echo(one_line(made.note), err=True)
    if made.problems and not (made.added or made.replaced or made.unchanged):
        click.get_current_context().exit(1)


@documents.command(epilog=EXIT_CODES)
@click.argument("query")
@_name
@click.option("--top", default=8, show_default=True, type=click.IntRange(1), help="Most passages.")
@click.option(
    "--where",
    multiple=True,
    metavar="FIELD=VALUE",
    help="file, kind, asset, tags, date, since, until; may be repeated.",
)
@json_option
def search(query: str, *, name: str, top: int, where: tuple[str, ...], as_json: bool) -> None:
    """Show the passages that fit a QUERY best.

    \b
    Examples:
      workbench risk documents search "how long may a critical patch take"
      workbench risk documents search patching --where tags=policy --where since=2026-01-01
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.embedding.vectors import open_encoder
    from workbench.risk.documents.index import open_index
    from workbench.risk.documents.retrieve import retrieve

    store = open_here()
    conditions: dict[str, list[str]] = {}
    for one in where:
        field, equals, value = one.partition("=")
        if not equals:
            raise ConfigError(f"--where {one!r}: write FIELD=VALUE, e.g. asset=shop")
        conditions.setdefault(field, []).append(value)
    index = open_index(store, name, must_exist=True)
    for hit in retrieve(index, query, top=top, where=conditions, encoder=open_encoder(store)):
        if as_json:
            click.echo(json.dumps(asdict(hit)))
            continue
        place = f"{hit.file}, {hit.section}" + (f", page {hit.page}" if hit.page else "")
        click.echo(click.style(one_line(place), fg="cyan"))
        click.echo(f"  {one_line(hit.text)[:_SHOWN_CHARS]}")


@documents.command(name="list", epilog=EXIT_CODES)
@_name
@json_option
def list_(*, name: str, as_json: bool) -> None:
    """List the files of an index.

    \b
    Examples:
      workbench risk documents list
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.risk.documents.index import open_index

    index = open_index(open_here(), name, must_exist=True)
    files = sorted(index.known())
    if as_json:
        click.echo(json.dumps({"files": files, "passages": index.count()}))
        return
    for file in files:
        click.echo(one_line(file))
    click.echo(f"{len(files)} files, {index.count()} passages")


@documents.command(epilog=EXIT_CODES)
@click.argument("files", nargs=-1, required=True)
@_name
def remove(files: tuple[str, ...], *, name: str) -> None:
    """Take FILES out of an index, by the names that `list` shows.

    \b
    Examples:
      workbench risk documents remove policies/old.md
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.risk.documents.index import open_index

    index = open_index(open_here(), name, must_exist=True)
    gone = [one for one in files if index.remove(one)]
    if missing := [one for one in files if one not in gone]:
        raise ConfigError(f"no file {missing[0]!r} in index {name!r}; see `documents list`")
    click.echo(f"{len(gone)} removed")
