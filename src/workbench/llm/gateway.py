"""The gateway: the one way to ask a model, and to know what it will cost and what it did.

::

    async with open_gateway(store, phase="generation") as gateway:
        print(await gateway.estimate(requests))
        answers = await gateway.map(requests)
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from workbench.core.errors import ConfigError, ModelError, WorkbenchError
from workbench.core.money import ZERO, show_usd
from workbench.core.settings import Secret, is_loopback, read_keys
from workbench.llm.batches import Batches
from workbench.llm.cache import open_cache
from workbench.llm.config import GatewayConfig, read_config
from workbench.llm.estimate import Estimate, estimate, history_of
from workbench.llm.limits import KeyPool
from workbench.llm.messages import Answer, Request, Usage
from workbench.llm.off_peak import OffPeak
from workbench.llm.prewarm import Prewarm
from workbench.llm.prices import Prices
from workbench.llm.router import Route, Router
from workbench.llm.sender import Sender
from workbench.llm.shared_limits import shared_rates
from workbench.llm.spending import Account, Purchase, Spending
from workbench.llm.stock import Stock
from workbench.llm.telemetry import Spans, spans
from workbench.llm.transport import Transport, is_rehearsal, open_transport
from workbench.store.database import Store
from workbench.store.journal import Journal
from workbench.store.owners import this_process
from workbench.store.records import REHEARSAL, Phase

__all__ = ["Gateway", "OnAnswer", "Outcome", "open_gateway"]

Outcome = Answer | ModelError
OnAnswer = Callable[[int, Outcome], None]
_Landing = asyncio.Future[Answer | WorkbenchError | None]

_HISTORY = 10_000
"""Earlier calls that an estimate looks at."""
_POLL_S = (0.05, 1.0)
"""First and longest pause between looks at a flight of another process."""


class Gateway:
    """Asks models; made by :func:`open_gateway`.

    Args:
        config: What to spend on, and how.
        router, stock, spending, sender, batches, prices: Its parts, each on its own.
        store: Remembers earlier calls and estimates.
        spans: Traces, if anybody listens.
    """

    def __init__(
        self,
        config: GatewayConfig,
        *,
        router: Router,
        stock: Stock,
        spending: Spending,
        sender: Sender,
        batches: Batches,
        prices: Prices,
        store: Store,
        spans: Spans,
    ) -> None:
        self._config = config
        self._router = router
        self._stock = stock
        self._spending = spending
        self._sender = sender
        self._batches = batches
        self._prices = prices
        self._store = store
        self._spans = spans
        self._flying: dict[str, _Landing] = {}
        self._prewarm = Prewarm(config, stock=stock, sender=sender)

    async def ask(
        self,
        request: Request,
        *,
        rule: Callable[[Request], str] | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Answer:
        """Return the answer to one request; spends money unless it is at hand.

        Args:
            request: What to ask.
            rule: Answers where the route says that no model is needed.
            on_text: Called with each piece of text as it arrives, once for an answer at hand; a
                fault after the first piece is final, since text that was shown cannot be taken
                back.

        Raises:
            BudgetError: If a budget leaves too little; nothing was sent.
            ModelError: If the service gave no usable answer.
            ConfigError: If the route needs a rule and none is given, or no model or price is known.
        """
        purchase = self._stock.purchase(request, is_counted=True)
        if purchase.route.tier == "none":
            return self._by_rule(purchase, rule)
        with self._spans.chat(request, purchase.route) as span:
            answer = await self._fly(purchase, on_text)
            span.end(answer)
        if on_text and answer.outcome in {"hit", "joined"}:
            on_text(answer.text)
        return answer

    async def map(
        self,
        requests: Iterable[Request],
        *,
        rule: Callable[[Request], str] | None = None,
        on_answer: OnAnswer | None = None,
    ) -> list[Outcome]:
        """Return an answer, or the reason that there is none, per request and in their order.

        Args:
            requests: Read as workers become free; any length.
            rule: As for :meth:`ask`.
            on_answer: Called with position and outcome as they come.

        Raises:
            BudgetError: At the limit: no new call starts, those in flight end and are kept.
            StoreError: Likewise.
            InputError: If a request cannot be asked; nothing was sent.
        """
        listed = list(requests)
        self._check(listed, has_rule=rule is not None)
        if self._config.savings.batches:
            return await self._batches.answer(
                listed, by_rule=partial(self._by_rule, rule=rule), on_answer=on_answer
            )
        await self._prewarm.write_shared(listed)
        outcomes: list[Outcome | None] = [None] * len(listed)
        positions = iter(range(len(listed)))
        stop: list[WorkbenchError] = []

        async def work() -> None:
            for position in positions:
                if stop:
                    return
                try:
                    outcome: Outcome = await self.ask(listed[position], rule=rule)
                except ModelError as error:
                    outcome = error
                except WorkbenchError as error:
                    stop.append(error)
                    return
                outcomes[position] = outcome
                if on_answer:
                    on_answer(position, outcome)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._sender.width, len(listed))):
                group.create_task(work())
        if stop:
            raise stop[0]
        return [outcome for outcome in outcomes if outcome is not None]

    def _check(self, requests: Sequence[Request], *, has_rule: bool) -> None:
        """Refuse a list with a request that has no route, price or rule, before any is sent."""
        priced: set[str] = set()
        for request in requests:
            route = self._router.route(request)
            if route.tier == "none" and not has_rule:
                raise _no_rule(request, route)
            if route.tier != "none" and route.model not in priced:
                self._prices.price_of(Usage(), model=route.model, provider=self._sender.provider)
                priced.add(route.model)

    async def estimate(self, requests: Iterable[Request], *, is_kept: bool = True) -> Estimate:
        """Return what requests will take, before any of it is spent.

        Args:
            requests: As they would be asked.
            is_kept: Whether the report shall compare it with what the work then really took.

        Raises:
            ConfigError: If no model, or no price of it, is known.
        """
        planned = self._stock.planned(requests)
        at_hand = {one.key for one in planned if (await self._stock.find(one)).answer}
        rows = await asyncio.to_thread(self._store.ledger.rows, newest_calls=_HISTORY)
        found = estimate(
            planned,
            at_hand=at_hand,
            prices=self._prices,
            provider=self._sender.provider,
            config=self._config,
            history=history_of(row for row in rows if self._spending.account.is_alike(row.who)),
        )
        if not is_kept:
            return found
        account = self._spending.account
        await asyncio.to_thread(
            self._store.calls.add_estimate,
            found.figures(),
            work=account.work,
            job=account.job,
            experiment=account.experiment,
            phase=account.phase,
        )
        return found

    async def close(self) -> None:
        """End: enter what was counted and close the connections."""
        self._spending.flush()
        try:
            await self._sender.close()
            await self._stock.close()
        finally:
            self._spans.close()

    async def _fly(self, purchase: Purchase, on_text: Callable[[str], None] | None) -> Answer:
        """Buy once, however many ask at the same time."""
        while (flying := self._flying.get(purchase.key)) is not None:
            landed = await asyncio.shield(flying)
            if isinstance(landed, Answer):
                return self._stock.join(purchase, landed)
            if landed is not None:
                raise landed
        found = await self._stock.find(purchase)
        if found.answer:
            return self._stock.take(purchase, found)
        if purchase.key in self._flying:  # somebody took off while we looked
            return await self._fly(purchase, on_text)
        future: _Landing = asyncio.get_running_loop().create_future()
        self._flying[purchase.key] = future
        landing: Answer | WorkbenchError | None = None  # None: cancelled, the next one flies
        try:
            landing = await self._buy(replace(purchase, miss=found.miss), on_text)
        except WorkbenchError as error:
            landing = error
            raise
        finally:
            del self._flying[purchase.key]
            future.set_result(landing)
        return landing

    async def _buy(self, purchase: Purchase, on_text: Callable[[str], None] | None) -> Answer:
        found = await self._stock.lease(purchase)
        answer = None
        pause, longest = _POLL_S
        while not found.answer:
            try:
                answer = await self._sender.buy(purchase, on_text=on_text)
            finally:
                await self._stock.share(purchase, answer)
            if answer:
                return answer
            # another process has this very request in flight
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)
            found = await self._stock.find(purchase)
        return self._stock.take(purchase, found)

    def _by_rule(self, purchase: Purchase, rule: Callable[[Request], str] | None) -> Answer:
        request = purchase.request
        if rule is None:
            raise _no_rule(request, purchase.route)
        answer = Answer(
            text=rule(request), stop_reason="end_turn", model="", usage=Usage(), outcome="rule"
        )
        self._spending.count_at_hand(purchase, answer, saved=ZERO)
        return answer


@asynccontextmanager
async def open_gateway(
    store: Store,
    *,
    phase: Phase,
    work: str = "",
    config: GatewayConfig | None = None,
    transport: Transport | None = None,
    tell: Callable[[str], None] = print,
) -> AsyncIterator[Gateway]:
    """Give the gateway of this process, and close it.

    Args:
        store: The open store: its settings say who spends, for which run and experiment.
        phase: What the calls are for.
        work: Id of the piece of work, the same when it is resumed; the run's fingerprint if empty.
        config: How to spend; that of the experiment or of ``WORKBENCH_LLM`` if not given.
        transport: The service; the configured one if not given.
        tell: Called with a line when calls are held, e.g. until the off-peak window opens.

    Raises:
        ConfigError: If there is no key, the service cannot be reached offline, or a value of the
            configuration makes no sense.
    """
    settings = store.settings
    config = config or read_config(settings)
    is_played = transport is None and await asyncio.to_thread(is_rehearsal, config)
    account = Account(
        who=(REHEARSAL if is_played else "") + settings.user,
        job=settings.run_id,
        experiment=settings.experiment or ("rehearsal" if is_played else "by-hand"),
        phase=phase,
        work=work or settings.fingerprint,
        owner=this_process(),
    )
    is_given = transport is not None
    keys = (Secret(""),) if transport else _keys(config)
    transport = transport or open_transport(config, settings=settings)
    if lost := await asyncio.to_thread(store.calls.recover):
        charged = show_usd(sum((flight.worst_usd for flight in lost), ZERO))
        tell(
            f"calls lost with their process: {len(lost)}; {charged}, their worst case, is charged"
            " to the run that lost them"
        )
    journal = Journal(store.calls, config.budgets)
    prices = Prices(Path(config.price_file) if config.price_file else None)
    spending = Spending(
        journal,
        prices,
        account,
        provider=transport.provider,
        prompt_cache=config.savings.prompt_cache,
        clock=time.time,
        tell=tell,
    )
    cache = open_cache(settings)
    service = f"{config.provider} {config.base_url}".strip()
    shared = None if is_given else shared_rates(store, cache, service=service)
    pool = KeyPool(
        keys, variable=f"the key of {config.provider}", rates=config.rates, shared=shared
    )
    sender = Sender(
        transport,
        config,
        spending=spending,
        pool=pool,
        off_peak=OffPeak.parse(config.off_peak) if config.off_peak else None,
        tell=tell,
    )
    router = Router(config)
    stock = Stock(
        config, router=router, service=service, calls=store.calls, cache=cache, spending=spending,
        work=account.work,
    )  # fmt: skip
    batches = Batches(sender, stock=stock, spending=spending, calls=store.calls, tell=tell)
    gateway = Gateway(
        config, router=router, stock=stock, spending=spending, sender=sender, batches=batches,
        prices=prices, store=store,
        spans=spans(settings, provider=config.provider, phase=account.phase),
    )  # fmt: skip
    try:
        yield gateway
    finally:
        try:
            await pool.close()
            await gateway.close()
        finally:
            await asyncio.to_thread(journal.close)


def _no_rule(request: Request, route: Route) -> ConfigError:
    return ConfigError(
        f"task {request.task!r} needs no model ({route.reason}) but no rule was given; pass rule=,"
        " or give the task a tier under llm: tasks:"
    )


def _keys(config: GatewayConfig) -> tuple[Secret, ...]:
    """Return the keys of the configured service; a server on this machine can do without."""
    try:
        return read_keys(config.provider)
    except ConfigError:
        if config.base_url and is_loopback(config.base_url):
            return (Secret(""),)
        raise
