"""Risks explained: by rules at no cost, or by a cheap model, 50 to a call, where somebody asks.

A model sees facts and writes what a risk is, why it ranks where it does and what to do; score, due
date and what is not known are added by rules and are never the model's. What cannot be used of its
answers is asked for again in smaller calls, and explained by rules in the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from workbench.core.errors import BudgetError, ConfigError, ModelError
from workbench.core.money import ZERO
from workbench.risk.explain_calls import ANSWER_TOKENS, Asking, Progress, write
from workbench.risk.explain_items import (
    INSTRUCTION,
    Documents,
    Row,
    is_closed,
    items_of,
    most_urgent,
    subject_of,
    withheld,
)
from workbench.risk.explain_rules import (
    RULES,
    explain_by_rules,
    narrate_by_rules,
    what_is_unknown,
    when_due,
)
from workbench.risk.narrative import narrate, request_for
from workbench.store.records import REHEARSAL

if TYPE_CHECKING:
    from workbench.llm.config import GatewayConfig
    from workbench.llm.estimate import Estimate
    from workbench.llm.gateway import Gateway
    from workbench.llm.transport import Transport
    from workbench.store.database import Store

__all__ = [
    "ROUTED", "Explained", "estimate", "estimate_rows", "explain", "explain_rows",
]  # fmt: skip

ROUTED: Final = "routed"
"""Instead of a model's name: as ``models.json`` and the configuration say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """Explanations, by whom they are, and what they cost."""

    texts: Mapping[str, str]
    """Subject, see :func:`subject_of`, → explanation of its most urgent row."""
    explained_by: Mapping[str, str]
    """Subject → ``rules`` or a model's name."""
    written: Mapping[str, str] = field(default_factory=dict)
    """Subject → what a model wrote, which holds on every asset."""
    narrative: str = ""
    narrated_by: str = ""
    usd: Decimal = ZERO
    calls: int = 0
    hits: int = 0
    """Calls whose answers were at hand."""
    reason: str = ""
    """Why rules explain what a model was asked for."""

    def of(self, row: Row) -> tuple[str, str]:
        """Return the explanation of any row, and who wrote it."""
        subject = subject_of(row)
        if subject not in self.written or is_closed(row):
            return explain_by_rules(row), RULES
        parts = (self.written[subject], when_due(row), what_is_unknown(row))
        return " ".join(filter(None, parts)), self.explained_by[subject]


async def explain_rows(
    store: Store,
    rows: Sequence[Row],
    *,
    model: str = RULES,
    facts: Mapping[str, Any] | None = None,
    documents: Documents | None = None,
    items_per_call: int = 50,
    most: int = 500,
    work: str = "",
    config: GatewayConfig | None = None,
    transport: Transport | None = None,
    progress: Progress = lambda _done, _all: None,
    on_text: Callable[[str], None] = lambda _: None,
    tell: Callable[[str], None] = print,
) -> Explained:
    """Return explanations: by rules, at no cost, unless a model is asked for.

    Without key or network, or at the limit of a budget, rules explain the rest; the reason is told
    once and kept.

    Args:
        store: Where calls are entered, under the phase ``assessment``.
        rows: Rows of the register with what evidence says, see ``explain_rules``.
        model: ``rules``, ``routed``, or a model's name.
        facts: Fields of ``AssessmentResult`` for the narrative; none is written without.
        documents: Gives passages for context.
        items_per_call: Most risks in one call, >= 1.
        most: Most subjects that a model is asked about, the most urgent ones.
        work: Id of the assessment: what it bought before is at hand however old it is.
        config: How to spend; that of the settings if not given.
        transport: The service; the configured one if not given.
        progress: Told how many calls are answered.
        on_text: Given each piece of the narrative as it comes; to be escaped.
        tell: Given the reason, and a line when calls are held.

    Raises:
        InputError: If ``items_per_call`` < 1.
        StoreError: If the store cannot be written.
    """
    if model == RULES:
        return _by_rules(rows, most=most, facts=facts, on_text=on_text)
    name = "" if model == ROUTED else model
    try:
        async with _opened(store, work, config, transport, tell=tell) as (gateway, prefix):
            explaining = explain(
                gateway, rows, documents=documents, items_per_call=items_per_call, most=most,
                model=name, progress=progress,
            )  # fmt: skip
            explained = await _beside(explaining, gateway, facts, on_text=on_text, model=name)
    except (BudgetError, ConfigError, ModelError) as error:
        explained = _by_rules(rows, most=most, facts=facts, on_text=on_text, reason=str(error))
    else:
        explained = _marked(explained, prefix)
    if explained.reason:
        tell(f"explained by rules: {explained.reason}")
    return explained


async def explain(
    gateway: Gateway,
    rows: Sequence[Row],
    *,
    documents: Documents | None = None,
    items_per_call: int = 50,
    most: int = 500,
    model: str = "",
    instruction: str = INSTRUCTION,
    progress: Progress = lambda _done, _all: None,
) -> Explained:
    """Return explanations of open risks by a cheap model; spends money.

    Each subject is asked about once, with the facts of its most urgent row. At the limit of a
    budget, or when the service fails, what is explained is kept and rules explain the rest.

    Raises:
        InputError: If ``items_per_call`` < 1; nothing was asked then.
        StoreError: If the store cannot be written.
    """
    chosen = most_urgent(rows, most=most)
    items = items_of(chosen, documents=documents)
    asking = Asking(gateway, progress)
    written, why = await write(
        items, asking, items_per_call=items_per_call, instruction=instruction, model=model
    )
    told = {
        subject_of(row): f"{one.in_words()} {withheld(row)}".rstrip()
        for row in chosen
        if (one := written.get(subject_of(row)))
    }
    found = Explained(
        texts={}, explained_by=dict.fromkeys(told, asking.model), written=told, usd=asking.usd,
        calls=asking.outcomes["sent"] + asking.outcomes["batch"],
        hits=asking.outcomes["hit"] + asking.outcomes["joined"],
        reason=asking.stopped or why,
    )  # fmt: skip
    return _with_texts(found, chosen)


