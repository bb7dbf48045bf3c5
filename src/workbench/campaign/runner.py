"""One run of an execution: workers that ask targets, and one writer that judges and stores."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from workbench.campaign.grading import Grader, Verdict
from workbench.campaign.targets.base import ASKED_FOR, Decision, Kind, Response, Target
from workbench.core.errors import BudgetError, ConfigError, StoreError, WorkbenchError
from workbench.core.money import ZERO, show_usd
from workbench.core.plain import storable
from workbench.core.redact import redact
from workbench.store.campaigns import add_attempts, attempted, spent
from workbench.store.database import Store
from workbench.store.records import Attempt, Event, LedgerRow, TestCase

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Progress", "Runner"]

_GATHER = 64
_GATHER_S = 0.25
"""Most answers, and longest wait, before they are judged and stored together."""
_LOOK_S = 0.02
_WAITING = 256
"""Answers that wait to be judged before workers pause: bounds memory when judges are slower."""
_JUDGED_CHARS = 1_000_000
"""Longest text judged; a target that talks without end takes no memory."""
_KEPT_CHARS = 20_000
"""Longest text kept; it fills no disk either."""
_STOP = (BudgetError, StoreError, ConfigError)
"""Ours to stop at, not the target's failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an execution is, after answers were stored."""

    target: str
    done: int
    """Attempts stored, earlier processes included."""
    total: int
    errors: int
    """Of this process."""
    successes: int = 0
    """Attacks that got through to targets that defend, in this process."""
    usd: Decimal = ZERO
    """Spent on targets, earlier processes included."""


class _Try(NamedTuple):
    case: TestCase
    trial: int


class _Answered(NamedTuple):
    target: Target
    case: TestCase
    trial: int
    answer: Response | str
    """What came back, or what went wrong."""

    @property
    def usd(self) -> Decimal:
        """What it is billed; a call that failed may have been, in full."""
        if isinstance(self.answer, Response):
            return self.answer.usd
        price = ZERO if self.target.is_metered else self.target.usd_per_call
        return price * (len(self.case.turns) + 1)


