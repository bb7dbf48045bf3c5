"""What the loopback server counts: tokens, its prompt cache, and dollars by its own prices.

Tokens are UTF-8 bytes / 4, rounded up, per text, and 3 more per message. Prices are entered by hand
in ``rates.json`` and shared with nobody, so that a client's account can be checked against it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from time import time
from typing import Any, NamedTuple

from workbench.core.money import ZERO
from workbench.llm.messages import Usage

__all__ = ["MODELS", "Block", "Ledger", "PrefixCache", "Row", "plain_name", "price"]

_RATES = Path(__file__).with_name("rates.json").read_text("utf-8")
MODELS: dict[str, Any] = json.loads(_RATES, parse_float=Decimal)["models"]
_TTL_S = {"5m": 300.0, "1h": 3600.0}
_CLOUD_NAME = re.compile(r"^(?:[a-z-]+\.)?anthropic\.|-v\d+(?::\d+)?$|[-@]\d{8}(?=$|-v\d)")
_REGIONAL = Decimal("1.1")  # Bedrock's regional endpoints cost a tenth more than its global one


@lru_cache(maxsize=256)
def plain_name(name: str) -> str:
    """Return the name under which ``MODELS`` has a model, as any of the services writes it."""
    return _CLOUD_NAME.sub("", name)


def price(usage: Usage, *, model: str, is_batch: bool = False) -> Decimal:
    """Return the US dollars that tokens cost of a model as the service names it."""
    usd = MODELS[plain_name(model)]
    if "above" in usd and usage.prompt_tokens > usd["above"]["prompt_tokens"]:
        usd = usd["above"]
    kinds = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output")
    total = sum((usd.get(kind, 0) * getattr(usage, f"{kind}_tokens") for kind in kinds), ZERO)
    is_regional = "anthropic." in model and not model.startswith("global.")
    return total * (_REGIONAL if is_regional else 1) / (2_000_000 if is_batch else 1_000_000)


class Block(NamedTuple):
    """One text of a prompt."""

    text: str
    tokens: int
    ttl: str
    """How long the service shall keep the prompt up to here; empty where no breakpoint is."""


class PrefixCache:
    """The service's prompt cache: prefixes by hash, alive for 5 minutes or an hour after use.

    It looks for a prefix where a breakpoint is; the services look some blocks back, too.
    """

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kept: dict[bytes, tuple[float, str]] = {}

    def look_up(
        self, blocks: Iterable[Block], *, scope: str, minimum: int
    ) -> tuple[Usage, dict[bytes, str]]:
        """Return how the prompt's tokens are billed, and what to :meth:`keep` later."""
        digest, total, read, upto = sha256(scope.encode()), 0, 0, 0
        written, new = Counter[str](), dict[bytes, str]()
        for block in blocks:
            digest.update(f"{len(block.text)}:{block.text}".encode())
            total += block.tokens
            if not block.ttl or total < minimum:
                continue
            key = digest.digest()
            expiry, ttl = self._kept.get(key, (0.0, ""))
            if expiry > self._clock():  # what lies before it is a part of it
                self.keep({key: ttl})
                read, written, new = total, Counter(), {}
            else:
                written[block.ttl] += total - upto
                new[key] = block.ttl
            upto = total
        usage = Usage(
            input_tokens=total - upto, cache_read_tokens=read,
            cache_write_5m_tokens=written["5m"], cache_write_1h_tokens=written["1h"],
        )  # fmt: skip
        return usage, new

    def keep(self, prefixes: Mapping[bytes, str]) -> None:
        """Make prefixes readable, as the service does once the writing answer has begun."""
        for key, ttl in prefixes.items():
            self._kept[key] = (self._clock() + _TTL_S[ttl], ttl)


@dataclass(kw_only=True)
class Row:
    """One request for an answer, as the service bills it; complete once it is in the ledger."""

    at: float = field(default_factory=time)
    path: str = ""
    status: int = 200
    """HTTP status; 0 where the connection was closed instead."""
    key: str = ""
    """First 12 hex digits of the API key's sha256."""
    model: str = ""
    prompt_sha256: str = ""
    """Of the prompt's texts (tools, schema, system, messages), joined by newlines."""
    custom_id: str = ""
    """Of a request in a batch."""
    fault: str = ""
    usage: Usage = field(default_factory=Usage)
    usd: Decimal = ZERO
    is_answered: bool = False
    """False where there was no answer, or it was lost."""


class Ledger:
    """All rows so far; other processes read them from its file."""

    def __init__(self, *, file: Path | None = None) -> None:
        self.rows: list[Row] = []
        """All rows, oldest first."""
        self._file = file.open("a", buffering=1, encoding="utf-8") if file else None

    def add(self, row: Row) -> None:
        """Enter a row; the file has it when this returns."""
        self.rows.append(row)
        if self._file:
            self._file.write(json.dumps(vars(row), default=_plain) + "\n")

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()

    def total_usd(self) -> Decimal:
        """Return all dollars billed."""
        return sum((row.usd for row in self.rows), ZERO)

    def answered_usd(self) -> Decimal:
        """Return the dollars billed for answers that were sent whole."""
        return sum((row.usd for row in self.rows if row.is_answered), ZERO)

    def lost_usd(self) -> Decimal:
        """Return the dollars billed for answers that were lost."""
        return self.total_usd() - self.answered_usd()


def _plain(value: Decimal | Usage) -> Any:
    return str(value) if isinstance(value, Decimal) else vars(value)