async def estimate(
    gateway: Gateway,
    rows: Sequence[Row],
    *,
    facts: Mapping[str, Any] | None = None,
    documents: Documents | None = None,
    items_per_call: int = 50,
    most: int = 500,
    model: str = "",
    is_kept: bool = False,
) -> Estimate:
    """Return what explaining, and the narrative if there are facts, will take; spends nothing."""
    from workbench.llm.packing import pack

    items = {
        key: one.facts
        for key, one in items_of(most_urgent(rows, most=most), documents=documents).items()
    }
    packed = pack(
        items, instruction=INSTRUCTION, items_per_call=items_per_call,
        max_tokens_per_item=ANSWER_TOKENS, task="summary", model=model,
    )  # fmt: skip
    requests = [one.request for one in packed]
    if facts is not None:
        requests.append(request_for(facts, model=model))
    return await gateway.estimate(requests, is_kept=is_kept)


async def estimate_rows(
    store: Store,
    rows: Sequence[Row],
    *,
    model: str = ROUTED,
    facts: Mapping[str, Any] | None = None,
    documents: Documents | None = None,
    items_per_call: int = 50,
    most: int = 500,
    config: GatewayConfig | None = None,
) -> Estimate:
    """Return what :func:`explain_rows` will take; needs neither key nor network.

    Raises:
        ConfigError: If no model, or no price of it, is known.
    """
    from workbench.llm.config import read_config
    from workbench.llm.transport import open_transport

    config = config or read_config(store.settings)
    transport = open_transport(config, settings=replace(store.settings, offline=False))
    async with _opened(store, "", config, transport, tell=lambda _: None) as (gateway, _):
        return await estimate(
            gateway, [] if model == RULES else rows, facts=None if model == RULES else facts,
            documents=documents, items_per_call=items_per_call, most=most,
            model="" if model in {ROUTED, RULES} else model,
        )  # fmt: skip


def _by_rules(
    rows: Sequence[Row],
    *,
    most: int,
    facts: Mapping[str, Any] | None,
    on_text: Callable[[str], None],
    reason: str = "",
) -> Explained:
    narrative = narrate_by_rules(facts) if facts is not None else ""
    if narrative:
        on_text(narrative)
    found = Explained(
        texts={}, explained_by={}, reason=reason, narrative=narrative,
        narrated_by=RULES if narrative else "",
    )  # fmt: skip
    return _with_texts(found, most_urgent(rows, most=most))


def _with_texts(found: Explained, rows: Sequence[Row]) -> Explained:
    texts = {subject_of(row): found.of(row) for row in rows}
    return replace(
        found,
        texts={subject: text for subject, (text, _) in texts.items()},
        explained_by={subject: by for subject, (_, by) in texts.items()},
    )


async def _beside(
    explaining: Coroutine[Any, Any, Explained],
    gateway: Gateway,
    facts: Mapping[str, Any] | None,
    *,
    on_text: Callable[[str], None],
    model: str,
) -> Explained:
    """Return explanations and, if there are facts, the narrative, both written at the same time."""
    if facts is None:
        return await explaining
    telling = narrate(gateway, facts, on_text=on_text, model=model)
    # what is bought is kept in any case, so neither is left to run alone
    explained: Explained | BaseException
    explained, told = await asyncio.gather(explaining, telling, return_exceptions=True)
    if isinstance(explained, BaseException):
        raise explained
    if isinstance(told, BaseException):
        raise told
    reasons = dict.fromkeys(filter(None, (explained.reason, told.reason)))
    return replace(
        explained, narrative=told.text, narrated_by=told.told_by, reason="; ".join(reasons),
        usd=explained.usd + told.usd, calls=explained.calls + told.calls,
        hits=explained.hits + told.hits,
    )  # fmt: skip


def _marked(explained: Explained, prefix: str) -> Explained:
    """Say of what a played model wrote that it was played."""
    marked = {
        subject: by if by == RULES else prefix + by
        for subject, by in explained.explained_by.items()
    }
    told_by = explained.narrated_by
    is_ruled = told_by in {"", RULES}
    return replace(
        explained, explained_by=marked, narrated_by=told_by if is_ruled else prefix + told_by
    )


@asynccontextmanager
async def _opened(
    store: Store,
    work: str,
    config: GatewayConfig | None,
    transport: Transport | None,
    *,
    tell: Callable[[str], None],
) -> AsyncIterator[tuple[Gateway, str]]:
    """Give the gateway, and how the names of models begin that are only played."""
    from workbench.llm.config import read_config
    from workbench.llm.gateway import open_gateway
    from workbench.llm.transport import is_rehearsal

    config = config or read_config(store.settings)
    async with open_gateway(
        store, phase="assessment", work=work, config=config, transport=transport, tell=tell
    ) as gateway:
        is_played = transport is None and await asyncio.to_thread(is_rehearsal, config)
        yield gateway, REHEARSAL if is_played else ""
