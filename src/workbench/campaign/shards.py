"""An execution over several workers: dealt in shards, each made and stored by one of them.

The coordinator holds the execution's lease and deals; it sends nothing. Whoever works on a shard
holds the lease of its slot, looks up what of it is stored, makes the rest and stores it. So a shard
that is dealt again, because its worker died, repeats nothing that was stored.

- A slot has one shard at a time, and its part of every target's bound: over all slots they add up
  to the bound. A guard is no service but this code: each worker may run it.
- Of targets with a declared price a shard's whole price is set aside before it is dealt; what
  models cost is held by the gateway's budgets, which all workers share in the store.
- Workers stop when somebody aborts, and when the lease of the execution is no longer that of who
  dealt to them. A new coordinator waits for that before it looks what is left.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Executor
from contextlib import ExitStack, suppress
from dataclasses import replace
from decimal import Decimal
from itertools import accumulate, islice
from typing import TYPE_CHECKING

from workbench.campaign.execute import Task, look
from workbench.campaign.opening import ExecuteOptions, Opened, config_of
from workbench.campaign.recorder import Progress
from workbench.campaign.runner import Try, missing, phases, price_of, stopped, too_dear
from workbench.campaign.targets.spec import services_of
from workbench.campaign.worker import Crew, Shard, left_of, work_on
from workbench.core.cluster import open_executor
from workbench.core.errors import LeaseHeld, StoreError, WorkbenchError, WorkerLost
from workbench.core.money import ZERO
from workbench.core.settings import cores
from workbench.store.campaigns import ask_to_stop, counts, spent

if TYPE_CHECKING:
    from workbench.campaign.targets.base import Target
    from workbench.campaign.targets.config import TargetSpec

__all__ = ["crew_of", "deal", "shares"]

_TRIES = 200
"""Most tries of a shard, per target."""
_ROUNDS = 4
"""Least tries of a shard for each call that it may have in flight, so that its end costs little."""
_TICK_S = 1.0
"""Between looks at the store: how far it is, whether somebody asked to stop."""
_SHARE_OF_LOOKS = 20
"""They take at most one part in so many of the time."""
_STOP_S = 30.0
"""How long workers may take to end calls in flight and store them."""
_LOSSES = 5
"""How often one shard may be lost in a row without anything of it being stored; each time it cost
several workers, see ``core.cluster``."""
_GONE = (WorkerLost, CancelledError, LeaseHeld)
"""Of the worker, not of the work: another one does it."""
_log = logging.getLogger(__name__)


async def deal(task: Task, *, crew: Crew) -> None:
    """Make an execution's missing attempts by workers; as the runner does it in one process.

    Raises:
        BudgetError: At the limit; what is stored is kept.
        WorkerLost: If workers keep dying of the same shard.
        WorkbenchError: What stopped a worker; the others have stopped too.
    """
    await _Dealer(task, crew).run()


class _Dealer:
    def __init__(self, task: Task, crew: Crew) -> None:
        self._task = task
        self._crew = crew
        self._packed = pickle.dumps(replace(crew, executor="", workers=0))
        self._pending: dict[asyncio.Future[None], Shard] = {}
        self._waiting: dict[int, Shard] = {}
        """Slot → what is dealt there next: no money for it yet, or its worker died."""
        self._reserved: dict[int, Decimal] = {}
        """Slot → what its shard in flight costs at declared prices."""
        self._before = counts(task.store.engine, task.execution)
        self._pool: Executor
        self._next_look = 0.0
        task.figures.update(done=0, errors=0, successes=0, usd=str(ZERO))

    async def run(self) -> None:
        task = self._task
        with ExitStack() as stack:
            opening = open_executor(self._crew.executor, jobs=self._crew.workers)
            try:
                self._pool = await asyncio.to_thread(stack.enter_context, opening)
                for together in phases(task.targets):
                    await self._deal(together)
            except BaseException:
                with suppress(StoreError):  # what stopped it is told, not that its store is gone
                    await asyncio.shield(self._stop())
                    await self._tell(task.names[-1])
                raise
            else:
                await self._tell(task.names[-1])
            finally:
                await asyncio.to_thread(stack.close)

    async def _deal(self, together: Sequence[Target]) -> None:
        queue = _Queue(self._task, together, slots=self._crew.workers)
        while True:
            for slot in range(self._crew.workers):
                if all(one.slot != slot for one in self._pending.values()):
                    await self._deal_to(slot, queue)
            if not self._pending:
                return
            ended, _ = await asyncio.wait(
                self._pending, timeout=_TICK_S, return_when=asyncio.FIRST_COMPLETED
            )
            for future in ended:
                await self._settle(self._pending.pop(future), future)
            await self._look(together[-1].name)

    async def _deal_to(self, slot: int, queue: _Queue) -> None:
        """Give a slot its next shard, if there is one and the money for it."""
        shard = self._waiting.pop(slot, None) or self._shard(slot, queue)
        if not shard:
            return
        room = await asyncio.to_thread(self._room)
        if room is not None and queue.price(shard.tries) > room:
            if self._pending:  # what they do not spend of theirs may be enough
                self._waiting[slot] = shard
                return
            some, rest = queue.affordable(shard.tries, room)
            if not some:
                budget_usd = self._task.budget_usd or ZERO
                raise too_dear(queue.dearest, budget_usd=budget_usd, taken=self._spent())
            self._waiting[slot] = replace(shard, tries=rest)
            shard = replace(shard, tries=some)
        self._reserved[slot] = queue.price(shard.tries)
        submitted = await asyncio.to_thread(self._pool.submit, work_on, shard)
        future = asyncio.wrap_future(submitted)
        self._pending[future] = shard

    def _shard(self, slot: int, queue: _Queue) -> Shard | None:
        tries = queue.take(slot)
        if not tries:
            return None
        task = self._task
        return Shard(
            execution=task.execution, token=task.lease.token, slot=slot, crew=self._packed,
            watched=frozenset(task.watched), parallel=queue.parallel[slot], tries=tries,
        )  # fmt: skip

    def _room(self) -> Decimal | None:
        """Return what the budget leaves; None without one."""
        if self._task.budget_usd is None:
            return None
        # What workers have entered of shards in flight counts twice; that ends with the shard.
        in_flight = (self._reserved[one.slot] for one in self._pending.values())
        return self._task.budget_usd - self._spent() - sum(in_flight, ZERO)

    def _spent(self) -> Decimal:
        return spent(self._task.store.engine, self._task.work)

    async def _settle(self, shard: Shard, future: asyncio.Future[None]) -> None:
        """Take note of how a shard ended; one whose worker died is dealt again."""
        error: BaseException | None = CancelledError() if future.cancelled() else future.exception()
        if error is None:
            return
        if not isinstance(error, _GONE):
            raise error if isinstance(error, Exception) else WorkbenchError(f"a worker: {error!r}")
        await self._deal_again(shard, str(error) or type(error).__name__)

    async def _deal_again(self, shard: Shard, why: str) -> None:
        left = await asyncio.to_thread(left_of, self._task.store, shard)
        is_vain = _size(left) == _size(shard.tries)
        losses = shard.losses + 1 if is_vain else 0
        if losses >= _LOSSES:
            raise WorkerLost(
                f"execution {self._task.execution[:12]}: workers keep dying of the same"
                f" {_size(left)} tries ({why}); what is done is kept,"
                " look at their logs"
            )
        _log.warning("a worker of execution %s died; its shard is dealt again", shard.execution)
        if left:
            self._waiting[shard.slot] = replace(shard, tries=left, losses=losses)

    async def _look(self, target: str) -> None:
        """Now and then tell how far it is, and stop where somebody asks for it."""
        if time.monotonic() < self._next_look:
            return
        began = time.monotonic()
        if why := await asyncio.to_thread(look, self._task):
            raise stopped(why)
        await self._tell(target)
        took_s = time.monotonic() - began
        self._next_look = began + max(_TICK_S, _SHARE_OF_LOOKS * took_s)

    async def _tell(self, target: str) -> None:
        task, figures = self._task, self._task.figures
        now = await asyncio.to_thread(counts, task.store.engine, task.execution)
        new = {name: now[name] - self._before[name] for name in ("done", "errors", "successes")}
        new["done"] += sum(map(len, task.done.values()))
        usd = await asyncio.to_thread(self._spent)
        figures.update(new, usd=str(usd))
        if task.progress:
            task.progress(Progress(target=target, total=task.total, usd=usd, **new))

    async def _stop(self) -> None:
        """Have all workers end what is in flight and store it."""
        if not self._task.lease.lost.is_set():  # else those of whoever makes it now would end
            await asyncio.to_thread(ask_to_stop, self._task.store.engine, self._task.execution)
        if self._pending:
            await asyncio.wait(self._pending, timeout=_STOP_S)
            for future in self._pending:
                if future.done() and not future.cancelled():
                    future.exception()  # known: they were asked to


class _Queue:
    """What is left of targets that are asked at the same time, and each slot's part of them."""

    def __init__(self, task: Task, together: Sequence[Target], *, slots: int) -> None:
        self._targets = {one.name: one for one in together}
        self._slots = slots
        whole = len(task.cases) * task.trials
        self._left = {one.name: whole - len(task.done[one.name]) for one in together}
        self._tries: dict[str, Iterator[Try]] = {
            one.name: missing(task.cases, trials=task.trials, done=task.done[one.name])
            for one in together
        }
        widths = {
            one.name: [one.parallel] * slots if one.kind == "guard" else shares(one.parallel, slots)
            for one in together
        }
        self.parallel: list[dict[str, int]] = [
            {name: each[slot] for name, each in widths.items() if each[slot]}
            for slot in range(slots)
        ]
        self.dearest = max(together, key=lambda one: one.usd_per_call)

    def take(self, slot: int) -> dict[str, Sequence[Try]]:
        """Take a slot's next tries: of each target as many as its part of the bound is large."""
        parallel = self.parallel[slot]
        widest = max(parallel.values(), default=1)
        taken: dict[str, Sequence[Try]] = {}
        for name, width in parallel.items():
            batch = self._targets[name].batch
            even = max(self._left[name] // (2 * self._slots), width * max(batch, _ROUNDS))
            size = max(batch, min(even, _TRIES * width // widest))
            if tries := list(islice(self._tries[name], size)):
                self._left[name] -= len(tries)
                taken[name] = tries
        return taken

    def price(self, tries: Mapping[str, Sequence[Try]]) -> Decimal:
        """Return what tries cost at declared prices."""
        return sum((price_of(self._targets[name], some) for name, some in tries.items()), ZERO)

    def affordable(
        self, tries: Mapping[str, Sequence[Try]], room: Decimal
    ) -> tuple[dict[str, Sequence[Try]], dict[str, Sequence[Try]]]:
        """Return the first tries that so much money is enough for, by target, and the others."""
        some: dict[str, Sequence[Try]] = {}
        rest: dict[str, Sequence[Try]] = {}
        for name, mine in tries.items():
            prices = accumulate(price_of(self._targets[name], [one]) for one in mine)
            enough = sum(price <= room for price in prices)
            room -= price_of(self._targets[name], mine[:enough])
            some |= {name: mine[:enough]} if enough else {}
            rest |= {name: mine[enough:]} if enough < len(mine) else {}
        return some, rest


def _size(tries: Mapping[str, Sequence[Try]]) -> int:
    return sum(map(len, tries.values()))


def crew_of(
    opened: Opened,
    specs: Sequence[TargetSpec],
    options: ExecuteOptions,
    *,
    work: str,
    test_set: str,
) -> Crew:
    """Return what workers open, so that all of them together keep to the rates and bounds of one.

    Over a minute, that is: each begins at once, and rests by itself where a target says so.

    Args:
        opened: The same, open here.
        specs: Of the targets.
        options: Of the execution.
        work: Under which costs are entered.
        test_set: Its id.
    """
    workers = options.workers or cores()
    config = config_of(opened.store, options)
    if options.grader or services_of(specs, config):  # each has a gateway, of one call at least
        workers = min(workers, config.savings.parallel)
    parallel = max(1, config.savings.parallel // workers)
    config = replace(config, savings=replace(config.savings, parallel=parallel))
    slots = {one.name: min(workers, one.parallel) for one in opened.targets}
    return Crew(
        settings=opened.store.settings,
        specs=tuple(
            _slower(spec, slots[target.name])
            for spec, target in zip(specs, opened.targets, strict=True)
        ),
        options=replace(options, llm=config, executor="", workers=0),
        work=work,
        test_set=test_set,
        host=platform.node(),
        executor=options.executor,
        workers=workers,
    )


def _slower(spec: TargetSpec, slots: int) -> TargetSpec:
    """Return a target with its part of the requests per minute."""
    inner = _slower(spec.target, slots) if spec.target else None
    return replace(spec, requests_per_minute=spec.requests_per_minute / slots, target=inner)


def shares(bound: int, slots: int) -> list[int]:
    """Return a bound divided over slots as evenly as can be; the sum is the bound, >= 1."""
    each, more = divmod(max(1, bound), slots)
    return [each + (slot < more) for slot in range(slots)]
