"""Executions as logs of Inspect, where the extra ``inspect`` is installed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from workbench.campaign.interop.incoming import of_one_target, paired
from workbench.core.errors import ConfigError, DataError
from workbench.store.records import Attempt, TestCase, now

__all__ = ["SCORER", "write_inspect_log"]

SCORER: Final = "attack_success"
"""Name of the score: 1 where the attack succeeded or the control was spoilt, else 0."""
_FACTS: Final = ("plugin", "strategies", "category", "severity", "taxonomy", "is_control")


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
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{error.name} is not installed; pip install 'prompt-safety-workbench[inspect]'"
        ) from None
    tried = of_one_target(paired(attempts, cases))
    first, moment = tried[0][0], now()
    judged = [one for one, _ in tried if not one.error]
    rate = sum(one.success for one in judged) / len(judged) if judged else 0.0
    metrics = {"mean": log.EvalMetric(name="mean", value=rate)}
    record = log.EvalLog(
        status="success",
        eval=log.EvalSpec(
            created=moment, task="campaign", task_id=first.execution, run_id=first.execution,
            eval_id=first.execution, model=first.target,
            dataset=log.EvalDataset(name="test set", samples=len({case.id for _, case in tried})),
            config=log.EvalConfig(epochs=max(one.trial for one, _ in tried) + 1),
        ),
        results=log.EvalResults(
            total_samples=len(tried), completed_samples=len(judged),
            scores=[log.EvalScore(name=SCORER, scorer=SCORER, metrics=metrics)],
        ),
        stats=log.EvalStats(started_at=moment, completed_at=moment),
        samples=[_sample(one, case) for one, case in tried],
    )  # fmt: skip
    log.write_eval_log(record, str(path))


def _sample(attempt: Attempt, case: TestCase) -> Any:
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ModelOutput
    from inspect_ai.scorer import Score

    why = "; ".join(filter(None, attempt.reasons.values())) or None
    score = Score(value=float(attempt.success), answer=attempt.decision, explanation=why,
                  metadata=dict(attempt.scores))  # fmt: skip
    said = ModelOutput.from_content(attempt.target, attempt.received, error=attempt.error or None)
    return EvalSample(
        id=case.id, epoch=attempt.trial + 1, input=attempt.sent, target=case.goal, output=said,
        scores=None if attempt.error else {SCORER: score}, total_time=attempt.latency_ms / 1000,
        metadata={**{name: getattr(case, name) for name in _FACTS}, "usd": str(attempt.usd)},
    )  # fmt: skip
