"""Expansion by models: requests in other words, languages and domains, and safe ones for them.

Everything is asked for through the gateway, as packed items that are fenced as untrusted, and kept
only where it passes the gate (``data.gate``). What fails is counted by reason.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal
from itertools import count
from typing import TYPE_CHECKING, Any

from workbench.core.errors import ConfigError, ModelError
from workbench.core.identity import content_id, text_id
from workbench.core.money import ZERO, usd
from workbench.data.expansions import Expansion, Row, write_expansion
from workbench.data.gate import ON_TOPIC, REFUSED, Candidate, Gate
from workbench.data.pairs import Source, Stem
from workbench.data.recipe import CARRYING, Group, Job, Recipe, plan
from workbench.data.requests import Request
from workbench.data.split import core_key
from workbench.llm.config import GatewayConfig, read_config
from workbench.llm.gateway import Gateway, OnAnswer, Outcome, open_gateway
from workbench.llm.messages import Answer
from workbench.llm.messages import Request as ModelRequest
from workbench.llm.packing import Packed, unpack
from workbench.llm.transport import Transport, is_rehearsal, open_transport
from workbench.store.database import Store

if TYPE_CHECKING:
    from workbench.llm.estimate import Estimate

__all__ = ["estimate_expansion", "requests_of", "synthesize"]

Progress = Callable[[int, int], None]
PriceOf = Callable[[ModelRequest, Answer], Decimal]

_TRIES = 3
_BULLET = re.compile(r"^\s*(?:[-*\u2022]|\d{1,2}[.)])\s+")


@dataclass(frozen=True, kw_only=True)
class _Said:
    """What came back, by item."""

    texts: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    usd: defaultdict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))


def requests_of(source: Source) -> list[Request]:
    """Return the requests of a source, with the safe ones that it has for them.

    Raises:
        ConfigError: If its pairs may not be trained on, or on one side of the split only.
    """
    if source.is_evaluated_only or source.is_trained_only:
        use = "only evaluated on" if source.is_evaluated_only else "feedback, see data.inbox"
        raise ConfigError(f"source {source.name}: {use}; expand another one")
    return [
        Request(
            id=stem.parent_id or core_key(stem.core, ""), category=stem.category,
            request=stem.core, redirects=_redirects_of(stem), domain="general", context="general",
            lookalike=False, language=stem.language,
        )
        for stem in source.stems
    ]  # fmt: skip


async def estimate_expansion(
    store: Store,
    requests: Sequence[Request],
    recipe: Recipe,
    *,
    config: GatewayConfig | None = None,
) -> Estimate:
    """Return what an expansion will take; spends nothing and needs neither key nor network.

    Raises:
        ConfigError: If no model, or no price of it, is known.
        DataError: If the recipe finds nothing to do.
    """
    config = config or read_config(store.settings)
    job = plan(requests, recipe, config)
    transport = open_transport(config, settings=replace(store.settings, offline=False))
    async with open_gateway(
        store, phase="expansion", work=job.work, config=config, transport=transport
    ) as gateway:
        return await gateway.estimate((call.packed.request for call in job.calls), is_kept=False)


async def synthesize(
    store: Store,
    requests: Sequence[Request],
    recipe: Recipe,
    *,
    gate: Gate,
    source: str,
    license: str,  # noqa: A002 - as pairs call it
    config: GatewayConfig | None = None,
    transport: Transport | None = None,
    on_estimate: Callable[[Estimate], None] = lambda _: None,
    progress: Progress = lambda _done, _all: None,
    tell: Callable[[str], None] = print,
) -> Expansion:
    """Return the expansion of requests, written to the store. Spends money.

    The same requests, recipe and answers give the same id. Answers are kept as they come: after a
    kill, or at the limit of a budget, the same call goes on where it was.

    Args:
        store: Where answers and the expansion go.
        requests: What to expand, see :func:`requests_of`, ``data.requests`` and ``data.inbox``.
        recipe: What to have written.
        gate: What may pass.
        source: Name of the source of the requests.
        license: License of the requests, which holds for what is made of them.
        config: How to spend; that of the settings if not given.
        transport: The service; the configured one if not given.
        on_estimate: Told what it will take before anything is spent.
        progress: Told the calls that are answered, and the calls so far.
        tell: Given a line when calls are held.

    Raises:
        BudgetError: At the limit: what is answered is kept.
        ConfigError: If the service cannot be reached as configured.
        DataError: If the recipe finds nothing to do.
        ModelError: If the service answered nothing at all.
    """
    config = config or read_config(store.settings)
    job = plan(requests, recipe, config)
    async with open_gateway(
        store, phase="expansion", work=job.work, config=config, transport=transport, tell=tell
    ) as gateway:
        on_estimate(await gateway.estimate(call.packed.request for call in job.calls))
        price_of = _price_of(store, config, job.work)
        said = await _ask_all(gateway, job, price_of, progress=progress)
    is_played = transport is None and await asyncio.to_thread(is_rehearsal, config)
    written = {name: _candidates(group, name, said) for group in job.groups for name in group.items}
    gate.check([one for some in written.values() for one in some], known=_known(requests))
    rows = list(_rows(job, said, written))
    facts = {
        "source": source, "license": license, "recipe": asdict(recipe),
        "is_rehearsal": is_played,
        "requests_sha256": content_id([asdict(one) for one in job.requests]),
        **gate.facts(), **_counts(job, said, written, rows), **_costs(store, job, said, rows),
    }  # fmt: skip
    return write_expansion(store, [row for _, row in rows if row], facts)


def _redirects_of(stem: Stem) -> tuple[str, ...]:
    pairs = () if stem.size is None else stem.grow(seed=0)
    return tuple(dict.fromkeys(one.clean for one in pairs if one.relation == "safe_rewrite"))


async def _ask_all(
    gateway: Gateway,
    job: Job,
    price_of: PriceOf,
    *,
    progress: Progress,
) -> _Said:
    """Return what came back; items missing in an answer are asked for in halves, then alone."""
    said, calls, answered = _Said(), list(job.calls), 0
    for attempt in range(_TRIES):
        tell = _counting(progress, answered, answered + len(calls))
        outcomes = await gateway.map([call.packed.request for call in calls], on_answer=tell)
        answered += len(calls)
        failed = [outcome for outcome in outcomes if isinstance(outcome, ModelError)]
        if attempt == 0 and len(failed) == len(calls):
            raise failed[0]
        again = []
        for call, outcome in zip(calls, outcomes, strict=True):
            missing = _take(call.packed, outcome, said, price_of)
            if missing and len(call.packed.ids) > 1:
                size = (len(missing) + 1) // 2 if attempt == 0 else 1
                again += call.group.calls(missing, size=size)
        calls = again
    return said


def _counting(progress: Progress, before: int, total: int) -> OnAnswer:
    numbers = count(before + 1)
    return lambda _position, _outcome: progress(next(numbers), total)


def _take(
    packed: Packed,
    outcome: Outcome,
    said: _Said,
    price_of: PriceOf,
) -> list[str]:
    """Enter an outcome and share its cost evenly among its items; return those without a text."""
    texts: dict[str, str] = {}
    if isinstance(outcome, ModelError):
        reason = "no answer"
    else:
        share = price_of(packed.request, outcome) / len(packed.ids)
        for name in packed.ids:
            said.usd[name] += share
        is_cut = outcome.stop_reason == "max_tokens" and len(packed.ids) == 1
        reason = REFUSED if outcome.is_refusal else "cut off" if is_cut else "missing"
        if reason == "missing":
            texts, _ = unpack(packed, outcome.text)
        said.models.update(dict.fromkeys(texts, outcome.model))
    missing = [name for name in packed.ids if name not in texts]
    said.texts.update(texts)
    said.failed.update(dict.fromkeys(missing, reason))
    for name in texts:
        said.failed.pop(name, None)
    return missing


def _price_of(store: Store, config: GatewayConfig, work: str) -> PriceOf:
    """Return what tells what an answer was billed when it was bought, also where it is at hand."""
    service = f"{config.provider} {config.base_url}".strip()
    counted: set[str] = set()

    def price(request: ModelRequest, answer: Answer) -> Decimal:
        key = request.key(service=service, model=answer.model)
        is_first = key not in counted
        counted.add(key)
        if answer.usd or not is_first:
            return answer.usd
        kept = store.calls.read(key, work=work)
        return usd(kept.answer["usd"]) if kept else ZERO

    return price


def _candidates(group: Group, name: str, said: _Said) -> list[Candidate]:
    """Return what a model wrote for an item: one text, or several safe requests."""
    item, text = group.items[name], said.texts.get(name, "")
    is_rewrite, is_other = group.task == "rewrite", group.task == "hard_negative"
    texts = [_BULLET.sub("", line) for line in text.splitlines()] if is_rewrite else [text]
    language = group.target if group.task == "translate" else "en"
    is_request = item.part == 0 and not is_rewrite
    return [
        Candidate(
            text=one,
            source=item.text,
            is_harmful=item.is_harmful and not is_rewrite and not is_other,
            language=language,
            topic=ON_TOPIC.get(group.task, 0.0),
            bucket=language if is_request else _bucket(item.request, group),
        )
        for one in texts
        if one.strip()
    ]


def _bucket(request: Request, group: Group | None = None) -> str:
    """Return where near-duplicates of a request's safe requests are looked for."""
    is_moved = group is not None and group.task in CARRYING
    return f"{request.id}\n{request.request}\n{group.target if group and is_moved else ''}"


