"""``workbench data synthesize``: more data, written by a model and let through by a gate."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import click

from workbench.cli.bar import progress_bar
from workbench.cli.opening import EXIT_CODES, open_here
from workbench.cli.spending import in_words, refuse_if_exceeded, run_spending, spending_config
from workbench.core.errors import ConfigError
from workbench.core.fields import suggest
from workbench.core.money import show_usd

if TYPE_CHECKING:
    from workbench.data.recipe import Recipe
    from workbench.data.requests import Request
    from workbench.llm.config import GatewayConfig
    from workbench.llm.estimate import Estimate
    from workbench.store.database import Store

__all__ = ["synthesize"]

_INBOX = "inbox"


@click.command(epilog=EXIT_CODES)
@click.argument("source", default="seeds")
@click.option(
    "--task", "tasks", multiple=True,
    type=click.Choice(["paraphrase", "rewrite", "translate", "hard_negative", "domain"]),
    help="What to have written; may be repeated.  [default: paraphrase, rewrite, hard_negative]",
)  # fmt: skip
@click.option("--language", "languages", multiple=True, metavar="TAG", help="To translate into.")
@click.option(
    "--requests", type=click.IntRange(1), help="Most requests to work on.  [default: all]"
)
@click.option("--variants", default=1, show_default=True, type=click.IntRange(1), help="Of each.")
@click.option(
    "--seed", default=0, show_default=True, help="Decides which requests, and their order."
)
@click.option("--budget", metavar="USD", help="Most that it may cost, resumes included.")
@click.option("--base-url", metavar="URL", help="Another address, e.g. of a local server.")
@click.option("--dry-run", is_flag=True, help="Show what it would take; spend nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def synthesize(
    source: str, *, tasks: tuple[str, ...], languages: tuple[str, ...], requests: int | None,
    variants: int, seed: int, budget: str | None, base_url: str | None, dry_run: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Have a model write more of SOURCE: seeds, inbox, or a public set by its name.

    What comes back is kept only where a judge and an encoder let it through; what is not is
    counted. Spends money through the gateway; the same command again, also after a kill, takes
    what was answered before from the store.

    \b
    Examples:
      workbench data synthesize --dry-run
      workbench data synthesize --task translate --language nl --language ja --budget 5
      workbench data synthesize hh-rlhf --task rewrite --requests 500
      workbench data synthesize inbox --task rewrite
    """  # noqa: D301 - \b keeps click from wrapping
    import asyncio
    from dataclasses import asdict, replace

    from workbench.core.identity import content_id
    from workbench.data.recipe import Recipe

    store = open_here()
    config = spending_config(store, budget=budget, base_url=base_url)
    texts, license_ = _requests_of(store, source)
    if languages and "translate" not in tasks:
        tasks = (*tasks, "translate")
    asked: dict[str, Any] = {"tasks": tasks} if tasks else {}
    recipe = Recipe(**asked, languages=languages, variants=variants, seed=seed, requests=requests)
    named = content_id([source, asdict(recipe)])[:12]
    job = store.settings.run_id or f"synthesize-{named}"
    store = replace(store, settings=replace(store.settings, run_id=job))
    if dry_run:
        found = asyncio.run(_estimate(store, texts, recipe, config))
        click.echo(json.dumps(found.figures()) if as_json else in_words(found))
        return
    refuse_if_exceeded(store)
    writing = _write(store, texts, recipe, config, source=source, license_=license_, json_=as_json)
    manifest = run_spending(writing, job=job)
    click.echo(json.dumps(manifest, ensure_ascii=False) if as_json else _summary(manifest))


def _requests_of(store: Store, source: str) -> tuple[list[Request], str]:
    """Return the requests of a source, and the license of what is made of them."""
    if source == "seeds":
        from workbench.data.requests import load_benign, load_requests

        return [*load_requests(), *load_benign()], "MIT"
    if source == _INBOX:
        from workbench.data.inbox import Inbox

        return Inbox(store.home / _INBOX).to_rewrite(), "own findings and opted-in feedback"
    from workbench.core.settings import project_root
    from workbench.data.public import PUBLIC, open_requests
    from workbench.data.synthesize import requests_of

    if source not in PUBLIC:
        raise ConfigError(f"no source {source!r}; {suggest(source, ('seeds', _INBOX, *PUBLIC))}")
    if "wraps" in PUBLIC[source]:
        raise ConfigError(f"{source} wraps the shipped requests; expand seeds instead")
    opened = open_requests(source, {}, folder=project_root())
    return requests_of(opened), opened.license


async def _estimate(
    store: Store, texts: list[Request], recipe: Recipe, config: GatewayConfig
) -> Estimate:
    from workbench.data.synthesize import estimate_expansion

    return await estimate_expansion(store, texts, recipe, config=config)


async def _write(
    store: Store, texts: list[Request], recipe: Recipe, config: GatewayConfig, *, source: str,
    license_: str, json_: bool,
) -> dict[str, Any]:  # fmt: skip
    from workbench.data.gate import Gate
    from workbench.data.synthesize import synthesize as write
    from workbench.embedding.vectors import open_encoder
    from workbench.judge.probe import train_bench

    encoder = open_encoder(store)
    gate = Gate(judge=train_bench(store, encoder).embedding, encoder=encoder)
    with progress_bar("calls", as_json=json_) as progress:
        expansion = await write(
            store, texts, recipe, gate=gate, source=source, license=license_, config=config,
            on_estimate=lambda found: click.echo(f"estimated: {in_words(found)}", err=True),
            progress=progress, tell=lambda line: click.echo(line, err=True),
        )  # fmt: skip
    return {"id": expansion.id, **expansion.manifest}


def _summary(manifest: dict[str, Any]) -> str:
    rejected = [
        f"  {count:>6}  {task}: {reason}"
        for task, reasons in manifest["rejected"].items()
        for reason, count in reasons.items()
    ]
    lines = [
        f"expansion {manifest['id']}",
        f"  {manifest['rows']:>6}  accepted, {show_usd(Decimal(manifest['usd_billed']))} billed",
        *rejected,
    ]
    if manifest["is_rehearsal"]:
        lines.append("rehearsed: nothing that a build could take")
    elif manifest["rows"]:
        lines.append(f"in a build's file: {{adapter: expansion, id: {manifest['id'][:12]}}}")
    return "\n".join(lines)
