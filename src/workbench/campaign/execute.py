"""Phase 2: a test set against any targets, each case once, whatever is killed in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from filelock import FileLock

from workbench.campaign.executions import AttemptRows, Execution, is_finished, load_execution
from workbench.campaign.targets.base import Decision, Response, Target
from workbench.campaign.verdicts import RULE, Verdict, judge_responses
from workbench.core.errors import BudgetError, ConfigError
from workbench.core.identity import content_id
from workbench.core.redact import redact
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
    execution_id: str | None = None,
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
        execution_id: Another id than the hash of test set, targets and judges, e.g. to repeat.
        progress: Called after each stored batch.

    Raises:
        ConfigError: If there is no target or judge, or two targets share a name.
        BudgetError: If a target reached its limit; what is stored is kept.
        StoreError: If the disk is full or read-only.
    """
    names = [target.name for target in targets]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"targets are {names}; give at least one, each with a name of its own")
    if not bench.judges:
        raise ConfigError("the bench has no judges; train it with judge.probe.train_bench")
    execution_id = execution_id or execution_id_of(test_set, targets, bench, encoder=encoder)
    lock = store.home / "locks" / f"{execution_id[:32]}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):  # a second process waits, then finds everything done
        rows = AttemptRows(store, execution_id)
        total = len(test_set.cases) * len(targets)
        if is_finished(store, execution_id):
            rows.remove()
            return load_execution(store, execution_id, resumed=total)
        runner = _Runner(
            execution=execution_id, rows=rows, bench=bench, encoder=encoder, total=total,
            progress=progress,
        )  # fmt: skip
        for target in targets:
            runner.run(target, test_set.cases)
        rows.compact(
            {
                "execution": execution_id,
                "test_set": test_set.id,
                "targets": names,
                "identities": {target.name: target.identity for target in targets},
                "baselines": [target.name for target in targets if not target.defends],
                "rule": RULE,
                "judges": list(bench.reports),
                "thresholds": {judge.id: float(judge.threshold) for judge in bench.judges},
            }
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


class _Runner:
    def __init__(
        self,
        *,
        execution: str,
        rows: AttemptRows,
        bench: Bench,
        encoder: Encoder,
        total: int,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self._execution = execution
        self._rows = rows
        self._bench = bench
        self._encoder = encoder
        self._total = total
        self._progress = progress
        self._done = 0
        self._errors = 0
        self.resumed = 0

    def run(self, target: Target, cases: Sequence[TestCase]) -> None:
        finished = self._rows.done(target.name)
        left = [case for case in cases if case.id not in finished]
        self.resumed += len(cases) - len(left)
        self._done += len(cases) - len(left)
        for start in range(0, len(left), _BATCH):
            self._run_batch(target, left[start : start + _BATCH])

    def _run_batch(self, target: Target, cases: Sequence[TestCase]) -> None:
        answers = _ask(target, cases)
        answered = [
            (case, answer)
            for case, answer in zip(cases, answers, strict=True)
            if isinstance(answer, Response)
        ]
        verdicts = judge_responses(
            [case for case, _ in answered],
            [answer for _, answer in answered],
            judges=self._bench.judges,
            encoder=self._encoder,
        )
        by_case = {case.id: verdict for (case, _), verdict in zip(answered, verdicts, strict=True)}
        self._rows.add(
            self._attempt(target, case, answer, by_case.get(case.id))
            for case, answer in zip(cases, answers, strict=True)
        )
        self._done += len(cases)
        self._errors += len(cases) - len(answered)
        if self._progress:
            self._progress(
                Progress(
                    target=target.name, done=self._done, total=self._total, errors=self._errors
                )
            )

    def _attempt(
        self, target: Target, case: TestCase, answer: Response | str, verdict: Verdict | None
    ) -> Attempt:
        got = answer if isinstance(answer, Response) else None
        return Attempt(
            execution=self._execution,
            case_id=case.id,
            target=target.name,
            sent=_stored(case.prompt),
            received=_stored(got.text) if got else "",
            decision=got.decision if got else "error",
            scores=verdict.scores if verdict else {},
            success=verdict.success if verdict else False,
            latency_ms=float(got.latency_ms) if got else 0.0,
            error="" if isinstance(answer, Response) else answer,
        )


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
    except BudgetError:
        raise
    except Exception as error:  # noqa: BLE001 - a target is somebody else's code
        return _stored(f"{type(error).__name__}: {error}")[:500]


def _checked(answer: Response) -> Response:
    if answer.decision not in get_args(Decision):
        raise ValueError(f"decision is {answer.decision!r}; not one of {get_args(Decision)}")
    return Response(
        text=_clean(answer.text), decision=answer.decision, latency_ms=float(answer.latency_ms)
    )


def _stored(text: str) -> str:
    return redact(_clean(text))


def _clean(text: str) -> str:
    # Lone surrogates and NUL are legal in Python, and in no database.
    whole = text[:_KEPT_CHARS].encode("utf-8", "replace").decode("utf-8")
    return whole.replace("\x00", "\ufffd")