def _known(requests: Sequence[Request]) -> Iterator[tuple[str, str]]:
    """Yield bucket and text of all that is there already."""
    for one in requests:
        yield "en", one.request
        for text in (one.request, *one.redirects):
            yield _bucket(one), text


def _rows(
    job: Job, said: _Said, written: Mapping[str, Sequence[Candidate]]
) -> Iterator[tuple[str, Row | None]]:
    """Yield task and row of each request that was asked for; no row where too little passed."""
    for group in job.groups:
        by_request: dict[int, list[str]] = defaultdict(list)
        for name, item in group.items.items():
            by_request[id(item.request)].append(name)
        for names in by_request.values():
            good = [[one.text for one in written[name] if not one.reason] for name in names]
            yield group.task, _row(group, names, good, said)


def _row(
    group: Group, names: Sequence[str], good: Sequence[Sequence[str]], said: _Said
) -> Row | None:
    source = group.items[names[0]].request
    first, others = good[0], tuple(text for texts in good[1:] for text in texts)
    redirects = {"paraphrase": source.redirects, "rewrite": tuple(first)}.get(group.task, others)
    category = "benign" if group.task == "hard_negative" else source.category
    if not first or (category != "benign" and not redirects):
        return None
    return Row(
        task=group.task, target=group.target, variant=group.variant, parent_id=source.id,
        category=category, context=source.context, redirects=redirects,
        domain=group.target if group.task == "domain" else source.domain,
        language=group.target if group.task == "translate" else "en",
        request=source.request if group.task == "rewrite" else first[0],
        model=said.models[names[0]], prompt_sha256=text_id(group.instruction),
        usd=str(sum((said.usd[name] for name in names), ZERO)),
    )  # fmt: skip


