"""Writing a shared system text to the service's cache once, before many requests read it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from workbench.core.errors import ModelError
from workbench.llm.config import GatewayConfig
from workbench.llm.messages import Request
from workbench.llm.sender import Sender
from workbench.llm.spending import Purchase
from workbench.llm.stock import Stock

__all__ = ["Prewarm"]

_MIN_CHARACTERS = 4_096
"""Services cache no prompt under 1,024 tokens."""
_FAN_OUT = 2
_TTL_S = {"off": 0.0, "5m": 240.0, "1h": 3_300.0}
"""A little less than the service keeps it."""


class Prewarm:
    """Without it, requests side by side would each write what they share, at the dearer rate."""

    def __init__(self, config: GatewayConfig, *, stock: Stock, sender: Sender) -> None:
        self._is_on = config.savings.prewarm and config.savings.prompt_cache != "off"
        self._ttl_s = _TTL_S[config.savings.prompt_cache]
        self._stock = stock
        self._sender = sender
        self._warm_until: dict[str, float] = {}

    async def write_shared(self, requests: Sequence[Request]) -> None:
        """Write each system text that several of the requests to be bought share; spends money."""
        if not self._is_on:
            return
        seen: Counter[str] = Counter()
        for request in requests:
            if len(request.system) < _MIN_CHARACTERS:
                continue
            purchase = self._stock.purchase(request)
            if purchase.route.tier == "none":
                continue
            warming = self._warming(purchase)
            if seen[warming.key] < _FAN_OUT and not (await self._stock.find(purchase)).answer:
                seen[warming.key] += 1
                if seen[warming.key] == _FAN_OUT:
                    await self._write(warming)

    async def _write(self, warming: Purchase) -> None:
        is_warm = self._warm_until.get(warming.key, 0.0) > time.monotonic()
        if is_warm or (await self._stock.find(warming)).answer:
            return
        self._warm_until[warming.key] = time.monotonic() + self._ttl_s
        with suppress(ModelError):  # it is only cheaper that way
            await self._sender.buy(warming)

    def _warming(self, purchase: Purchase) -> Purchase:
        """Return what writes a purchase's system text, and the schema before it, to the cache."""
        request = replace(
            purchase.request,
            prompt=".",
            history=(),
            model=purchase.route.model,
            namespace="prewarm",
            variant=0,
            max_tokens=1,
        )
        return replace(self._stock.purchase(request), kind="prewarm", ttl_s=self._ttl_s)
