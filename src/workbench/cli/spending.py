"""What the commands share that ask models: configuration, thresholds, estimates, how they end."""

from __future__ import annotations

import re
from collections.abc import Coroutine
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

import click

from workbench.core.errors import BudgetError, ConfigError, WorkbenchError
from workbench.core.money import show_usd

if TYPE_CHECKING:
    from workbench.llm.config import GatewayConfig
    from workbench.llm.estimate import Estimate
    from workbench.store.database import Store

__all__ = ["in_words", "refuse_if_exceeded", "run_spending", "spending_config"]

T = TypeVar("T")


def spending_config(
    store: Store, *, budget: str | None, base_url: str | None, batch: bool = False
) -> GatewayConfig:
    """Return how calls are made: as the settings say, and the options over them.

    Raises:
        ConfigError: If an option makes no sense.
    """
    from workbench.llm.config import parse, read_config

    section = read_config(store.settings).to_json()
    section["budgets"] |= {"run": budget} if budget else {}
    section["savings"] |= {"batches": True} if batch else {}
    section |= {"base_url": base_url} if base_url else {}
    try:
        return parse(section, where="ask")
    except ConfigError as error:
        text = str(error).replace("ask.budgets.run", "--budget")
        raise ConfigError(text.replace("ask.base_url", "--base-url")) from None


def refuse_if_exceeded(store: Store) -> None:
    """Refuse to spend past a threshold that aborts; say those that warn.

    Raises:
        BudgetError: If one is exceeded.
    """
    import time

    from workbench.core.settings import project_root
    from workbench.cost.alerts import refuse_if_exceeded as refuse

    for one in refuse(store, project_root(), now=time.time()):
        click.echo(f"warning: {one}", err=True)


def run_spending(work: Coroutine[Any, Any, T], *, job: str) -> T:
    """Return what comes of spending work; budgets and interrupts are told in the command's words.

    Raises:
        BudgetError: At the limit.
        WorkbenchError: If it was interrupted.
    """
    import asyncio

    try:
        return asyncio.run(work)
    except BudgetError as error:
        raise BudgetError(_of_this_command(str(error), job)) from None
    except KeyboardInterrupt:
        raise WorkbenchError("interrupted; answers are kept, run it again to go on") from None


def in_words(found: Estimate) -> str:
    """Return an estimate as one line."""
    low, expected, worst = (show_usd(Decimal(dollars)) for dollars in found.usd)
    prompt, output = found.prompt_tokens.expected, found.output_tokens.expected
    return (
        f"{found.calls} calls, {found.hits} at hand, {found.rules} by rule; about {prompt:,} tokens"
        f" of prompt, {output:,} of answer; {expected} ({low} to {worst}); {found.seconds:,.0f} s"
    )


def _of_this_command(reason: str, job: str) -> str:
    """Return why a budget stopped the command, with the option that raises it."""
    reason = re.sub(rf"the budget of run {re.escape(job)}\S* is", "--budget is", reason)
    reason = reason.replace("`llm: budgets: run` in the experiment file", "--budget")
    return reason.replace("in the experiment file", "in WORKBENCH_LLM")
