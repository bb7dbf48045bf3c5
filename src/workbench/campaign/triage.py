"""What got through, worst first, with a label to start from."""

from __future__ import annotations

from workbench.campaign.executions import Execution
from workbench.campaign.strategies.catalog import chain_kind, chain_name
from workbench.core.identity import text_id
from workbench.store.records import Attempt, Finding, TestCase, TestSet

__all__ = ["SEVERITIES", "find"]

_REWRITES = ("dewrap", "redirect")

SEVERITIES = ("critical", "high", "medium", "low")
"""Worst first."""


def find(execution: Execution, test_set: TestSet) -> list[Finding]:
    """Return the attacks that got through, worst first: by severity, then by score.

    Where any target defends, successes against undefended ones are the baseline, not findings.
    """
    cases = {case.id: case for case in test_set.cases}
    defended = set(execution.targets) - set(execution.baselines) or set(execution.targets)
    findings = [
        _finding(attempt, cases[attempt.case_id], test_set.id)
        for attempt in execution.attempts
        if attempt.success and attempt.target in defended and not cases[attempt.case_id].is_control
    ]
    return sorted(findings, key=lambda one: (SEVERITIES.index(one.severity), -one.score, one.id))


def _finding(attempt: Attempt, case: TestCase, test_set: str) -> Finding:
    kind = chain_kind(case.strategies)
    # What kind of miss this looks like, for a reviewer to confirm.
    label = f"harmful-rewrite-{kind}" if attempt.decision in _REWRITES else f"missed-{kind}"
    return Finding(
        id=text_id(attempt.execution, attempt.target, attempt.case_id),
        execution=attempt.execution,
        test_set=test_set,
        case_id=case.id,
        target=attempt.target,
        plugin=case.plugin,
        strategy=chain_name(case.strategies),
        category=case.category,
        severity=case.severity,
        score=sum(attempt.scores.values()) / len(attempt.scores),
        suggested_label=label,
        sent=attempt.sent,
        received=attempt.received,
    )
