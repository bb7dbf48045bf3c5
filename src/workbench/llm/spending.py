"""Money around a model call: reserved before it is sent, settled after, entered in the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from typing import Any, Literal

from workbench.core.errors import BudgetError
from workbench.core.identity import new_id
from workbench.core.money import ZERO, usd
from workbench.llm.messages import Answer, PromptCache, Reply, Request, Usage
from workbench.llm.prices import Prices
from workbench.llm.router import Route
from workbench.store.calls import Flight, Settlement, StoredAnswer
from workbench.store.journal import Journal
from workbench.store.records import REHEARSAL, LedgerRow, Phase, now

__all__ = ["Account", "Purchase", "Spending", "from_stored", "to_stored"]

_LONGEST_WAIT_S = 1.0
_PATIENCE_S = 2.0
"""How long a call waits for others' money before it says so."""
_MOST_TOKENS = 10_000_000
"""An answer of more, or dearer, is none."""
_MOST_USD = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Who spends, and on what."""

    who: str
    job: str
    experiment: str
    phase: Phase
    work: str
    """Id of the piece of work, the same when it is resumed."""
    owner: str
    """This process, so that others can tell whether it still lives."""

    def is_alike(self, who: str) -> bool:
        """Return whether another spender plays as this one does, or pays as this one does."""
        return who.startswith(REHEARSAL) == self.who.startswith(REHEARSAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Purchase:
    """One answer to be bought."""

    request: Request
    route: Route
    key: str
    miss: str = "absent"
    """Why it is not at hand: ``absent``, ``expired``, ``off``."""
    ttl_s: float | None = None
    is_shared: bool = True
    """Whether other processes may take the answer instead of buying their own."""
    kind: Literal["sent", "batch", "prewarm"] = "sent"

    @property
    def is_batch(self) -> bool:
        """Whether the batch price holds."""
        return self.kind == "batch"


class Spending:
    """Reserves, settles and enters in the ledger; nothing is spent past it."""

    def __init__(
        self,
        journal: Journal,
        prices: Prices,
        account: Account,
        *,
        provider: str,
        prompt_cache: PromptCache,
        clock: Callable[[], float],
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._journal = journal
        self._prices = prices
        self.account = account
        self._provider = provider
        self._prompt_cache = prompt_cache
        self._clock = clock
        self._tell = tell
        self._has_told = False
        self._freed = asyncio.Event()
        self._hits: dict[tuple[str, str, str], tuple[int, Decimal]] = {}

    async def reserve(self, purchase: Purchase) -> Flight | None:
        """Return the flight that holds the worst case, or None where another process has it.

        Waits while only flights in progress stand between the budget and this call.

        Raises:
            BudgetError: If what is billed leaves too little, whatever the flights come to.
        """
        flight = self._flight(purchase.key, purchase.route.model, self.worst(purchase))
        flight = replace(flight, is_shared=purchase.is_shared)
        return flight if await self._claim(flight) else None

    async def reserve_all(self, purchases: Sequence[Purchase], *, batch: str) -> None:
        """Hold the worst case of all purchases of a message batch, under the batch's id.

        Raises:
            BudgetError: As for :meth:`reserve`.
        """
        worst = sum(map(self.worst, purchases), ZERO)
        flight = self._flight(batch, purchases[0].route.model, worst)
        # what the service has outlives this process
        await self._claim(replace(flight, id=batch, is_shared=False, owner=f"batch:{batch}"))

    def worst(self, purchase: Purchase) -> Decimal:
        """Return dollars that one attempt at a purchase never exceeds."""
        return self._prices.worst_case(
            purchase.request,
            model=purchase.route.model,
            provider=self._provider,
            prompt_cache=self._prompt_cache,
            is_batch=purchase.is_batch,
        )

    def _flight(self, key: str, model: str, worst_usd: Decimal) -> Flight:
        account = self.account
        return Flight(
            id=new_id("flight"),
            key=key,
            work=account.work,
            provider=self._provider,
            model=model,
            who=account.who,
            job=account.job,
            experiment=account.experiment,
            phase=account.phase,
            worst_usd=worst_usd,
            owner=account.owner,
            at=now(),
        )

    async def _claim(self, flight: Flight) -> bool:
        asked_at = self._clock()
        while True:
            freed = self._freed
            claim = await self._journal.claim(flight)
            if claim.state in {"granted", "taken"}:
                return claim.state == "granted"
            if claim.state == "denied":
                raise BudgetError(claim.reason)
            if not self._has_told and self._clock() - asked_at > _PATIENCE_S:
                self._has_told = True
                self._tell(f"waiting for calls in flight to end: {claim.reason}")
            try:
                await asyncio.wait_for(freed.wait(), _LONGEST_WAIT_S)
            except TimeoutError:  # a flight of another process may have ended
                continue

    async def settle(
        self,
        flight: str,
        purchase: Purchase,
        reply: Reply,
        *,
        attempts: int = 1,
        is_once: bool = False,
    ) -> Answer:
        """Return the answer, once it and its cost are durable and the flight is over.

        Args:
            flight: Its id; empty where the batch's one flight goes on.
            purchase: What was bought.
            reply: What came.
            attempts: HTTP requests that it took.
            is_once: Enter nothing where this work has an answer to it already.
        """
        usd = self._prices.price_of(
            reply.usage,
            model=purchase.route.model,
            provider=self._provider,
            is_batch=purchase.is_batch,
        )
        details = self._details(purchase, attempts=attempts) | {
            "input": reply.usage.input_tokens,
            "cache_read": reply.usage.cache_read_tokens,
            "cache_write_5m": reply.usage.cache_write_5m_tokens,
            "cache_write_1h": reply.usage.cache_write_1h_tokens,
            "output": reply.usage.output_tokens,
            "bytes_sent": reply.bytes_sent,
            "bytes_received": reply.bytes_received,
            "latency_s": round(reply.latency_s, 4),
            "answered_by": reply.model[:100],
            "request_id": reply.request_id[:100],
        }
        model = purchase.route.model
        row = self._row(model, usd, quantity=reply.usage.total_tokens, details=details)
        answer = Answer(
            text=reply.text,
            stop_reason=reply.stop_reason,
            model=model,
            usage=reply.usage,
            usd=usd,
            outcome="batch" if purchase.is_batch else "sent",
            latency_s=reply.latency_s,
        )
        kept = self._kept(purchase, answer)
        await self._end(Settlement(flight=flight, rows=(row,), answer=kept, is_once=is_once))
        return answer

    async def lose(self, flight: Flight, purchase: Purchase, *, reason: str) -> None:
        """Charge a flight whose answer was lost at its worst case: it may have been billed."""
        row = self._lost(purchase, flight.worst_usd, reason=reason)
        await self._end(Settlement(flight=flight.id, rows=(row,), answer=None))

    async def end_batch(self, batch: str, *, lost: Iterable[tuple[Purchase, Decimal, str]]) -> None:
        """End the one flight of a batch, and charge what was lost of it: (what, at most, why)."""
        rows = tuple(self._lost(what, worst, reason=why) for what, worst, why in lost)
        await self._end(Settlement(flight=batch, rows=rows, answer=None))

    async def release(self, flight: str) -> None:
        """Give back a reservation of which nothing more will be billed."""
        await self._end(Settlement(flight=flight, rows=(), answer=None))

    def count_at_hand(self, purchase: Purchase, answer: Answer, *, saved: Decimal) -> None:
        """Count an answer that cost nothing; many become one ledger row at the next flush."""
        group = (purchase.route.model, purchase.request.task, answer.outcome)
        calls, usd = self._hits.get(group, (0, ZERO))
        self._hits[group] = (calls + 1, usd + saved)

    def flush(self) -> None:
        """Enter the counted answers in the ledger."""
        rows = []
        for (model, task, outcome), (calls, saved) in self._hits.items():
            details = {
                "calls": calls,
                "provider": self._provider,
                "task": task,
                "outcome": outcome,
                "saved_usd": str(saved),
            }
            rows.append(self._row(model or "rule", ZERO, details=details, is_hit=outcome != "rule"))
        self._hits.clear()
        self._journal.note(rows)

    async def _end(self, settlement: Settlement) -> None:
        # shielded: the queue has it, so a caller that gives up changes nothing
        await asyncio.shield(self._journal.settle(settlement))
        self._freed.set()
        self._freed = asyncio.Event()

    def _kept(self, purchase: Purchase, answer: Answer) -> StoredAnswer:
        return StoredAnswer(
            key=purchase.key,
            work=self.account.work,
            namespace=purchase.request.namespace or purchase.request.task,
            expires_at=None if purchase.ttl_s is None else self._clock() + purchase.ttl_s,
            answer=to_stored(answer),
        )

    def _lost(self, purchase: Purchase, worst_usd: Decimal, *, reason: str) -> LedgerRow:
        details = self._details(purchase, attempts=1) | {"outcome": "lost"}
        model = purchase.route.model
        return self._row(model, worst_usd, details=details, is_estimated=True, note=reason[:300])

    def _details(self, purchase: Purchase, *, attempts: int) -> dict[str, Any]:
        return {
            "calls": 1,
            "provider": self._provider,
            "task": purchase.request.task,
            "tier": purchase.route.tier,
            "outcome": purchase.kind,
            "miss": purchase.miss,
            "is_batch": purchase.is_batch,
            "attempts": attempts,
            "size_bytes": purchase.request.size_bytes,
            "max_tokens": purchase.request.max_tokens,
        }

    def _row(
        self,
        model: str,
        usd: Decimal,
        *,
        details: dict[str, Any],
        quantity: float = 0,
        is_estimated: bool = False,
        is_hit: bool = False,
        note: str = "",
    ) -> LedgerRow:
        account = self.account
        return LedgerRow(
            who=account.who,
            job=account.job,
            experiment=account.experiment,
            phase=account.phase,
            work=account.work,
            resource=model,
            quantity=quantity,
            unit="token",
            usd=usd,
            price_version=self._prices.price_version(),
            cache_hit=is_hit,
            estimated=is_estimated,
            note=note,
            details=details,
        )


def to_stored(answer: Answer) -> dict[str, Any]:
    """Return the JSON values of an answer, as the response cache keeps them."""
    return {
        "text": answer.text,
        "stop_reason": answer.stop_reason,
        "model": answer.model,
        "usage": asdict(answer.usage),
        "usd": str(answer.usd),
    }


def from_stored(values: dict[str, Any], *, outcome: Literal["hit", "joined"]) -> Answer:
    """Return the answer that :func:`to_stored` wrote; it costs nothing now.

    Raises:
        KeyError, TypeError, ValueError: If the values are not an answer (a hostile shared cache).
        ConfigError: If its price is no amount of dollars.
    """
    texts = [values[name] for name in ("text", "stop_reason", "model")]
    counts = values["usage"].values() if isinstance(values["usage"], dict) else [None]
    if (
        not all(isinstance(text, str) for text in texts)
        or not all(type(count) is int and 0 <= count <= _MOST_TOKENS for count in counts)
        or not values["model"].isprintable()
        or not 0 <= usd(values["usd"]) <= _MOST_USD
    ):
        raise ValueError("not an answer")
    return Answer(
        text=values["text"],
        stop_reason=values["stop_reason"],
        model=values["model"],
        usage=Usage(**values["usage"]),
        outcome=outcome,
    )
