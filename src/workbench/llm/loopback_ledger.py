"""What the loopback server counts: tokens, its prompt cache, and dollars by its own prices.

Tokens are UTF-8 bytes / 4, rounded up, per text, and 3 more per message. Prices are entered by hand
in ``loopback_rates.json``: nothing is shared with ``llm.prices``, so that a client's account of its
calls can be checked against the server's.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from workbench.core.money import ZERO
from workbench.llm.messages import Usage

__all__ = ["Block", "Ledger", "PrefixCache", "Row", "ServedModel", "find_model"]

_KINDS = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output")
_TTL_S = {"5m": 300.0, "1h": 3600.0}
_LOOKBACK = 20  # blocks before a breakpoint in which the service looks for an older entry
_REGIONAL = Decimal("1.1")  # Bedrock's regional endpoints cost a tenth more than its global one
_CLOUD_NAME = re.compile(r"^(?:[a-z-]+\.)?anthropic\.|-v\d+(?::\d+)?$|[-@]\d{8}(?=$|-v\d)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A model that the server knows; prices in US dollars per million tokens."""

    name: str
    window: int
    minimum_prefix: int
    """Fewest tokens that the prompt cache keeps."""
    prices: Mapping[str, Decimal]
    long_from: int
    """Prompt tokens above which ``long_prices`` hold for all tokens; 0 for never."""
    long_prices: Mapping[str, Decimal]

    def price(self, usage: Usage, *, is_batch: bool = False, is_regional: bool = False) -> Decimal:
        """Return the US dollars that these tokens cost."""
        is_long = 0 < self.long_from < usage.prompt_tokens
        prices = self.long_prices if is_long else self.prices
        total = sum((prices[kind] * getattr(usage, f"{kind}_tokens") for kind in prices), ZERO)
        return total * (_REGIONAL if is_regional else 1) / (2_000_000 if is_batch else 1_000_000)


@lru_cache(maxsize=256)
def find_model(name: str) -> ServedModel | None:
    """Return the model of a name as any of the services writes it, None if it is unknown."""
    name = _CLOUD_NAME.sub("", name)
    entry = _rates().get(name)
    if entry is None:
        return None
    above = entry.get("above", {})
    prices, long_prices = (
        {kind: Decimal(rates[kind]) for kind in _KINDS if kind in rates} for rates in (entry, above)
    )
    return ServedModel(
        name=name, window=entry["window"], minimum_prefix=entry["prefix"], prices=prices,
        long_from=above.get("prompt_tokens", 0), long_prices=long_prices,
    )  # fmt: skip


@cache
def _rates() -> dict[str, Any]:
    file = Path(__file__).with_name("loopback_rates.json")
    models: dict[str, Any] = json.loads(file.read_text("utf-8"))["models"]
    return models


class Block(NamedTuple):
    """One text of a prompt."""

    text: str
    tokens: int
    ttl: str
    """How long the service shall keep the prompt up to here; empty where no breakpoint is."""


class PrefixCache:
    """The service's prompt cache: prefixes by hash, alive for 5 minutes or an hour after use."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: dict[bytes, tuple[float, float]] = {}

    def look_up(
        self, blocks: Iterable[Block], *, scope: str, minimum: int
    ) -> tuple[Usage, list[tuple[bytes, str]]]:
        """Return how the prompt's tokens are billed, and the entries to :meth:`keep` later."""
        digest, total, read, hit = sha256(scope.encode()), 0, 0, (0, 0, b"")
        breakpoints = list[tuple[int, bytes, str]]()
        for index, block in enumerate(blocks):
            digest.update(f"{len(block.text)}:{block.text}".encode())
            total += block.tokens
            key = digest.digest()
            if self._entries.get(key, (0.0, 0.0))[0] > self._clock():
                hit = (index, total, key)
            if block.ttl and total >= minimum:
                breakpoints.append((total, key, block.ttl))
                if hit[2] and index - hit[0] < _LOOKBACK:
                    read = hit[1]
                    self._touch(hit[2], self._entries[hit[2]][1])
        written, position = {"5m": 0, "1h": 0}, read
        for upto, _, ttl in breakpoints:
            written[ttl] += max(0, upto - position)
            position = max(position, upto)
        usage = Usage(
            input_tokens=total - position, cache_read_tokens=read,
            cache_write_5m_tokens=written["5m"], cache_write_1h_tokens=written["1h"],
        )  # fmt: skip
        return usage, [(key, ttl) for upto, key, ttl in breakpoints if upto > read]

    def keep(self, writes: Iterable[tuple[bytes, str]]) -> None:
        """Make prefixes readable, as the service does once the writing answer has begun."""
        for key, ttl in writes:
            self._touch(key, _TTL_S[ttl])

    def _touch(self, key: bytes, kept_s: float) -> None:
        self._entries[key] = (self._clock() + kept_s, kept_s)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One request for an answer, as the service bills it."""

    at: float
    path: str
    status: int
    """HTTP status; 0 where the connection was closed instead."""
    key: str
    """First 12 hex digits of the API key's sha256."""
    model: str
    usage: Usage
    usd: Decimal
    is_answered: bool
    """False where there was no answer, or it was lost."""
    fault: str
    custom_id: str
    """Of a request in a batch."""
    prompt_sha256: str
    """Of the prompt's texts (tools, schema, system, messages), joined by newlines."""


def _plain(value: Decimal | Usage) -> Any:
    return str(value) if isinstance(value, Decimal) else vars(value)


class Ledger:
    """All rows so far; safe to read from any thread, and by other processes from its file."""

    def __init__(self, *, file: Path | None = None) -> None:
        self._rows: list[Row] = []
        self._lock = threading.Lock()
        self._file = file.open("a", buffering=1, encoding="utf-8") if file else None

    def add(self, row: Row) -> None:
        """Enter a row; the file has it when this returns."""
        with self._lock:
            self._rows.append(row)
            if self._file:
                self._file.write(json.dumps(vars(row), default=_plain) + "\n")

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()

    @property
    def rows(self) -> tuple[Row, ...]:
        """All rows, oldest first."""
        with self._lock:
            return tuple(self._rows)

    def total_usd(self) -> Decimal:
        """Return all dollars billed."""
        return sum((row.usd for row in self.rows), ZERO)

    def answered_usd(self) -> Decimal:
        """Return the dollars billed for answers that were sent whole."""
        return sum((row.usd for row in self.rows if row.is_answered), ZERO)

    def lost_usd(self) -> Decimal:
        """Return the dollars billed for answers that were lost."""
        return sum((row.usd for row in self.rows if not row.is_answered), ZERO)