class Runner:
    """Makes the attempts of an execution that are not there yet.

    Args:
        execution: Its id.
        store: Where attempts go.
        graders: Kind of target → who judges.
        total: Attempts in all.
        trials: How often each case is sent.
        budget_usd: Most to spend on targets with a declared price; None for no limit.
        is_aborted: Whether somebody asked to stop.
        progress: Called after each stored batch.
        finished: Target → (case id, trial) that need no attempt, beside the stored rows.
    """

    def __init__(
        self,
        *,
        execution: str,
        store: Store,
        graders: Mapping[Kind, Grader],
        total: int,
        trials: int,
        budget_usd: Decimal | None,
        is_aborted: Callable[[], bool],
        progress: Callable[[Progress], None] | None,
        finished: Mapping[str, Collection[tuple[str, int]]],
    ) -> None:
        self._execution = execution
        self._store = store
        self._graders = graders
        self._total = total
        self._trials = trials
        self._budget_usd = budget_usd
        self._is_aborted = is_aborted
        self._progress = progress
        self._finished = finished
        self._counts: Counter[str] = Counter()
        self._usd = self._reserved = ZERO
        self._answers: asyncio.Queue[_Answered | None] = asyncio.Queue(_WAITING)
        self._stopped_by: WorkbenchError | None = None
        self.resumed = 0

    @property
    def figures(self) -> dict[str, Any]:
        """How far it is, for events: done, errors, successes, usd."""
        names = ("done", "errors", "successes")
        return {**{name: self._counts[name] for name in names}, "usd": str(self._usd)}

    async def run(self, targets: Sequence[Target], cases: Iterable[TestCase]) -> None:
        """Ask every target for what is missing; closes them.

        Guards run one after another on this machine's cores, models all at the same time.
        """
        self._usd = spent(self._store.engine, self._execution)
        left = {target.name: self._left(target) for target in targets}
        asking = asyncio.create_task(self._ask_all(targets, cases, left=left))
        writing = asyncio.create_task(self._write())
        try:
            await asyncio.wait({asking, writing}, return_when=asyncio.FIRST_COMPLETED)
        finally:  # what came back is kept, whatever stopped the asking
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            if not writing.done():
                await self._answers.put(None)
            await asyncio.gather(writing, return_exceptions=True)
            await asyncio.gather(*(one.close() for one in targets), return_exceptions=True)
        writing.result()
        if self._stopped_by:
            raise self._stopped_by

    async def _ask_all(
        self,
        targets: Sequence[Target],
        cases: Iterable[TestCase],
        *,
        left: Mapping[str, Collection[tuple[str, int]]],
    ) -> None:
        for target in targets:
            if target.kind == "guard":
                await self._attack(target, cases, done=left[target.name])
        models = [target for target in targets if target.kind == "model"]
        await asyncio.gather(*(self._attack(one, cases, done=left[one.name]) for one in models))

    def _left(self, target: Target) -> set[tuple[str, int]]:
        done = attempted(self._store.engine, self._execution, target=target.name)
        done |= set(self._finished.get(target.name, ()))
        self.resumed += len(done)
        self._counts["done"] += len(done)
        return done

    async def _attack(
        self, target: Target, cases: Iterable[TestCase], *, done: Collection[tuple[str, int]]
    ) -> None:
        tries = self._tries(cases, done=done)
        await asyncio.gather(*(self._work(target, tries) for _ in range(max(1, target.parallel))))

    def _tries(
        self, cases: Iterable[TestCase], *, done: Collection[tuple[str, int]]
    ) -> Iterator[_Try]:
        for trial in range(self._trials):
            for case in cases:
                if (case.id, trial) not in done:
                    yield _Try(case, trial)

    async def _work(self, target: Target, tries: Iterator[_Try]) -> None:
        """Ask until nothing is left or something stops the run; calls in flight then still end."""
        while not self._stopped_by:
            batch = list(islice(tries, max(1, target.batch)))
            if not batch:
                return
            try:
                await self._ask_some(target, batch)
            except WorkbenchError as error:
                self._stopped_by = self._stopped_by or error

    async def _ask_some(self, target: Target, batch: Sequence[_Try]) -> None:
        if self._is_aborted():
            raise WorkbenchError("aborted; what is done is kept, run it again to go on")
        price = target.usd_per_call * sum(len(one.case.turns) + 1 for one in batch)
        self._reserve(price, target)
        ASKED_FOR.set((self._execution, batch[0].trial))
        try:
            answers = await _ask(target, [one.case for one in batch])
        finally:
            self._reserved -= price
        for one, answer in zip(batch, answers, strict=True):
            answered = _Answered(target, one.case, one.trial, answer)
            self._usd += answered.usd
            await self._answers.put(answered)

    def _reserve(self, price: Decimal, target: Target) -> None:
        """Set money aside before it is spent, so that calls in flight stay within the budget."""
        if self._budget_usd is not None and self._usd + self._reserved + price > self._budget_usd:
            raise BudgetError(
                f"the budget of {show_usd(self._budget_usd)} leaves too little for {target.name}:"
                f" {show_usd(self._usd + self._reserved)} are spent or in flight; what is done is"
                " kept, raise --budget and run it again to go on"
            )
        self._reserved += price

    async def _write(self) -> None:
        """Judge and store what comes back, some at a time, until told that no more comes."""
        is_open = True
        while is_open:
            gathered = await self._gather()
            is_open = None not in gathered
            if answered := [one for one in gathered if one is not None]:
                await self._keep(answered)

    async def _gather(self) -> list[_Answered | None]:
        gathered = [await self._answers.get()]
        until = time.monotonic() + _GATHER_S
        while None not in gathered and len(gathered) < _GATHER:
            if not self._answers.empty():
                gathered.append(self._answers.get_nowait())
            elif time.monotonic() < until:
                await asyncio.sleep(_LOOK_S)
            else:
                break
        return gathered

    async def _keep(self, gathered: Sequence[_Answered]) -> None:
        verdicts: dict[int, Verdict] = {}
        for kind, grader in self._graders.items():
            mine = [
                at
                for at, one in enumerate(gathered)
                if one.target.kind == kind and isinstance(one.answer, Response)
            ]
            pairs = [(gathered[at].case, gathered[at].answer) for at in mine]
            judged = await grader.grade(pairs) if pairs else []  # type: ignore[arg-type]
            verdicts |= zip(mine, judged, strict=True)
        attempts = [self._attempt(one, verdicts.get(at)) for at, one in enumerate(gathered)]
        await asyncio.to_thread(
            add_attempts,
            self._store.engine,
            attempts,
            events=self._events(gathered, attempts),
            ledger=self._ledger(gathered),
        )
        self._counts["done"] += len(gathered)
        self._counts["errors"] += sum(bool(one.error) for one in attempts)
        if self._progress:
            figures = {name: self._counts[name] for name in ("done", "errors", "successes")}
            target = gathered[-1].target.name
            self._progress(Progress(target=target, total=self._total, usd=self._usd, **figures))

    def _attempt(self, one: _Answered, verdict: Verdict | None) -> Attempt:
        case, answer = one.case, one.answer
        sent = "\n\n".join((*case.turns, case.prompt))
        made = Attempt(
            execution=self._execution, case_id=case.id, target=one.target.name, sent=_stored(sent),
            received="", decision="error", scores={}, success=False, latency_ms=0.0,
            trial=one.trial, usd=one.usd,
        )  # fmt: skip
        if isinstance(answer, str) or verdict is None:
            return replace(made, error=str(answer))
        reasons = {judge: _stored(why)[:500] for judge, why in verdict.reasons.items()}
        unjudged = f"not judged: {'; '.join(reasons.values()) or 'no judge had an opinion'}"
        return replace(
            made,
            received=_stored(answer.text),
            replies=tuple(map(_stored, answer.replies)) if one.target.kind == "model" else (),
            decision=answer.decision,
            error="" if verdict.is_judged else unjudged,
            scores=dict(verdict.scores),
            reasons=reasons,
            success=verdict.success and verdict.is_judged,
            latency_ms=answer.latency_ms,
        )

    def _events(self, gathered: Sequence[_Answered], attempts: Sequence[Attempt]) -> list[Event]:
        """Return an event per attack that got through where something defends, and per failure."""
        settings = self._store.settings
        told = []
        for one, attempt in zip(gathered, attempts, strict=True):
            is_hit = attempt.success and one.target.defends and not one.case.is_control
            self._counts["successes"] += is_hit
            if is_hit or attempt.error:
                details = {"target": one.target.name, "case": one.case.id, "trial": one.trial}
                details |= {"plugin": one.case.plugin, "strategies": list(one.case.strategies)}
                details |= {"error": attempt.error} if attempt.error else {}
                told.append(
                    Event(
                        kind="vulnerable_prompt_detected" if is_hit else "target_failed",
                        subject=self._execution, who=settings.user, run=settings.run_id,
                        experiment=settings.experiment, details=details,
                    )
                )  # fmt: skip
        return told

    def _ledger(self, gathered: Sequence[_Answered]) -> list[LedgerRow]:
        """Return what targets with a declared price cost; the gateway enters its own."""
        settings = self._store.settings
        billed: dict[str, Decimal] = {}
        prices: dict[str, Decimal] = {}
        for one in gathered:
            if one.usd and not one.target.is_metered:
                billed[one.target.name] = billed.get(one.target.name, ZERO) + one.usd
                prices[one.target.name] = one.target.usd_per_call
        return [
            LedgerRow(
                who=settings.user, job=settings.run_id, experiment=settings.experiment,
                phase="execution", resource=name, quantity=float(paid / prices[name]),
                unit="call", usd=paid, price_version="declared", work=self._execution,
            )
            for name, paid in billed.items()
            if prices[name]
        ]  # fmt: skip


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
    except Exception as error:  # noqa: BLE001 - a target is somebody else's code
        return _stored(f"{type(error).__name__}: {error}")[:500]


def _checked(answer: Response) -> Response:
    if answer.decision not in get_args(Decision):
        raise ValueError(f"decision is {answer.decision!r}; not one of {get_args(Decision)}")
    latency_ms = float(answer.latency_ms)
    if not 0 <= latency_ms < math.inf:
        raise ValueError(f"latency_ms is {latency_ms}; not a time")
    replies = tuple(_clean(one) for one in answer.replies)
    return replace(answer, text=_clean(answer.text), latency_ms=latency_ms, replies=replies)


def _stored(text: str) -> str:
    return redact(_clean(text))


def _clean(text: str) -> str:
    return storable(text[:_KEPT_CHARS])
