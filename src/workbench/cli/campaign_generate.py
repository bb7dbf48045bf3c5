"""``workbench campaign generate``: what to attack and how, read and priced before it is sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from workbench.cli.opening import EXIT_CODES, open_here
from workbench.cli.spending import in_words, refuse_if_exceeded, run_spending, spending_config
from workbench.core.plain import one_line

if TYPE_CHECKING:
    from workbench.campaign.generate import GenerateConfig, Preview
    from workbench.campaign.profile import Profile
    from workbench.llm.config import GatewayConfig
    from workbench.store.database import Store

__all__ = [
    "GENERATE", "base_url_option", "budget_option", "catalog", "dry_run_option", "generate",
    "generate_config", "json_option", "make_test_set", "with_options",
]  # fmt: skip

_SAMPLES = 8
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Show what it would take; do nothing."
)
budget_option = click.option("--budget", metavar="USD", help="Most to spend.")
base_url_option = click.option(
    "--base-url", metavar="URL", help="Ask models there, e.g. a local server."
)
GENERATE = (
    click.option("--plugin", "plugins", multiple=True, metavar="NAME",
                 help="What to attack; may be repeated.  [all that suit]"),
    click.option("--strategy", "strategies", multiple=True, metavar="NAME[+NAME]",
                 help="How; may be repeated, + chains.  [all that need no model]"),
    click.option("--for", "surface", type=click.Choice(["guard", "model"]),
                 help="Kind of target; plugins that make no sense there are left out."),
    click.option("--max-tests", default=400, show_default=True, help="Most test cases."),
    click.option("--mutations", default=4, show_default=True, help="Most disguises of one goal."),
    click.option("--pair-set", default="", metavar="ID",
                 help="Whose held-out requests are goals.  [newest]"),
    click.option("--profile", "profile_", metavar="FILE|ID", default="",
                 help="What is known of the target; see `workbench campaign profile`."),
    click.option("--explore", default=0.5, show_default=True,
                 help="Share dealt evenly; the rest goes to what worked before."),
    click.option("--seed", default=0, show_default=True),
    click.option("--tag", default="", help="Tag the test set."),
)  # fmt: skip


def with_options(several: Sequence[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    """Return a decorator that gives a command several options, in their order."""

    def add(command: Any) -> Any:
        for option in reversed(several):
            command = option(command)
        return command

    return add


@click.command(epilog=EXIT_CODES)
@with_options(GENERATE)
@budget_option
@base_url_option
@dry_run_option
@json_option
def generate(*, as_json: bool, dry_run: bool, budget: str | None, base_url: str | None, tag: str,
             **choices: Any) -> None:  # fmt: skip
    """Make a test set: what to attack × how.

    Cases are dealt evenly, and to what worked before.

    \b
    Examples:
      workbench campaign generate --for guard --max-tests 400
      workbench campaign generate --plugin pii --strategy plain --strategy base64+rot13
      workbench campaign generate --plugin harm-violence --strategy crescendo --budget 2 --dry-run
      workbench campaign generate --for model --profile shop.md --tag nightly
    """  # noqa: D301 - \b keeps click from wrapping
    store = open_here()
    made = make_test_set(
        store, *generate_config(store, choices), dry_run=dry_run, budget=budget, base_url=base_url,
        tag=tag, as_json=as_json,
    )  # fmt: skip
    if as_json:
        click.echo(json.dumps(made))


@click.command(epilog=EXIT_CODES)
@json_option
def catalog(*, as_json: bool) -> None:
    """List plugins and strategies, with their public ids.

    Ids are those of OWASP LLM Top 10, MITRE ATLAS and NIST AI 600-1.

    \b
    Examples:
      workbench campaign catalog
      workbench campaign catalog --json
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.campaign.plugins.catalog import PLUGINS
    from workbench.campaign.strategies.catalog import strategies

    plugins = [
        {"name": name, "about": one.about, "severity": one.severity, "for": sorted(one.applies_to),
         "taxonomy": list(one.taxonomy)}
        for name, one in PLUGINS
    ]  # fmt: skip
    disguises = [
        {"name": name, "kind": one.kind, "about": one.description, "taxonomy": list(one.taxonomy)}
        for name, one in strategies()
    ]
    if as_json:
        click.echo(json.dumps({"plugins": plugins, "strategies": disguises}))
        return
    for title, rows in (("plugins", plugins), ("strategies", disguises)):
        click.secho(title, fg="cyan")
        for row in rows:
            told = [f"{row['name']:<28}", str(row.get("severity") or row.get("kind"))]
            click.echo(f"  {told[0]} {told[1]:<12} {row['about']}  {' '.join(row['taxonomy'])}")


