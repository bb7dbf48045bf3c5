"""``workbench ask``: prompts to a model by hand, metered, capped and resumable."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from workbench.cli.answers import Answers
from workbench.cli.opening import (
    EXIT_CODES,
    check_options,
    open_here,
    read_lines,
    to_request,
)  # fmt: skip
from workbench.cli.spending import in_words, refuse_if_exceeded, run_spending, spending_config
from workbench.core.money import ZERO, show_usd, usd

if TYPE_CHECKING:
    from workbench.llm.config import GatewayConfig
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

    Answers come in the order of the prompts, an empty line where one failed. The same command
    again, also after a kill, takes what was answered before from the store. With --jsonl a prompt
    is {"prompt": …} and system, task, difficulty, variant, max_tokens or schema.

    \b
    Examples:
      workbench ask "What is a jailbreak?" --max-tokens 100
      workbench ask --dry-run < prompts.txt
      workbench ask --jsonl --task summary --budget 0.50 --json < records.jsonl > answers.jsonl
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.core.identity import content_id

    check_options(usual)
    lines = enumerate(read_lines(prompts), 1)
    requests = [to_request(line, number, usual, is_json=jsonl) for number, line in lines]
    keys = [one.key(service="", model=one.model) for one in requests]
    work, store = f"ask-{content_id(keys)[:16]}", open_here()
    job = store.settings.run_id or work
    store = replace(store, settings=replace(store.settings, run_id=job))
    config = spending_config(store, budget=budget, base_url=base_url, batch=batch)
    if not dry_run:
        refuse_if_exceeded(store)
    asking = _ask(store, config, requests, work=work, dry_run=dry_run, as_json=as_json)
    is_answered = run_spending(asking, job=job)
    sys.exit(0 if is_answered else 1)


async def _ask(
    store: Store, config: GatewayConfig, requests: list[Request], *, work: str, dry_run: bool,
    as_json: bool,
) -> bool:  # fmt: skip
    """Print the estimate, then answers; return whether every prompt was answered."""
    from workbench.llm.gateway import open_gateway
    from workbench.llm.transport import open_transport
    from workbench.store.records import now

    # an estimate needs neither key nor network
    online = replace(store.settings, offline=False)
    transport = open_transport(config, settings=online) if dry_run else None
    printer, since = Answers(len(requests), as_json=as_json), ""
    try:
        async with open_gateway(
            store, phase="generation", work=work, config=config, transport=transport, tell=_tell
        ) as gateway:
            found = await gateway.estimate(requests, is_kept=not dry_run)
            if dry_run:
                click.echo(json.dumps(found.figures()) if as_json else in_words(found))
                return True
            since = now()  # what a dead process lost was charged before
            _tell(f"estimated: {in_words(found)}")
            async with printer.watched():
                await gateway.map(requests, on_answer=printer.take)
    finally:
        if since:
            _tell_bill(store, work, since=since)
    return not printer.failed


def _tell_bill(store: Store, work: str, *, since: str) -> None:
    """Say what was called and billed since then, and what was bought before and is kept."""
    from workbench.cost.calls import BILLED, summary

    rows = [row for row in store.ledger.rows(jobs=[store.settings.run_id]) if row.work == work]
    bill = summary("", [row for row in rows if row.at >= since])
    told = f"{bill['calls']} calls, {bill['hits']} at hand, {show_usd(usd(bill['usd']))} billed"
    at_hand = usd(bill["saved_usd"])
    bought = [row for row in rows if row.at < since and row.details.get("outcome") in BILLED[:2]]
    kept = min(at_hand, sum((row.usd for row in bought), ZERO))
    told += f", {show_usd(at_hand - kept)} saved"
    _tell(told + (f", {show_usd(kept)} kept from before" if kept else ""))
