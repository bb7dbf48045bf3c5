"""``workbench ask``: prompts to a model by hand, metered, capped and resumable."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from workbench.cli.opening import EXIT_CODES, open_here, read_lines, to_request
from workbench.core.errors import BudgetError, WorkbenchError
from workbench.core.money import show_usd, usd

if TYPE_CHECKING:
    from workbench.llm.config import GatewayConfig
    from workbench.llm.estimate import Estimate
    from workbench.llm.gateway import Outcome
    from workbench.llm.messages import Request
    from workbench.store.database import Store

__all__ = ["ask"]

_tell = partial(click.echo, err=True)


@click.command(epilog=EXIT_CODES)
@click.argument("prompts", nargs=-1)
@click.option("--jsonl", is_flag=True, help="Prompts are JSON objects; options fill the gaps.")
@click.option("--task", default="analysis", show_default=True, help="Decides the tier of model.")
@click.option("--difficulty", default="normal", show_default=True, help="simple to complex.")
@click.option("--model", default="", help="A model by name, past the routing.")
@click.option("--max-tokens", default=512, show_default=True, help="Longest answer.")
@click.option("--budget", metavar="USD", help="Most that these prompts may cost, resumes included.")
@click.option("--batch", is_flag=True, help="As a message batch: half the price, within a day.")
@click.option("--base-url", metavar="URL", help="Another address, e.g. of a local server.")
@click.option("--dry-run", is_flag=True, help="Show what it would take; spend nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per answer.")
def ask(
    prompts: tuple[str, ...], *, jsonl: bool, budget: str | None, batch: bool,
    base_url: str | None, dry_run: bool, as_json: bool, **usual: Any,
) -> None:  # fmt: skip
    """Ask a model each of PROMPTS, or each line of standard input.

    The same command again, also after a kill, takes what was answered before from the store. With
    --jsonl a prompt is {"prompt": …} and system, task, difficulty, variant, max_tokens or schema.

    \b
    Examples:
      workbench ask "What is a jailbreak?" --max-tokens 100
      workbench ask --dry-run < prompts.txt
      workbench ask --jsonl --task summary --budget 0.50 --json < records.jsonl > answers.jsonl
    """  # noqa: D301 - \b keeps click from wrapping
    import asyncio

    from workbench.core.identity import content_id
    from workbench.llm.config import parse, read_config
    from workbench.store.records import now

    lines = enumerate(read_lines(prompts), 1)
    requests = [to_request(line, number, usual, is_json=jsonl) for number, line in lines]
    keys = [one.key(provider="", model=one.model) for one in requests]
    work, store = f"ask-{content_id(keys)[:16]}", open_here()
    job = store.settings.run_id or work
    store = replace(store, settings=replace(store.settings, run_id=job))
    section = read_config(store.settings).to_json()
    section["budgets"] |= {"run": budget} if budget else {}
    section["savings"] |= {"batches": True} if batch else {}
    section |= {"base_url": base_url} if base_url else {}
    config, started = parse(section, where="ask"), now()
    asking = _ask(store, config, requests, work=work, dry_run=dry_run, as_json=as_json)
    try:
        is_answered = asyncio.run(asking)
    except BudgetError as error:
        raise BudgetError(f"{error}; of this command: --budget") from None
    except KeyboardInterrupt:
        raise WorkbenchError("interrupted; answers are kept, run it again to go on") from None
    finally:
        _tell_bill(store, job, since=started)
    sys.exit(0 if is_answered else 1)


async def _ask(
    store: Store, config: GatewayConfig, requests: list[Request], *, work: str, dry_run: bool,
    as_json: bool,
) -> bool:  # fmt: skip
    """Print the estimate, then answers; return whether every prompt was answered."""
    from workbench.llm.gateway import open_gateway
    from workbench.llm.transport import open_transport

    # an estimate needs neither key nor network
    online = replace(store.settings, offline=False)
    transport = open_transport(config, settings=online) if dry_run else None
    outcomes: dict[int, Outcome] = {}
    async with open_gateway(
        store, phase="generation", work=work, config=config, transport=transport, tell=_tell
    ) as gateway:
        found = await gateway.estimate(requests, is_kept=not dry_run)
        if dry_run:
            click.echo(json.dumps(found.figures()) if as_json else _in_words(found))
            return True
        _tell(f"estimated: {_in_words(found)}")
        hidden = not sys.stderr.isatty()
        with click.progressbar(length=len(requests), file=sys.stderr, hidden=hidden) as bar:

            def take(position: int, outcome: Outcome) -> None:
                outcomes[position] = outcome
                bar.update(1)

            try:
                await gateway.map(requests, on_answer=take)
            finally:
                for position in sorted(outcomes):
                    _print(position + 1, outcomes[position], as_json=as_json)
    return not any(isinstance(outcome, Exception) for outcome in outcomes.values())


def _print(number: int, outcome: Outcome, *, as_json: bool) -> None:
    if isinstance(outcome, Exception):
        _tell(f"prompt {number}: {outcome}")
    elif as_json:
        names = ("text", "stop_reason", "model", "outcome", "latency_s")
        told = {name: getattr(outcome, name) for name in names}
        click.echo(json.dumps({"number": number, **told, "usd": float(outcome.usd)}))
    else:  # what a model says may hold codes that a terminal obeys
        click.echo("".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in outcome.text))


def _in_words(found: Estimate) -> str:
    low, expected, worst = (show_usd(Decimal(dollars)) for dollars in found.usd)
    prompt, output = found.prompt_tokens.expected, found.output_tokens.expected
    return (
        f"{found.calls} calls, {found.hits} at hand, {found.rules} by rule; about {prompt:,} tokens"
        f" of prompt, {output:,} of answer; {expected} ({low} to {worst}); {found.seconds:,.0f} s"
    )


def _tell_bill(store: Store, job: str, *, since: str) -> None:
    from workbench.cost.calls import summary

    rows = [row for row in store.ledger.rows(jobs=[job]) if row.at >= since]
    if rows:
        bill = summary("", rows)
        billed, saved = show_usd(usd(bill["usd"])), show_usd(usd(bill["saved_usd"]))
        _tell(f"{bill['calls']} calls, {bill['hits']} at hand, {billed} billed, {saved} saved")
