"""What planned requests will cost and how long they take, before any money is spent."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from workbench.llm.config import GatewayConfig
from workbench.llm.messages import Request, Usage
from workbench.llm.prices import Prices, most_prompt_tokens
from workbench.store.records import LedgerRow

if TYPE_CHECKING:
    from workbench.llm.spending import Purchase

__all__ = ["Estimate", "Facts", "History", "Range", "estimate", "history_of"]

_SHORTEST_CACHED_TOKENS = 1024
"""Shorter texts are not kept by a service's prompt cache; some models ask for 4,096. Source:
https://platform.claude.com/docs/en/build-with-claude/prompt-caching, checked 2026-11-21."""
_BATCH_S = 3600.0
"""Most batches end within an hour, all within a day. Source:
https://platform.claude.com/docs/en/build-with-claude/batch-processing, checked 2026-11-21."""
_FEWEST_CALLS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What calls of one model and task are like; the defaults are assumed, for English prose."""

    tokens_per_byte_low: float = 0.12
    """19 of 20 calls have more tokens of prompt per byte."""
    tokens_per_byte: float = 0.25
    output_share_low: float = 0.01
    """19 of 20 answers fill more of their ``max_tokens``."""
    output_share: float = 0.5
    latency_s: float = 3.0
    """Median; those of message batches tell nothing."""


History = Mapping[tuple[str, str], Facts]
"""By model and task."""


class Range(NamedTuple):
    """Tokens or dollars."""

    low: Decimal | int
    """If nearly every call turns out small."""
    expected: Decimal | int
    worst: Decimal | int
    """Never exceeded by one attempt at each call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a list of requests will take; an answer that is lost and bought again comes on top."""

    calls: int
    """Requests that will be billed."""
    hits: int
    """Requests whose answer is at hand, or asked for twice in the list."""
    rules: int
    """Requests that need no model."""
    prompt_tokens: Range
    output_tokens: Range
    usd: Range
    seconds: float
    """Expected."""

    def figures(self) -> dict[str, Any]:
        """Return JSON values, as ``store.calls`` keeps them; dollars as text, exact."""
        return {**asdict(self), "usd": [str(dollars) for dollars in self.usd]}


def estimate(
    purchases: Iterable[Purchase],
    *,
    at_hand: Container[str] = (),
    prices: Prices,
    provider: str,
    config: GatewayConfig,
    history: History | None = None,
) -> Estimate:
    """Return what the purchases will cost; spends nothing.

    Args:
        purchases: What asking would mean; of those with the same key, one is bought.
        at_hand: Keys of the answers that are stored already.
        prices: Knows what they cost.
        provider: Whose prices, as ``genai-prices`` names it.
        config: The savings and rates that will hold.
        history: What earlier calls tell, see :func:`history_of`.

    Raises:
        ConfigError: If a model has no known price.
    """
    hits = rules = 0
    due: list[tuple[Request, str]] = []
    seen: set[str] = set()
    for purchase in purchases:
        if purchase.route.tier == "none":
            rules += 1
        elif purchase.key in at_hand or purchase.key in seen:
            hits += 1
        else:
            seen.add(purchase.key)
            due.append((purchase.request, purchase.route.model))
    calls = _calls(due, config=config, history=history or {})
    savings = config.savings

    def dollars(call: _Call, usage: Usage) -> Decimal:
        return prices.price_of(usage, model=call.model, provider=provider, is_batch=savings.batches)

    def worst(call: _Call) -> Decimal:
        return prices.worst_case(
            call.request, model=call.model, provider=provider, is_batch=savings.batches,
            prompt_cache=savings.prompt_cache,
        )  # fmt: skip

    return Estimate(
        calls=len(due),
        hits=hits,
        rules=rules,
        prompt_tokens=_total(
            (c.low.prompt_tokens, c.expected.prompt_tokens, most_prompt_tokens(c.request))
            for c in calls
        ),
        output_tokens=_total(
            (c.low.output_tokens, c.expected.output_tokens, c.request.max_tokens) for c in calls
        ),
        usd=_total((dollars(c, c.low), dollars(c, c.expected), worst(c)) for c in calls),
        seconds=_seconds(calls, config),
    )


def history_of(rows: Iterable[LedgerRow]) -> dict[tuple[str, str], Facts]:
    """Return what calls in the ledger tell, by model and task; too few of a kind tell nothing."""
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = defaultdict(list)
    for row in rows:
        told = row.details
        size, most = told.get("size_bytes", 0), told.get("max_tokens", 0)
        if told.get("outcome") in {"sent", "batch"} and size and most:
            prompt = row.quantity - told["output"]
            call = (prompt / size, told["output"] / most, told["latency_s"])
            found[row.resource, told["task"]].append(call)
    return {key: _facts(calls) for key, calls in found.items() if len(calls) >= _FEWEST_CALLS}


class _Call(NamedTuple):
    """A call to be billed."""

    request: Request
    model: str
    low: Usage
    expected: Usage
    latency_s: float


def _total(rows: Iterable[tuple[Decimal | int, Decimal | int, Decimal | int]]) -> Range:
    return Range(*(sum(column) for column in zip((0, 0, 0), *rows, strict=True)))


def _facts(calls: list[tuple[float, float, float]]) -> Facts:
    ratios, shares, latencies = (sorted(column) for column in zip(*calls, strict=True))
    one_in_twenty = len(calls) // 20
    return Facts(
        tokens_per_byte_low=ratios[one_in_twenty],
        tokens_per_byte=statistics.fmean(ratios),
        output_share_low=shares[one_in_twenty],
        output_share=statistics.fmean(shares),
        latency_s=statistics.median(filter(None, latencies))
        if any(latencies)
        else Facts().latency_s,
    )


def _calls(
    due: list[tuple[Request, str]], *, config: GatewayConfig, history: History
) -> list[_Call]:
    """Return the calls as they will probably be billed, the service's prompt cache included."""
    savings, calls = config.savings, []
    groups = Counter((model, request.system) for request, model in due)
    writers = 1 if savings.prewarm and not savings.batches else savings.parallel
    met: Counter[tuple[str, str]] = Counter()
    for request, model in due:
        group = (model, request.system)
        met[group] += 1
        is_kept = groups[group] > 1 and savings.prompt_cache != "off"
        kept_bytes = len(request.system.encode()) if is_kept else 0
        write = f"cache_write_{savings.prompt_cache}_tokens"
        field = write if met[group] <= writers else "cache_read_tokens"
        facts = history.get((model, request.task), Facts())
        low, expected = (
            _usage(request, ratio=ratio, share=share, kept_bytes=kept_bytes, field=field)
            for ratio, share in (
                (facts.tokens_per_byte_low, facts.output_share_low),
                (facts.tokens_per_byte, facts.output_share),
            )
        )
        calls.append(_Call(request, model, low, expected, facts.latency_s))
    return calls


def _usage(request: Request, *, ratio: float, share: float, kept_bytes: int, field: str) -> Usage:
    prompt, kept = round(ratio * request.size_bytes), round(ratio * kept_bytes)
    output = round(share * request.max_tokens)
    if kept < _SHORTEST_CACHED_TOKENS:
        return Usage(input_tokens=prompt, output_tokens=output)
    return Usage(input_tokens=prompt - kept, output_tokens=output, **{field: kept})


def _seconds(calls: list[_Call], config: GatewayConfig) -> float:
    """Return how long calls take side by side, at the rates that are allowed."""
    if config.savings.batches or not calls:
        return _BATCH_S if calls else 0.0
    rates, latencies = config.rates, [call.latency_s for call in calls]
    spans = [max(latencies), sum(latencies) / config.savings.parallel]
    for model in {call.model for call in calls}:
        own = [call.expected.prompt_tokens for call in calls if call.model == model]
        if rates.requests_per_minute:
            spans.append(60 * len(own) / rates.requests_per_minute)
        if rates.tokens_per_minute:
            spans.append(60 * sum(own) / rates.tokens_per_minute)
    return max(spans)
