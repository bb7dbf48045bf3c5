"""Executions as logs of Inspect, where the extra ``inspect`` is installed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from workbench.core.errors import ConfigError, DataError
from workbench.store.records import Attempt, TestCase, now

__all__ = ["SCORER", "write_inspect_log"]

SCORER: Final = "attack_success"
"""Name of the score: 1 where the attack succeeded or the control was spoilt, else 0."""


def write_inspect_log(
    attempts: Iterable[Attempt], path: Path, *, cases: Iterable[TestCase]
) -> None:
    """Write attempts on one target as an evaluation log that ``inspect view`` shows.

    Args:
        attempts: What was tried; all of it is in memory.
        path: Where to; a name that ends in ``.eval`` or ``.json``.
        cases: What the attempts are of.

    Raises:
        ConfigError: If Inspect is not installed.
        DataError: If the name ends otherwise, or the attempts are on several targets, none, or of
            none of the cases.
    """
    if path.suffix not in {".eval", ".json"}:
        raise DataError(f"{path}: a log of Inspect ends in .eval or .json; rename it")
    try:
        from inspect_ai import log
        from inspect_ai.model import ModelOutput
        from inspect_ai.scorer import Score
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{error.name} is not installed; pip install 'prompt-safety-workbench[inspect]'"
        ) from None
    known = {case.id: case for case in cases}
    tried = list(attempts)
    targets = sorted({one.target for one in tried})
    if len(targets) != 1:
        raise DataError(f"{len(targets)} targets; a log is of one, so write one file for each")
    strange = next((one.case_id for one in tried if one.case_id not in known), "")
    if strange:
        raise DataError(
            f"attempt of case {strange[:12]!r}: none of the cases; give the test set that was "
            "executed"
        )

    def sample(attempt: Attempt) -> Any:
        case = known[attempt.case_id]
        score = Score(
            value=float(attempt.success),
            answer=attempt.decision,
            explanation="; ".join(filter(None, attempt.reasons.values())) or None,
            metadata=dict(attempt.scores),
        )
        return log.EvalSample(
            id=case.id,
            epoch=attempt.trial + 1,
            input=attempt.sent,
            target=case.goal,
            output=ModelOutput.from_content(
                attempt.target, attempt.received, error=attempt.error or None
            ),
            scores=None if attempt.error else {SCORER: score},
            total_time=attempt.latency_ms / 1000,
            metadata=_facts(attempt, case),
        )

    judged = [one for one in tried if not one.error]
    rate = sum(one.success for one in judged) / len(judged) if judged else 0.0
    moment = now()
    record = log.EvalLog(
        status="success",
        eval=log.EvalSpec(
            created=moment,
            task="campaign",
            task_id=tried[0].execution,
            run_id=tried[0].execution,
            eval_id=tried[0].execution,
            dataset=log.EvalDataset(name="test set", samples=len(known)),
            model=targets[0],
            config=log.EvalConfig(epochs=max(one.trial for one in tried) + 1),
        ),
        results=log.EvalResults(
            total_samples=len(tried),
            completed_samples=len(judged),
            scores=[
                log.EvalScore(
                    name=SCORER,
                    scorer=SCORER,
                    metrics={"mean": log.EvalMetric(name="mean", value=rate)},
                )
            ],
        ),
        stats=log.EvalStats(started_at=moment, completed_at=moment),
        samples=[sample(one) for one in tried],
    )
    log.write_eval_log(record, str(path))


def _facts(attempt: Attempt, case: TestCase) -> dict[str, Any]:
    return {
        "plugin": case.plugin,
        "strategies": list(case.strategies),
        "category": case.category,
        "severity": case.severity,
        "taxonomy": list(case.taxonomy),
        "is_control": case.is_control,
        "usd": str(attempt.usd),
    }
