"""``workbench data``: pair sets built, looked at, compared and exported."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from workbench.cli.inbox import inbox
from workbench.cli.opening import EXIT_CODES, open_here
from workbench.cli.synthesize import synthesize
from workbench.core.errors import WorkbenchError
from workbench.core.plain import one_line

if TYPE_CHECKING:
    from workbench.data.pairs import PairSet
    from workbench.store.database import Store

__all__ = ["build", "data", "diff", "export", "info", "sample", "sources", "weights"]

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_UNIQUE = {
    "pairs": "pairs", "unique requests": "unique_requests", "leak groups": "unique_groups",
    "wrapper families": "wrapper_families", "near-duplicates": "near_duplicates",
    "quarantined": "quarantined",
}  # fmt: skip
_COUNTED = ("splits", "by_relation", "by_category", "by_language", "by_domain", "dropped", "leaks")
_SHOWN = ("split", "category", "language", "relation", "wrapper_family", "adversarial", "clean")


@click.group(epilog=EXIT_CODES)
def data() -> None:
    """Grow pair sets, look at them, compare and export them.

    \b
    Examples:
      workbench data build experiments/data/phase1.yaml
      workbench data info
      workbench data sample --split train --count 5
    """  # noqa: D301 - \b keeps click from wrapping


data.add_command(inbox)
data.add_command(synthesize)


@data.command(epilog=EXIT_CODES)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--pairs", type=click.IntRange(1), help="Other number of pairs than the file's.")
@click.option("--seed", type=int, help="Other seed than the file's.")
@click.option(
    "--licence-allow", "--license-allow", "licenses", multiple=True, metavar="LICENSE",
    help="Take only sources under this license; may be repeated.",
)  # fmt: skip
@click.option("--workers", type=click.IntRange(1), help="Processes.  [default: one per core]")
@click.option(
    "--executor", default="processes", show_default=True, metavar="WHERE",
    help="Who grows shards: processes, dask (workers of this machine), or dask://HOST:PORT.",
)  # fmt: skip
@click.option("--embed", is_flag=True, help="Embed its texts too, on Dask's workers if it has any.")
@click.option("--dry-run", is_flag=True, help="Show what would be drawn from where; build nothing.")
@_json
def build(
    file: Path, *, pairs: int | None, seed: int | None, licenses: tuple[str, ...],
    workers: int | None, executor: str, embed: bool, dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Build the pair set that FILE describes, or go on with it after a kill.

    Sources that cannot be loaded are named and left out; the card says so. The same file on the
    same data gives the same version.

    \b
    Examples:
      workbench data build experiments/data/phase1.yaml
      workbench data build experiments/data/phase3.yaml --pairs 50000 --workers 1
      workbench data build experiments/data/phase3.yaml --executor dask://host:8786 --embed
      workbench data build experiments/data/phase1.yaml --licence-allow MIT --dry-run
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.core.settings import cores, project_root
    from workbench.data.build import build_pairs, draft
    from workbench.data.card import card_markdown, make_card
    from workbench.data.config import read_config
    from workbench.notebook.result import begin
    from workbench.report.html import render

    changes = {"target_pairs": pairs, "seed": seed, "licenses": licenses or None}
    config = read_config(
        file, **{name: value for name, value in changes.items() if value is not None}
    )
    if dry_run:
        _show_draft(draft(config), as_json=as_json)
        return
    session = begin(experiment=f"data-{config.name}")
    is_new = False
    with _progress(as_json=as_json) as progress:

        def tell(done: int, total: int) -> None:
            nonlocal is_new
            is_new = True
            progress(done, total)

        try:
            wide = workers or cores()
            built = build_pairs(
                session.store, config, executor=executor, workers=wide, progress=tell
            )
            if embed:
                _embed(session.store, built, executor=executor, jobs=wide)
        except KeyboardInterrupt:
            raise WorkbenchError(
                "interrupted; finished shards are kept, run the same command to go on"
            ) from None
    card = make_card(built)
    if is_new or session.experiment not in session.store.runs.experiments():
        session.finish(card, seed=config.seed)  # else the run that grew it stands
    folder = project_root() / "reports" / session.experiment
    page = render(session.store, session.experiment, folder)
    (folder / "card.md").write_text(card_markdown(card), "utf-8")
    if as_json:
        click.echo(json.dumps({**card, "report": str(page)}, ensure_ascii=False))
        return
    _show_card(card)
    click.echo(f"card: {folder / 'card.md'}\nreport: {page}")


def _embed(store: Store, pair_set: PairSet, *, executor: str, jobs: int) -> None:
    """Have the vectors of both sides of all pairs computed, which a training would wait for."""
    from workbench.embedding.vectors import open_encoder

    # one process uses all cores of this machine by itself
    where = executor if executor.startswith("dask") else ""
    encoder = open_encoder(store, executor=where, jobs=jobs)
    for side in ("adversarial", "clean"):
        encoder.encode(pair_set.frame[side].unique().tolist())


@data.command()
@click.argument("version", default="")
@_json
def info(version: str, *, as_json: bool) -> None:
    """Show the card of the pair set VERSION, the newest if none is given.

    \b
    Examples:
      workbench data info
      workbench data info 87022c42 --json
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.data.card import make_card

    card = make_card(_load(version))
    click.echo(json.dumps(card, ensure_ascii=False)) if as_json else _show_card(card)


