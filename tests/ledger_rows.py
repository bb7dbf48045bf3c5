"""Ledger rows as the gateway writes them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from workbench.store.records import LedgerRow

__all__ = ["hit_row", "model_row"]


def model_row(*, usd: str = "0.01", outcome: str = "sent", **values: Any) -> LedgerRow:
    """Return the row of one call; unknown values go into its details."""
    own = {name: values.pop(name) for name in list(values) if name in LedgerRow.__annotations__}
    details = {
        "calls": 1, "provider": "anthropic", "task": "summary", "tier": "cheap", "input": 1000,
        "cache_read": 200, "cache_write_5m": 50, "cache_write_1h": 0, "output": 100,
        "bytes_sent": 5000, "bytes_received": 700, "latency_s": 0.4, "attempts": 1,
        "outcome": outcome, "miss": "absent", "is_batch": outcome == "batch",
    } | values  # fmt: skip
    kinds = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output")
    usual = {
        "who": "tester", "job": "run-1", "experiment": "sweep", "phase": "execution", "work": "w",
        "resource": "claude-haiku-5-5", "unit": "token", "price_version": "p/1",
        "quantity": float(sum(details[kind] for kind in kinds)),
    }  # fmt: skip
    return LedgerRow(**{**usual, **own}, usd=Decimal(usd), details=details)


def hit_row(*, calls: int = 1, saved_usd: str = "0", outcome: str = "hit", **own: Any) -> LedgerRow:
    """Return the row of answers that cost nothing."""
    details = {"calls": calls, "provider": "anthropic", "task": "summary", "outcome": outcome}
    row = model_row(usd="0", quantity=0.0, cache_hit=outcome != "rule", **own)
    return LedgerRow(**{**vars(row), "details": details | {"saved_usd": saved_usd}})
