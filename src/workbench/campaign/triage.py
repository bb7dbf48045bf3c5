"""What got through, worst first, with a label to start from."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import insert, select

from workbench.campaign.executions import Execution
from workbench.campaign.strategies.catalog import LAYER, PLAIN, ChainKind, chain_kind
from workbench.core.identity import text_id
from workbench.store import schema
from workbench.store.database import Store
from workbench.store.records import Attempt, Finding, TestCase, TestSet

__all__ = ["SEVERITIES", "find", "record", "suggest_label"]

SEVERITIES = ("critical", "high", "medium", "low")
"""Worst first."""


def suggest_label(*, kind: ChainKind, decision: str) -> str:
    """Return a label for a reviewer to confirm: what kind of miss this looks like.

    Args:
        kind: What the chain does to the goal.
        decision: What the target did.
    """
    return f"harmful-rewrite-{kind}" if decision == "rewrite" else f"missed-{kind}"


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


def record(store: Store, findings: list[Finding]) -> int:
    """Return how many findings were new; those known keep their triage.

    Writes to the store.
    """
    table = schema.findings
    executions = {one.execution for one in findings}
    with store.engine.begin() as connection:
        query = select(table.c.id).where(table.c.execution.in_(executions))
        known = set(connection.execute(query).scalars())
        new = [asdict(one) for one in findings if one.id not in known]
        if new:
            connection.execute(insert(table), new)
    return len(new)


def _finding(attempt: Attempt, case: TestCase, test_set: str) -> Finding:
    return Finding(
        id=text_id(attempt.execution, attempt.target, attempt.case_id),
        execution=attempt.execution,
        test_set=test_set,
        case_id=case.id,
        target=attempt.target,
        plugin=case.plugin,
        strategy=LAYER.join(case.strategies) or PLAIN,
        category=case.category,
        severity=case.severity,
        score=sum(attempt.scores.values()) / len(attempt.scores),
        suggested_label=suggest_label(kind=chain_kind(case.strategies), decision=attempt.decision),
        sent=attempt.sent,
        received=attempt.received,
    )