@data.command()
@click.argument("old")
@click.argument("new", default="")
@_json
def diff(old: str, new: str, *, as_json: bool) -> None:
    """Show what changed from the pair set OLD to NEW, the newest if none is given.

    \b
    Examples:
      workbench data diff 87022c42
      workbench data diff 87022c42 3b50c611 --json
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.data.compare import compare

    found = compare(_load(old), _load(new))
    click.echo(json.dumps(found, ensure_ascii=False)) if as_json else _show_diff(found)


@data.command()
@click.argument("version", default="")
@click.option("--count", default=10, show_default=True, type=click.IntRange(1), help="Pairs.")
@click.option("--seed", default=0, show_default=True, help="Decides which.")
@click.option("--split", default="", help="Of this split only.")
@click.option("--category", default="", help="Of this category only.")
@click.option("--language", default="", help="In this language only.")
@click.option("--relation", default="", help="Of this relation only.")
@click.option("--source", default="", help="Of this source only.")
@_json
def sample(version: str, *, count: int, seed: int, as_json: bool, **only: str) -> None:
    """Show some pairs of the pair set VERSION, the newest if none is given.

    \b
    Examples:
      workbench data sample --count 3
      workbench data sample --split test_both --language de --json
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.data.export import sample as draw

    wanted = {name: value for name, value in only.items() if value}
    for row in draw(_load(version), count=count, seed=seed, only=wanted):
        if as_json:
            click.echo(json.dumps(row, ensure_ascii=False))
            continue
        click.secho(" · ".join(filter(None, (row[name] for name in _SHOWN[:5]))), fg="cyan")
        click.echo(f"  {one_line(row['adversarial'])}\n  → {one_line(row['clean'])}\n")


@data.command(epilog=EXIT_CODES)
@click.argument("version", default="")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="New folder.")
@click.option(
    "--format", "form", type=click.Choice(["datasets", "jsonl", "parquet"]), default="parquet",
    show_default=True, help="datasets: for datasets.load_from_disk; else a file per split.",
)  # fmt: skip
def export(version: str, *, out: Path, form: Any) -> None:
    """Write the pair set VERSION, the newest if none is given, into a folder, with its card.

    \b
    Examples:
      workbench data export --out /tmp/pairs
      workbench data export 87022c42 --format datasets --out /tmp/pairs-hf
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.data.export import export as write

    write(_load(version), out, form=form)
    click.echo(out)


@data.command()
@_json
def sources(*, as_json: bool) -> None:
    """List the sources there are: what they hold, under which license, and whether they are here.

    \b
    Examples:
      workbench data sources
      workbench data sources --json
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.core.settings import project_root
    from workbench.data.public import describe
    from workbench.notebook.progress import show_table

    rows = describe(project_root())
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False))
        return
    columns = list(rows[0])
    show_table(columns, [[str(row[name]) for name in columns] for row in rows], spare=("columns",))


@data.command()
@click.argument("experiment")
@_json
def weights(experiment: str, *, as_json: bool) -> None:
    """Print weights towards what the sanitizers of EXPERIMENT failed on, for a build's file.

    A category that got through twice as often as the average weighs twice as much, between 0.5
    and 4.

    \b
    Examples:
      workbench data weights quickstart
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.data.weights import weights_of

    found = weights_of(open_here(), experiment)
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo("weights:")
    for name, by_value in found.items():
        listed = ", ".join(f"{value}: {weight}" for value, weight in by_value.items())
        click.echo(f"  {name}: {{{listed}}}")


def _load(version: str) -> PairSet:
    from workbench.data.build import load_pairs

    return load_pairs(open_here(), version)


def _progress(*, as_json: bool) -> Any:
    from workbench.cli.bar import progress_bar

    return progress_bar("pairs", as_json=as_json)


def _show_card(card: Mapping[str, Any]) -> None:
    from workbench.notebook.progress import show_table

    click.echo(f"pair set {card['version']}")
    rows = [[what, f"{card[field]:,}"] for what, field in _UNIQUE.items()]
    for field in _COUNTED:
        title = field.removeprefix("by_")
        rows += [[f"{title}: {name}", f"{count:,}"] for name, count in card[field].items()]
    show_table(["what", "count"], rows)
    absent = [row["name"] for row in (*card["sources"], *card["decontaminated"]) if row["error"]]
    if absent:
        click.secho(f"missing: {', '.join(absent)}; the card says why", fg="yellow", err=True)
    if card["shortfall"]:
        click.secho(f"short: {card['shortfall']}", fg="yellow", err=True)


def _show_diff(found: Mapping[str, Any]) -> None:
    from workbench.notebook.progress import show_table

    click.echo(f"{found['old'][:12]} → {found['new'][:12]}")
    rows = [[name, f"{found[name]:,}"] for name in ("kept", "added", "removed", "relabelled")]
    rows += [[f"moved: {way}", f"{count:,}"] for way, count in found["moved"].items()]
    for what in ("added_by", "removed_by"):
        for field, counts in found[what].items():
            heading = f"{what.removesuffix('_by')} {field}"
            rows += [[f"{heading}: {value}", f"{count:,}"] for value, count in counts.items()]
    show_table(["what", "pairs"], rows)
    for field, (before, after) in found["config"].items():
        click.echo(f"config {field}: {json.dumps(before)} → {json.dumps(after)}")


def _show_draft(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    from workbench.notebook.progress import show_table

    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False))
        return
    columns = ["source", "requests", "pairs", "license", "problem"]
    show_table(columns, [[str(row[name]) for name in columns] for row in rows])
