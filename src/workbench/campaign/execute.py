"""Phase 2: a test set against any targets, each case once, whatever is killed in between."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from filelock import FileLock

from workbench.campaign.executions import Execution, compact, load_execution
from workbench.campaign.targets.base import Decision, Response, Target
from workbench.campaign.verdicts import RULE, Verdict, judge_responses
from workbench.core.errors import BudgetError, ConfigError, StoreError
from workbench.core.identity import content_id
from workbench.core.redact import redact
from workbench.store.campaigns import add_attempts, attempted, remove_attempts
from workbench.store.database import Store
from workbench.store.records import Attempt, TestCase, TestSet

if TYPE_CHECKING:
    from workbench.embedding.encoder import Encoder
    from workbench.judge.probe import Bench

__all__ = ["Progress", "execute", "execution_id_of"]

_BATCH = 64
_KEPT_CHARS = 20_000
"""Longest text kept and judged; a target that talks without end fills no disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an execution is, after a batch was stored."""

    target: str
    done: int
    """Attempts stored, earlier processes included."""
    total: int
    errors: int
    """Of this process."""


def execute(
    store: Store,
    test_set: TestSet,
    targets: Sequence[Target],
    bench: Bench,
    *,
    encoder: Encoder,
    progress: Callable[[Progress], None] | None = None,
) -> Execution:
    """Return the execution of a test set, carried on where an earlier process was killed.

    Sends prompts, writes one transaction per batch, and at the end one artifact. A case whose
    attempt is stored is never sent again; a kill loses at most the batch in flight. A target that
    raises leaves rows with an error, of the failing cases alone.

    Args:
        store: Where attempts go, redacted.
        test_set: What to send.
        targets: Whom to send it to; names differ.
        bench: Judges of what came through; see ``campaign.verdicts`` for the rules.
        encoder: For controls that were rewritten.
        progress: Called after each stored batch.

    Raises:
        ConfigError: If there is no target or judge, or two targets share a name.
        BudgetError: If a target reached its limit; what is stored is kept.
        StoreError: If the disk is full or read-only; what is stored is kept.
    """
    names = [target.name for target in targets]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"targets are {names}; give at least one, each with a name of its own")
    if not bench.judges:
        raise ConfigError("the bench has no judges; train it with judge.probe.train_bench")
    execution_id = execution_id_of(test_set, targets, bench, encoder=encoder)
    lock = store.home / "locks" / f"{execution_id[:32]}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):  # a second process waits, then finds everything done
        total = len(test_set.cases) * len(targets)
        if store.artifacts.exists("execution", execution_id):
            remove_attempts(store.engine, execution_id)
            return load_execution(store, execution_id, resumed=total)
        runner = _Runner(
            execution=execution_id, store=store, bench=bench, encoder=encoder, total=total,
            progress=progress,
        )  # fmt: skip
        for target in targets:
            runner.run(target, test_set.cases)
        compact(
            store,
            {
                "execution": execution_id,
                "test_set": test_set.id,
                "targets": names,
                "identities": {target.name: target.identity for target in targets},
                "baselines": [target.name for target in targets if not target.defends],
                "rule": RULE,
                "judges": list(bench.reports),
                "thresholds": {judge.id: float(judge.threshold) for judge in bench.judges},
            },
        )
        return load_execution(store, execution_id, resumed=runner.resumed)


def execution_id_of(
    test_set: TestSet, targets: Sequence[Target], bench: Bench, *, encoder: Encoder
) -> str:
    """Return the id of executing a test set: hash of everything that its verdicts depend on."""
    return content_id(
        {
            "test_set": test_set.id,
            "targets": {target.name: target.identity for target in targets},
            "bench": bench.id,
            "encoder": encoder.id,
            "rule": RULE,
        }
    )


@dataclass(kw_only=True)
class _Runner:
    execution: str
    store: Store
    bench: Bench
    encoder: Encoder
    total: int
    progress: Callable[[Progress], None] | None
    resumed: int = 0
    _done: int = 0
    _errors: int = 0

    def run(self, target: Target, cases: Sequence[TestCase]) -> None:
        finished = attempted(self.store.engine, self.execution, target=target.name)
        left = [case for case in cases if case.id not in finished]
        self.resumed += len(cases) - len(left)
        self._done += len(cases) - len(left)
        for start in range(0, len(left), _BATCH):
            self._run_batch(target, left[start : start + _BATCH])

    def _run_batch(self, target: Target, cases: Sequence[TestCase]) -> None:
        answers = list(zip(cases, _ask(target, cases), strict=True))
        answered = [(case, got) for case, got in answers if isinstance(got, Response)]
        verdicts = judge_responses(answered, judges=self.bench.judges, encoder=self.encoder)
        by_case = {case.id: one for (case, _), one in zip(answered, verdicts, strict=True)}
        add_attempts(
            self.store.engine,
            [self._attempt(target, case, got, by_case.get(case.id)) for case, got in answers],
        )
        self._done += len(cases)
        self._errors += len(cases) - len(answered)
        if self.progress:
            at = {"done": self._done, "total": self.total, "errors": self._errors}
            self.progress(Progress(target=target.name, **at))

    def _attempt(
        self, target: Target, case: TestCase, answer: Response | str, verdict: Verdict | None
    ) -> Attempt:
        sent = _stored(case.prompt)
        if isinstance(answer, str) or verdict is None:
            return Attempt(
                execution=self.execution, case_id=case.id, target=target.name, sent=sent,
                received="", decision="error", scores={}, success=False, latency_ms=0.0,
                error=str(answer),
            )  # fmt: skip
        return Attempt(
            execution=self.execution, case_id=case.id, target=target.name, sent=sent,
            received=_stored(answer.text), decision=answer.decision, scores=verdict.scores,
            success=verdict.success, latency_ms=answer.latency_ms,
        )  # fmt: skip


def _ask(target: Target, cases: Sequence[TestCase]) -> list[Response | str]:
    """Return a response per case, or what went wrong; a failing batch is asked again one by one."""
    answers = _respond(target, [case.prompt for case in cases])
    if isinstance(answers, list):
        return list(answers)
    if len(cases) == 1:
        return [answers]
    alone = (_respond(target, [case.prompt]) for case in cases)
    return [one[0] if isinstance(one, list) else one for one in alone]


def _respond(target: Target, prompts: Sequence[str]) -> list[Response] | str:
    try:
        answers = target.respond(prompts)
        if len(answers) != len(prompts):
            return f"{len(answers)} responses to {len(prompts)} prompts"
        return [_checked(answer) for answer in answers]
    except (BudgetError, StoreError):  # ours to stop at, not the target's failure
        raise
    except Exception as error:  # noqa: BLE001 - a target is somebody else's code
        return _stored(f"{type(error).__name__}: {error}")[:500]


def _checked(answer: Response) -> Response:
    if answer.decision not in get_args(Decision):
        raise ValueError(f"decision is {answer.decision!r}; not one of {get_args(Decision)}")
    latency_ms = float(answer.latency_ms)
    if not 0 <= latency_ms < math.inf:
        raise ValueError(f"latency_ms is {latency_ms}; not a time")
    return Response(text=_clean(answer.text), decision=answer.decision, latency_ms=latency_ms)


def _stored(text: str) -> str:
    return redact(_clean(text))


def _clean(text: str) -> str:
    # Lone surrogates and NUL are legal in Python, and in no database.
    whole = text[:_KEPT_CHARS].encode("utf-8", "replace").decode("utf-8")
    return whole.replace("\x00", "\ufffd")
