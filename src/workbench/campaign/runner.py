"""One run of an execution: workers that ask targets, each as often in parallel as it allows."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import islice
from typing import NamedTuple, get_args

from workbench.campaign.recorder import Answered, Progress, Recorder, readable, stored
from workbench.campaign.targets.base import ASKED_FOR, Decision, Response, Target
from workbench.core.errors import BudgetError, ConfigError, LeaseHeld, StoreError, WorkbenchError
from workbench.core.money import show_usd
from workbench.store.leases import Lease
from workbench.store.records import TestCase

__all__ = [
    "Progress", "Runner", "Try", "missing", "phases", "price_of", "refuse_lost", "stopped",
    "too_dear",
]  # fmt: skip

_STOP = (BudgetError, StoreError, ConfigError)
"""Ours to stop at, not the target's failure."""
_LOOK_S = 0.5
"""Between looks whether somebody asked to stop."""
_GRACE_S = 15.0
"""How long calls in flight may take to end then; what does not is sent again another time."""


class Try(NamedTuple):
    """A case that is to be sent once."""

    case: TestCase
    trial: int


def missing(
    cases: Iterable[TestCase], *, trials: int, done: Collection[tuple[str, int]]
) -> Iterator[Try]:
    """Give every case so many times, but for (case id, trial) that need no attempt."""
    for trial in range(trials):
        for case in cases:
            if (case.id, trial) not in done:
                yield Try(case, trial)


class Runner:
    """Makes the attempts of an execution that are not there yet.

    Args:
        recorder: Judges and stores what comes back.
        execution: Its id.
        budget_usd: Most to spend in all; None for no limit.
        why_stop: Asked now and then, in a thread: why to stop, empty for going on. What it raises
            ends the run at once, calls in flight too.
        parallel: Target → most calls at the same time; as the target says if not given.
        lease: Without which nothing more is sent, however long the store takes to answer.
    """

    def __init__(
        self,
        recorder: Recorder,
        *,
        execution: str,
        budget_usd: Decimal | None,
        why_stop: Callable[[], str],
        parallel: Mapping[str, int] | None = None,
        lease: Lease | None = None,
    ) -> None:
        self._recorder = recorder
        self._lease = lease
        self._execution = execution
        self._budget_usd = budget_usd
        self._why_stop = why_stop
        self._parallel = parallel or {}
        self._reserved = Decimal(0)
        self._stopped_by: WorkbenchError | None = None

    async def run(
        self, targets: Sequence[Target], tries: Callable[[Target], Iterable[Try]]
    ) -> None:
        """Make all tries at every target.

        Guards run one after another on this machine's cores, models all at the same time.

        Raises:
            WorkbenchError: What stopped it; what came back is judged and stored all the same.
        """
        asking = asyncio.create_task(self._ask_all(targets, tries))
        writing = asyncio.create_task(self._recorder.write())
        watching = asyncio.create_task(self._watch(asking))
        try:
            await asyncio.wait({asking, writing}, return_when=asyncio.FIRST_COMPLETED)
        finally:  # what came back is kept, whatever stopped the asking
            for task in (asking, watching):
                task.cancel()
            await asyncio.gather(asking, watching, return_exceptions=True)
            self._recorder.end()
            if isinstance(self._stopped_by, LeaseHeld):  # it may hang; what it has, the fence stops
                writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
        if writing.cancelled() and self._stopped_by:
            raise self._stopped_by
        writing.result()
        if stopped := self._recorder.stopped_by or self._stopped_by:
            raise stopped
        asking.result()

    async def _watch(self, asking: asyncio.Task[None]) -> None:
        """Stop the run once somebody asks for it; waits and calls that do not end are cut short."""
        try:
            while not (why := await self._look()):
                await asyncio.sleep(_LOOK_S)
        except WorkbenchError as error:  # nobody knows whether another goes on: nothing may linger
            self._stop(error)
        else:
            self._stop(stopped(why))
            await asyncio.wait({asking}, timeout=_GRACE_S)
        asking.cancel()

    async def _look(self) -> str:
        """Return why to stop; a store that does not answer hides no lost lease."""
        looking = asyncio.ensure_future(asyncio.to_thread(self._why_stop))
        try:
            while not looking.done():
                refuse_lost(self._lease)
                await asyncio.wait({looking}, timeout=_LOOK_S)
            return looking.result()
        finally:
            looking.cancel()

    async def _ask_all(
        self, targets: Sequence[Target], tries: Callable[[Target], Iterable[Try]]
    ) -> None:
        for together in phases(targets):
            await asyncio.gather(
                *(self._attack(target, iter(tries(target))) for target in together)
            )

    async def _attack(self, target: Target, tries: Iterator[Try]) -> None:
        width = max(1, self._parallel.get(target.name, target.parallel))
        await asyncio.gather(*(self._work(target, tries) for _ in range(width)))

    async def _work(self, target: Target, tries: Iterator[Try]) -> None:
        """Ask until nothing is left or something stops the run; calls in flight then still end."""
        while not (self._stopped_by or self._recorder.stopped_by):
            try:
                batch = list(islice(tries, max(1, target.batch)))
                if not batch:
                    return
                refuse_lost(self._lease)
                await self._ask_some(target, batch)
            except WorkbenchError as error:
                self._stop(error)

    def _stop(self, error: WorkbenchError) -> None:
        self._stopped_by = self._stopped_by or error

    async def _ask_some(self, target: Target, batch: Sequence[Try]) -> None:
        await self._recorder.has_room()
        price = price_of(target, batch)
        self._reserve(price, target)
        ASKED_FOR.set((self._execution, batch[0].case.id, batch[0].trial))
        try:
            answers = await _ask(target, [one.case for one in batch])
        finally:
            self._reserved -= price
        for one, answer in zip(batch, answers, strict=True):
            self._recorder.take(Answered(target, one.case, one.trial, answer))

    def _reserve(self, price: Decimal, target: Target) -> None:
        """Set money aside before it is spent, so that calls in flight stay within the budget."""
        taken = self._recorder.usd + self._reserved
        if self._budget_usd is not None and taken + price > self._budget_usd:
            raise too_dear(target, budget_usd=self._budget_usd, taken=taken)
        self._reserved += price


