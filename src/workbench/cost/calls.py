"""What model calls cost: counted from the ledger, set beside their estimates, priced anew."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, Literal

from workbench.core.money import ZERO, usd
from workbench.llm.messages import Usage
from workbench.llm.prices import Prices
from workbench.store.database import Store
from workbench.store.ledger import TOKEN
from workbench.store.records import REHEARSAL, LedgerRow
from workbench.store.results import CallsResult, CallsRow, EstimateRow

__all__ = [
    "BILLED", "By", "calls_of", "count_calls", "estimate_vs_truth", "is_rehearsal", "reprice",
    "summarize", "summary",
]  # fmt: skip

By = Literal["phase", "model", "task", "person", "day"]

BILLED = ("sent", "batch", "prewarm", "lost")
"""Outcomes of calls that went to a service; the others are ``hit``, ``joined`` and ``rule``."""
_TOKENS = {
    "input_tokens": ("input", "cache_write_5m", "cache_write_1h"),
    "cached_tokens": ("cache_read",),
    "output_tokens": ("output",),
    "bytes_sent": ("bytes_sent",),
    "bytes_received": ("bytes_received",),
}


def calls_of(rows: Sequence[LedgerRow]) -> CallsResult:
    """Return the model calls among ledger rows, as ``store.results.CostResult`` tells them."""
    return {
        "by_phase": summarize(rows, by="phase"),
        "by_model": summarize(rows, by="model"),
        "by_task": summarize(rows, by="task"),
        "total": summary("total", rows),
    }


def summarize(rows: Iterable[LedgerRow], *, by: By) -> list[CallsRow]:
    """Return model calls by group, dearest first; days in their order.

    Args:
        rows: Rows of a ledger; those that are no model calls are left out.
        by: What to group by; a person is who paid, a day is in UTC.
    """
    groups: dict[str, list[LedgerRow]] = defaultdict(list)
    for row in rows:
        if row.unit == TOKEN:
            groups[_group(row, by)].append(row)
    found = [summary(group, members) for group, members in groups.items()]
    if by == "day":
        return sorted(found, key=lambda one: one["group"])
    return sorted(found, key=lambda one: (-one["usd"], one["group"]))


def count_calls(row: LedgerRow) -> tuple[str, int]:
    """Return the outcome of a ledger row of model calls, and how many it stands for."""
    return str(row.details.get("outcome", "sent")), int(row.details.get("calls", 1))


def is_rehearsal(row: LedgerRow) -> bool:
    """Return whether nobody pays this row: its calls went to the loopback server."""
    return row.who.startswith(REHEARSAL)


def estimate_vs_truth(store: Store, experiment: str) -> list[EstimateRow]:
    """Return each estimate of an experiment beside what its work was billed, oldest first.

    An estimate counts until the next one of the same work, which is made when it resumes.
    """
    rows = [row for row in store.ledger.rows(experiment=experiment) if row.unit == TOKEN]
    found: list[EstimateRow] = []
    resumed: dict[str, str] = {}
    for estimate in reversed(store.calls.estimates(experiment)):
        start, end = estimate["at"], resumed.get(estimate["work"], "~")
        own = [row for row in rows if row.work == estimate["work"] and start <= row.at < end]
        found.append(_compared(estimate, own, is_last=estimate["work"] not in resumed))
        resumed[estimate["work"]] = start
    return found[::-1]


def reprice(rows: Iterable[LedgerRow], prices: Prices) -> list[LedgerRow]:
    """Return the rows with what their tokens would cost today; the ledger stays as it is.

    Answers that cost nothing stay free, and what was lost keeps its estimate.

    Raises:
        ConfigError: If a model has no known price today.
    """
    return [_repriced(row, prices) for row in rows]


def _repriced(row: LedgerRow, prices: Prices) -> LedgerRow:
    told = row.details
    if row.unit != TOKEN or told.get("outcome") not in {"sent", "batch", "prewarm"}:
        return row
    kinds = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output")
    usage = Usage(**{f"{kind}_tokens": told.get(kind, 0) for kind in kinds})
    is_batch, provider = bool(told.get("is_batch")), told["provider"]
    today = prices.price_of(usage, model=row.resource, provider=provider, is_batch=is_batch)
    return replace(row, usd=today, price_version=prices.price_version())


def _group(row: LedgerRow, by: By) -> str:
    if by == "task":
        return str(row.details.get("task", "other"))
    return {"phase": row.phase, "model": row.resource, "person": row.who, "day": row.at[:10]}[by]


def summary(group: str, rows: Iterable[LedgerRow]) -> CallsRow:
    """Return all model calls among ledger rows as one row of that name."""
    outcomes: Counter[str] = Counter()
    misses: Counter[str] = Counter()
    amounts: Counter[str] = Counter()
    dollars = saved = ZERO
    for row in rows:
        if row.unit != TOKEN:
            continue
        outcome, calls = count_calls(row)
        outcomes[outcome] += calls
        if outcome in {"sent", "batch"} and (reason := row.details.get("miss")):
            misses[str(reason)] += calls
        for name, parts in _TOKENS.items():
            amounts[name] += sum(int(row.details.get(part, 0)) for part in parts)
        dollars += row.usd
        saved += usd(row.details.get("saved_usd", 0))
    hits = outcomes["hit"] + outcomes["joined"]
    asked = hits + outcomes["sent"] + outcomes["batch"]
    return CallsRow(
        group=group,
        calls=sum(outcomes[outcome] for outcome in BILLED),
        lost=outcomes["lost"],
        hits=hits,
        rules=outcomes["rule"],
        hit_share=hits / asked if asked else 0.0,
        misses=dict(misses),
        input_tokens=amounts["input_tokens"],
        cached_tokens=amounts["cached_tokens"],
        output_tokens=amounts["output_tokens"],
        usd=float(dollars),
        saved_usd=float(saved),
        bytes_sent=amounts["bytes_sent"],
        bytes_received=amounts["bytes_received"],
    )


def _compared(estimate: dict[str, Any], rows: Sequence[LedgerRow], *, is_last: bool) -> EstimateRow:
    figures = estimate["figures"]
    low, expected, worst = (Decimal(value) for value in figures["usd"])
    billed = sum((row.usd for row in rows), ZERO)
    counted = map(count_calls, rows)
    calls = sum(count for outcome, count in counted if outcome in {"sent", "batch"})
    verdict: Literal["within", "below", "above", "cut short"] = "within"
    if billed > worst:
        verdict = "above"
    elif calls < figures["calls"] and not is_last:
        verdict = "cut short"
    elif billed < low:
        verdict = "below"
    return EstimateRow(
        work=estimate["work"],
        phase=estimate["phase"],
        at=estimate["at"],
        expected_calls=figures["calls"],
        calls=calls,
        low_usd=float(low),
        expected_usd=float(expected),
        worst_usd=float(worst),
        usd=float(billed),
        ratio=float(billed / expected) if expected else 0.0,
        verdict=verdict,
    )