def generate_config(store: Store, choices: dict[str, Any]) -> tuple[GenerateConfig, Profile | None]:
    """Return what to generate, and what is known of the target; takes them out of the choices."""
    from workbench.campaign import profile as profiles
    from workbench.campaign.generate import GenerateConfig

    known, given = None, choices.pop("profile_")
    if given:
        path = Path(given)
        known = profiles.read_profile(path) if path.is_file() else profiles.load(store, given)
    config = GenerateConfig(
        plugins=choices.pop("plugins"),
        strategies=choices.pop("strategies"),
        surface=choices.pop("surface") or "",
        max_tests=choices.pop("max_tests"),
        mutations_per_prompt=choices.pop("mutations"),
        pair_set=choices.pop("pair_set"),
        explore=choices.pop("explore"),
        seed=choices.pop("seed"),
    )
    return config, known


def make_test_set(
    store: Store,
    config: GenerateConfig,
    profile: Profile | None,
    *,
    dry_run: bool,
    budget: str | None,
    base_url: str | None,
    tag: str,
    as_json: bool,
) -> dict[str, Any]:
    """Return what a test set is that was made and stored, or would be; may spend money."""
    from workbench.campaign import profile as profiles
    from workbench.campaign import testsets
    from workbench.campaign.generate import preview
    from workbench.store.test_sets import add_tag

    plan = preview(store, config, profile=profile)
    cost = Decimal(0)
    told: dict[str, Any] = {}
    if plan.pending:
        spending = spending_config(store, budget=budget, base_url=base_url)
        if not dry_run:
            refuse_if_exceeded(store)
        work = _write(store, plan, spending, dry_run=dry_run)
        plan, cost, told = run_spending(work, job="generate")
    made: dict[str, Any] = {**plan.result(), "limited_by": plan.limited_by,
                            "left_out": plan.left_out, "dropped": plan.dropped,
                            "unwritten": len(plan.pending), "usd": float(cost), **told}  # fmt: skip
    if not dry_run:
        if profile:
            profiles.save(store, profile)
        saved = testsets.save(store, plan.test_set, cost_usd=str(cost))
        if tag:
            add_tag(store.engine, saved, tag, owner=store.settings.user)
    if not as_json:
        _show_test_set(made, dry_run=dry_run)
    return made


async def _write(
    store: Store, plan: Preview, config: GatewayConfig, *, dry_run: bool
) -> tuple[Preview, Decimal, dict[str, Any]]:
    """Return the plan with what models wrote, what that cost, and what was expected."""
    from workbench.campaign.conduct import generation_work, open_attacker
    from workbench.campaign.generate import fill, planned
    from workbench.core.money import ZERO
    from workbench.store.campaigns import spent

    async with open_attacker(store, plan, config=config, is_rehearsed=dry_run, tell=_tell) as (
        attacker,
        gateway,
    ):
        expected = await gateway.estimate(planned(plan, attacker), is_kept=not dry_run)
        _tell(f"a model writes {len(plan.pending)} of the cases: {in_words(expected)}")
        told = {"expected": expected.figures()}
        if dry_run:
            return plan, ZERO, told
        plan = await fill(plan, attacker)
    return plan, spent(store.engine, generation_work(plan)), told


def _show_test_set(made: dict[str, Any], *, dry_run: bool) -> None:
    words = "would be" if dry_run else "is"
    click.secho(f"test set {made['test_set'][:12]} {words} {made['tests']} cases,"
                f" {made['controls']} of them controls; limited by {made['limited_by']}",
                fg="cyan")  # fmt: skip
    for name, count in sorted(made["by_plugin"].items()):
        click.echo(f"  {count:>6}  {name}")
    for name, why in made["left_out"].items():
        click.echo(f"  left out: {name}: {why}")
    if made["unwritten"]:
        reasons = ", ".join(f"{count} × {why}" for why, count in made["dropped"].items())
        click.echo(f"  {made['unwritten']} cases are not written: {reasons or 'needs a model'}")
    for sample in made["samples"][:_SAMPLES]:
        click.echo(
            f"  {sample['plugin']} · {sample['strategy']}: {one_line(sample['prompt'])[:100]}"
        )
    expected = made["estimate"]
    click.echo(
        f"one local target takes {expected['calls']:.0f} messages, {expected['cpu_s']:.0f} CPU s"
    )


def _tell(line: str) -> None:
    click.echo(line, err=True)