def price_of(target: Target, tries: Iterable[Try]) -> Decimal:
    """Return what tries cost at the target's declared price."""
    return target.usd_per_call * sum(len(one.case.turns) + 1 for one in tries)


def phases(targets: Sequence[Target]) -> list[list[Target]]:
    """Return which targets are asked at the same time: each guard alone, then all models."""
    guards = [[one] for one in targets if one.kind == "guard"]
    models = [one for one in targets if one.kind == "model"]
    return [*guards, models] if models else guards


def refuse_lost(lease: Lease | None) -> None:
    """Raise ``LeaseHeld`` if a lease is lost."""
    if lease and lease.lost.is_set():
        raise LeaseHeld(
            f"{lease.name[:30]!r}: the store could not be reached in time, others may go on with"
            " it; what is done is kept, run it again to go on"
        )


def stopped(why: str) -> WorkbenchError:
    """Return the error that ends a run before its end."""
    return WorkbenchError(f"{why}; what is done is kept, run it again to go on")


def too_dear(target: Target, *, budget_usd: Decimal, taken: Decimal) -> BudgetError:
    """Return the error of a budget that leaves too little for a target's next message."""
    return BudgetError(
        f"the budget of {show_usd(budget_usd)} leaves too little for {target.name}:"
        f" {show_usd(taken)} are spent or in flight; what is done is kept, raise --budget and run"
        " it again to go on"
    )


async def _ask(target: Target, cases: Sequence[TestCase]) -> list[Response | str]:
    """Return a response per case, or what went wrong; a failing batch is asked again one by one."""
    answers = await _respond(target, cases)
    if isinstance(answers, list):
        return list(answers)
    if len(cases) == 1:
        return [answers]
    alone = [await _respond(target, [case]) for case in cases]
    return [one[0] if isinstance(one, list) else one for one in alone]


async def _respond(target: Target, cases: Sequence[TestCase]) -> list[Response] | str:
    try:
        answers = await target.respond([(*case.turns, case.prompt) for case in cases])
        if len(answers) != len(cases):
            return f"{len(answers)} responses to {len(cases)} prompts"
        return [_checked(answer) for answer in answers]
    except _STOP:
        raise
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task and task.cancelling():
            raise
        return "CancelledError: the target gave up by itself"
    except Exception as error:  # noqa: BLE001 - a target is somebody else's code
        return stored(f"{type(error).__name__}: {error}")[:500]


def _checked(answer: Response) -> Response:
    if answer.decision not in get_args(Decision):
        raise ValueError(f"decision is {answer.decision!r}; not one of {get_args(Decision)}")
    latency_ms = float(answer.latency_ms)
    if not 0 <= latency_ms < math.inf:
        raise ValueError(f"latency_ms is {latency_ms}; not a time")
    replies = tuple(map(readable, answer.replies))
    return replace(answer, text=readable(answer.text), latency_ms=latency_ms, replies=replies)
