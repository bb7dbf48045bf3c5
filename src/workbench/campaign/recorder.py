"""What comes back, judged and stored: one writer for all workers of an execution."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, NamedTuple

from workbench.campaign.grading import Grader, Verdict
from workbench.campaign.targets.base import Kind, Response, Target
from workbench.core.money import ZERO
from workbench.core.plain import storable
from workbench.core.redact import redact
from workbench.store.campaigns import add_attempts
from workbench.store.database import Store
from workbench.store.events import event_of
from workbench.store.leases import Lease
from workbench.store.records import Attempt, Event, LedgerRow, TestCase

__all__ = ["Answered", "Progress", "Recorder", "readable", "stored"]

_GATHER = 64
_GATHER_S = 0.25
"""Most answers, and longest wait, before they are judged and stored together."""
_LOOK_S = 0.02
_WAITING = 64
"""Answers that wait for judges before nobody asks for more: so many, those that are being judged
and those in flight are what a kill loses."""
_JUDGED_CHARS = 1_000_000
"""Longest text judged; a target that talks without end takes no memory."""
_KEPT_CHARS = 20_000
"""Longest text kept; it fills no disk either."""


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
    """Attacks that got through, past a defense where there is one, in this process."""
    usd: Decimal = ZERO
    """Spent on the execution, earlier processes included."""


class Answered(NamedTuple):
    """What came back for one try."""

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


class Recorder:
    """Takes answers from workers, has them judged some at a time, and stores them.

    What was spent is entered before anything is judged: judges may fail, or take long.

    Args:
        store: Where attempts go, redacted.
        execution: Its id.
        graders: Kind of target → who judges.
        watched: Targets whose successes are told as events: baselines have them by design.
        work: Under which its costs are entered.
        done: Attempts that are there already.
        total: Attempts in all.
        usd: What was spent on it before.
        progress: Called after each stored batch.
        lease: Without which nothing is stored.
    """

    def __init__(
        self,
        store: Store,
        *,
        execution: str,
        graders: Mapping[Kind, Grader],
        watched: Collection[str],
        work: str,
        done: int,
        total: int,
        usd: Decimal = ZERO,
        progress: Callable[[Progress], None] | None = None,
        lease: Lease | None = None,
    ) -> None:
        self._store = store
        self._execution = execution
        self._graders = graders
        self._watched = watched
        self._work = work
        self._total = total
        self._progress = progress
        self._counts: Counter[str] = Counter(done=done)
        self._answers: asyncio.Queue[Answered | None] = asyncio.Queue()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._lease = lease
        self.usd = usd
        self.stopped_by: Exception | None = None

    @property
    def figures(self) -> dict[str, Any]:
        """How far it is, for events: done, errors, successes, usd."""
        names = ("done", "errors", "successes")
        return {**{name: self._counts[name] for name in names}, "usd": str(self.usd)}

    async def has_room(self) -> None:
        """Return once few answers wait, so that memory and what a kill loses stay small."""
        await self._has_room.wait()

    def take(self, answered: Answered) -> None:
        """Take an answer; never waits, so that no answer is lost to a cancellation."""
        self.usd += answered.usd
        self._answers.put_nowait(answered)
        if self._answers.qsize() >= _WAITING:
            self._has_room.clear()

    def end(self) -> None:
        """Say that no more answers come."""
        self._answers.put_nowait(None)

    async def write(self) -> None:
        """Judge and store what comes back until told that no more comes."""
        is_open = True
        while is_open:
            gathered = await self._gather()
            is_open = None not in gathered
            if answered := [one for one in gathered if one is not None]:
                await self._keep(answered)

    async def _gather(self) -> list[Answered | None]:
        gathered = [await self._answers.get()]
        until = time.monotonic() + _GATHER_S
        while None not in gathered and len(gathered) < _GATHER:
            if not self._answers.empty():
                gathered.append(self._answers.get_nowait())
            elif time.monotonic() < until:
                await asyncio.sleep(_LOOK_S)
            else:
                break
        if self._answers.qsize() < _WAITING:
            self._has_room.set()
        return gathered

    async def _keep(self, gathered: Sequence[Answered]) -> None:
        if bill := self._bill(gathered):
            await asyncio.to_thread(self._store.ledger.add, bill)
        verdicts = await self._judged(gathered)
        attempts = await asyncio.to_thread(self._store_all, gathered, verdicts)
        self._counts["done"] += len(attempts)
        self._counts["errors"] += sum(bool(one.error) for one in attempts)
        if self._progress:
            figures = {name: self._counts[name] for name in ("done", "errors", "successes")}
            target = gathered[-1].target.name
            self._progress(Progress(target=target, total=self._total, usd=self.usd, **figures))

    async def _judged(self, gathered: Sequence[Answered]) -> dict[int, Verdict | str]:
        """Return position → verdict, or why there is none: then the run stops after storing it."""
        verdicts: dict[int, Verdict | str] = {}
        for kind, grader in self._graders.items():
            pairs = {
                at: (one.case, one.answer)
                for at, one in enumerate(gathered)
                if one.target.kind == kind and isinstance(one.answer, Response)
            }
            try:
                judged = await grader.grade(list(pairs.values())) if pairs else []
                verdicts |= zip(pairs, judged, strict=True)
            except Exception as error:  # noqa: BLE001 - what came back is kept, whoever fails
                self.stopped_by = self.stopped_by or error
                verdicts |= dict.fromkeys(pairs, str(error))
        return verdicts

    def _store_all(
        self, gathered: Sequence[Answered], verdicts: Mapping[int, Verdict | str]
    ) -> list[Attempt]:
        attempts = [self._attempt(one, verdicts.get(at)) for at, one in enumerate(gathered)]
        told = self._events(gathered, attempts)
        add_attempts(self._store.engine, attempts, events=told, lease=self._lease)
        return attempts

    def _attempt(self, one: Answered, verdict: Verdict | str | None) -> Attempt:
        case, answer = one.case, one.answer
        sent = "\n\n".join((*case.turns, case.prompt))
        made = Attempt(
            execution=self._execution, case_id=case.id, target=one.target.name, sent=stored(sent),
            received="", decision="error", scores={}, success=False, latency_ms=0.0,
            trial=one.trial, usd=one.usd,
        )  # fmt: skip
        if isinstance(answer, str):
            return replace(made, error=answer)
        made = replace(
            made,
            received=stored(answer.text),
            replies=tuple(map(stored, answer.replies)) if one.target.kind == "model" else (),
            decision=answer.decision,
            latency_ms=answer.latency_ms,
        )
        if not isinstance(verdict, Verdict):
            return replace(made, error=f"not judged: {stored(str(verdict))}"[:500])
        reasons = {judge: stored(why)[:500] for judge, why in verdict.reasons.items()}
        unjudged = f"not judged: {'; '.join(reasons.values()) or 'no judge had an opinion'}"
        return replace(
            made,
            scores=dict(verdict.scores),
            reasons=reasons,
            success=verdict.success and verdict.is_judged,
            error="" if verdict.is_judged else unjudged[:500],
        )

    def _events(self, gathered: Sequence[Answered], attempts: Sequence[Attempt]) -> list[Event]:
        """Return an event per attack that got through to a watched target, and per failure."""
        told = []
        for one, attempt in zip(gathered, attempts, strict=True):
            is_attack = not one.case.is_control
            is_hit = attempt.success and is_attack and one.target.name in self._watched
            self._counts["successes"] += is_hit
            if is_hit or attempt.error:
                details = {"target": one.target.name, "case": one.case.id, "trial": one.trial}
                details |= {"plugin": one.case.plugin, "strategies": list(one.case.strategies)}
                details |= {"error": attempt.error} if attempt.error else {}
                kind = "vulnerable_prompt_detected" if is_hit else "target_failed"
                told.append(event_of(self._store, kind, self._execution, details))
        return told

    def _bill(self, gathered: Sequence[Answered]) -> list[LedgerRow]:
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
                phase="execution", resource=name,
                quantity=float(paid / prices[name]) if prices[name] else 1.0, unit="call",
                usd=paid, price_version="declared", work=self._work,
            )
            for name, paid in billed.items()
        ]  # fmt: skip


def stored(text: str) -> str:
    """Return a text as it is kept: what any database takes, redacted, not too long."""
    # Redacted before the cut: a secret that the cut goes through is no less one.
    return redact(storable(text[: 2 * _KEPT_CHARS]))[:_KEPT_CHARS]


def readable(text: str) -> str:
    """Return a text as it is judged: whole but for what is beyond a million characters."""
    return storable(text[:_JUDGED_CHARS])
