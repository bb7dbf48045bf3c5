"""What is asked for in message batches, and what of it is written down with each batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from workbench.core.errors import ModelError
from workbench.llm.messages import Answer, Request
from workbench.llm.router import Route
from workbench.llm.spending import Purchase

__all__ = ["Order", "Outcome", "noted", "parts_of", "to_note"]

Outcome = Answer | ModelError

_MOST_REQUESTS = 10_000
_MOST_BYTES = 80_000_000
"""Of text per batch; the service takes 256 MB of JSON, which may write a byte as three."""


class Order:
    """Purchases by key, and what became of the requests behind them; equal ones share a key."""

    def __init__(
        self, purchases: Sequence[Purchase], on_answer: Callable[[int, Outcome], None] | None
    ) -> None:
        self.purchases = {purchase.key: purchase for purchase in purchases}
        self._positions: dict[str, list[int]] = {}
        for position, purchase in enumerate(purchases):
            self._positions.setdefault(purchase.key, []).append(position)
        self._outcomes: dict[int, Outcome] = {}
        self._on_answer = on_answer

    def keep(
        self, key: str, outcome: Outcome, *, again: Callable[[], Outcome] | None = None
    ) -> None:
        """Keep the outcome of a key's first request; equal ones get what ``again`` gives."""
        for number, position in enumerate(self._positions.get(key, ())):
            given = again() if number and again else outcome
            self._outcomes[position] = given
            if self._on_answer:
                self._on_answer(position, given)

    def missing(self) -> list[Purchase]:
        """Return what has no outcome yet."""
        positions = self._positions
        return [
            one for key, one in self.purchases.items() if positions[key][0] not in self._outcomes
        ]

    def outcomes(self) -> list[Outcome]:
        """Return an outcome per request, in their order."""
        return [outcome for _, outcome in sorted(self._outcomes.items(), key=lambda one: one[0])]


def parts_of(purchases: Sequence[Purchase]) -> Iterator[list[Purchase]]:
    """Give purchases in parts that one batch may hold."""
    part: list[Purchase] = []
    room = _MOST_BYTES
    for purchase in purchases:
        room -= purchase.request.size_bytes
        if part and (room < 0 or len(part) == _MOST_REQUESTS):
            yield part
            part, room = [], _MOST_BYTES - purchase.request.size_bytes
        part.append(purchase)
    if part:
        yield part


def to_note(purchase: Purchase, *, worst_usd: Decimal) -> dict[str, Any]:
    """Return what settling takes, as JSON: whoever collects a batch may not have its requests."""
    request = purchase.request
    return {
        "model": purchase.route.model,
        "tier": purchase.route.tier,
        "task": request.task,
        "namespace": request.namespace,
        "miss": purchase.miss,
        "ttl_s": purchase.ttl_s,
        "size_bytes": request.size_bytes,
        "max_tokens": request.max_tokens,
        "worst_usd": str(worst_usd),
    }


def noted(key: str, note: Mapping[str, Any]) -> Purchase:
    """Return a purchase that settles as the noted one; its request is as long, but has no text."""
    return Purchase(
        request=Request(
            prompt="." * note["size_bytes"],
            task=note["task"],
            namespace=note["namespace"],
            max_tokens=note["max_tokens"],
        ),
        route=Route(tier=note["tier"], model=note["model"], reason="noted"),
        key=key,
        miss=note["miss"],
        ttl_s=note["ttl_s"],
        is_shared=False,
        kind="batch",
    )