def _counts(
    job: Job,
    said: _Said,
    written: Mapping[str, Sequence[Candidate]],
    rows: Sequence[tuple[str, Row | None]],
) -> dict[str, Any]:
    rejected: defaultdict[str, Counter[str]] = defaultdict(Counter)
    accepted = 0
    for name, texts in written.items():
        reasons = [one.reason for one in texts] or [said.failed.get(name, "empty")]
        rejected[name.partition("/")[0]].update(filter(None, reasons))
        accepted += reasons.count("")
    for task, row in rows:
        rejected[task]["requests without a row"] += row is None
    kept = [row for _, row in rows if row]
    return {
        "requests": len(job.requests),
        "left_out": job.left_out,
        "asked": len(written),
        "accepted": accepted,
        "rows": len(kept),
        "rejected": {task: dict(sorted((+some).items())) for task, some in rejected.items()},
        "by": {
            field: dict(sorted(Counter(getattr(row, field) for row in kept).items()))
            for field in ("task", "language", "category", "domain", "model")
        },
        "prompts": {text_id(group.instruction): group.instruction for group in job.groups},
    }


def _costs(
    store: Store, job: Job, said: _Said, rows: Sequence[tuple[str, Row | None]]
) -> dict[str, str]:
    """Return dollars as text: of all answers when they were bought, and what the ledger says."""
    in_rows = sum((usd(row.usd) for _, row in rows if row), ZERO)
    billed = sum((row.usd for row in store.ledger.rows() if row.work == job.work), ZERO)
    return {
        "work": job.work, "usd": str(sum(said.usd.values(), ZERO)), "usd_in_rows": str(in_rows),
        "usd_billed": str(billed),
    }  # fmt: skip
