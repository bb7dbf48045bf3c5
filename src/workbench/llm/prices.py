"""What model calls cost: exact dollars from ``genai-prices``, or from a price file of one's own.

A price file goes before the shipped prices, e.g. for a local server; in dollars per million tokens,
where a price of 0 has to be written. What it leaves out costs as much as ``input``::

    {"version": "2026-11", "models": {"llama-local": {"input": "0.25", "output": "1.25",
     "cache_read": "0.025", "cache_write_5m": "0.3", "cache_write_1h": "0.5",
     "batch_factor": "0.5", "source": "https://…", "checked": "2026-11-21"}}}
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from workbench.core.errors import ConfigError
from workbench.core.fields import refuse_unknown
from workbench.core.money import ZERO, usd
from workbench.llm.messages import PromptCache, Request, Usage

if TYPE_CHECKING:
    from genai_prices.types import ModelPrice

__all__ = ["Prices", "most_prompt_tokens"]

_TOKENS_PER_MESSAGE, _TOKENS_PER_CALL, _TOKENS_OF_SCHEMA = 16, 64, 512
_KINDS = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")
_REQUIRED = ("input", "output", "source", "checked")


class _Rates(NamedTuple):
    """Dollars per token, and per call."""

    input: Decimal
    output: Decimal
    cache_read: Decimal
    cache_write_5m: Decimal
    cache_write_1h: Decimal
    call: Decimal = ZERO

    def price(self, usage: Usage) -> Decimal:
        written = self.cache_write_5m * usage.cache_write_5m_tokens
        written += self.cache_write_1h * usage.cache_write_1h_tokens
        prompt = self.input * usage.input_tokens + self.cache_read * usage.cache_read_tokens
        return self.call + prompt + written + self.output * usage.output_tokens

    def worst(self, prompt: int, output: int, prompt_cache: PromptCache) -> Decimal:
        writes = {"off": (), "5m": self[3:4], "1h": self[3:5]}[prompt_cache]
        dearest = max(self.input, self.cache_read, *writes)
        return self.call + dearest * prompt + self.output * output


_Tariff = list[tuple[int, _Rates]]
"""Prompt tokens above which rates hold, for all tokens of the call; lowest first."""


def most_prompt_tokens(request: Request) -> int:
    """Return a bound on the prompt tokens of a request.

    A byte-level tokenizer makes at most one token of a byte; the service adds some per message and
    per call, and a system text of its own (up to 346 tokens) where a schema is given. Source:
    https://platform.claude.com/docs/en/agents-and-tools/tool-use/overview
    """
    messages = 1 + len(request.history) + bool(request.system)
    own = _TOKENS_PER_CALL + (_TOKENS_OF_SCHEMA if request.schema else 0)
    return request.size_bytes + _TOKENS_PER_MESSAGE * messages + own


class Prices:
    """Prices of all models; one that is unknown is refused, never taken for 0.

    Raises:
        ConfigError: If the price file cannot be read or says something that makes no sense.
    """

    def __init__(
        self, override: Path | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._version = f"genai-prices/{version('genai-prices')}"
        self._own: dict[tuple[str, bool], _Tariff] = {}
        if override is not None:
            name, self._own = _read(override)
            self._version = f"{override.name[:60]}/{name}+{self._version}"
        self._clock = clock
        self._minute = 0
        self._shipped: dict[tuple[str, str, bool], _Tariff] = {}

    def price_of(
        self, usage: Usage, *, model: str, provider: str, is_batch: bool = False
    ) -> Decimal:
        """Return the dollars that a call costs at this moment, exactly.

        Raises:
            ConfigError: If no price is known.
        """
        tariff, prompt = self._tariff(model, provider, is_batch), usage.prompt_tokens
        return next((r for start, r in reversed(tariff) if prompt > start)).price(usage)

    def worst_case(
        self, request: Request, *, model: str, provider: str, prompt_cache: PromptCache,
        is_batch: bool = False,
    ) -> Decimal:  # fmt: skip
        """Return dollars that one attempt at a request never exceeds, at the prices of now.

        Raises:
            ConfigError: If no price is known.
        """
        prompt, tariff = most_prompt_tokens(request), self._tariff(model, provider, is_batch)
        reached = [rates for start, rates in tariff if prompt > start]
        return max(rates.worst(prompt, request.max_tokens, prompt_cache) for rates in reached)

    def price_version(self) -> str:
        """Return where prices come from: the price file, then the shipped table."""
        return self._version

    def _tariff(self, model: str, provider: str, is_batch: bool) -> _Tariff:
        if own := self._own.get((model, is_batch)):
            return own
        minute = int(self._clock() // 60)
        if minute != self._minute:  # some prices change with the date or the time of day
            self._minute, self._shipped = minute, {}
        shipped, key = self._shipped, (model, provider, is_batch)
        if key not in shipped:
            shipped[key] = self._look_up(*key)
        return shipped[key]

    def _look_up(self, model: str, provider: str, is_batch: bool) -> _Tariff:
        from genai_prices import Usage as Tokens
        from genai_prices import calc_price

        moment = datetime.fromtimestamp(self._clock(), UTC)
        context = {"processing": "batch"} if is_batch else {}
        try:
            found = calc_price(
                Tokens(), model, provider_id=provider, genai_request_timestamp=moment,
                price_context=context,
            )  # fmt: skip
        except LookupError:
            tariff = []
        else:
            tariff = _measure(found.model_price)
        if tariff and all(rates.input and rates.output for _, rates in tariff):
            return tariff
        raise ConfigError(
            f"no price above 0 known for model {model[:100]!r} of provider {provider[:40]!r} in"
            f" {self._version}; correct the name, or write its dollars per million tokens to a"
            ' JSON file named by llm.price_file: {"version": "2026-11", "models": {'
            f'{json.dumps(model[:100])}: {{"input": "…", "output": "…", "source": "…", "checked":'
            ' "2026-11-21"}}}'
        )


def _measure(price: ModelPrice) -> _Tariff:
    """Return the rates that the library itself applies, asked token by token in each tier."""
    from genai_prices import Usage as Tokens
    from genai_prices.types import TieredPrices

    def total(prompt: int, **tokens: int) -> Decimal:
        return price.calc_price(Tokens(input_tokens=prompt, **tokens))["total_price"]

    tiered = [value for value in vars(price).values() if isinstance(value, TieredPrices)]
    tariff = []
    for start in (-1, *sorted({tier.start for value in tiered for tier in value.tiers})):
        base, prompt = total(start + 1), start + 2
        token = total(prompt) - base
        rates = _Rates(
            input=token,
            output=total(start + 1, output_tokens=1) - base,
            cache_read=total(prompt, cache_read_tokens=1) - base,
            cache_write_5m=total(prompt, cache_write_tokens=1, cache_write_5m_tokens=1) - base,
            cache_write_1h=total(prompt, cache_write_tokens=1, cache_write_1h_tokens=1) - base,
            call=base - token * (start + 1),
        )
        tariff.append((start, rates))
    return tariff


def _read(file: Path) -> tuple[str, dict[tuple[str, bool], _Tariff]]:
    """Return the version of a price file, and its tariffs by model and whether in a batch."""
    try:
        table = json.loads(file.read_text(encoding="utf-8"), parse_float=Decimal)
        name, models = str(table["version"])[:60], table["models"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"price file {file}: {error!r}; write version and models") from None
    tariffs: dict[tuple[str, bool], _Tariff] = {}
    for model, entry in models:
        where = f"price file {file}, model {model[:100]!r}"
        rates, factor = _rates(entry, where=where)
        halved = _Rates(*(rate * factor for rate in rates))
        tariffs |= {(model, False): [(-1, rates)], (model, True): [(-1, halved)]}
    return name, tariffs


def _rates(entry: Any, *, where: str) -> tuple[_Rates, Decimal]:
    """Return the rates that a price file says, and what share of them a batch costs."""
    fields: dict[str, Any] = entry if isinstance(entry, dict) else {}
    refuse_unknown(fields, known=(*_KINDS, "batch_factor", "source", "checked"), where=where)
    missing = [name for name in _REQUIRED if fields.get(name) in (None, "")]
    if missing:
        raise ConfigError(f"{where}: {', '.join(missing)} missing; a price is never guessed")
    try:
        numbers = [usd(fields.get(name, fields["input"])) for name in _KINDS]
        factor = usd(fields.get("batch_factor", 1))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    if min(factor, *numbers) < 0:
        raise ConfigError(f"{where}: a price is below 0; write 0 or more")
    return _Rates(*(number / 1_000_000 for number in numbers)), factor
