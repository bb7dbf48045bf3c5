"""Findings, attempts and executions as triage meets them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from workbench.store.records import Attempt, Finding, TestCase


@dataclass
class Tried:
    """A finished execution in memory."""

    made: list[Attempt]
    targets: tuple[str, ...] = ("guard",)
    baselines: tuple[str, ...] = ()
    kinds: dict[str, str] = field(default_factory=lambda: {"guard": "guard", "model": "model"})
    thresholds: dict[str, float] = field(default_factory=lambda: {"a": 0.5, "b": 0.5})
    id: str = "e" * 64
    test_set: str = "t" * 64

    def attempts(self) -> Iterable[Attempt]:
        return iter(self.made)


def make_attempt(case: TestCase, **changes) -> Attempt:
    facts = {
        "execution": "e" * 64, "case_id": case.id, "target": "guard", "sent": case.prompt,
        "received": case.prompt, "decision": "pass", "scores": {"a": 0.9, "b": 0.8},
        "success": True, "latency_ms": 1.0,
    }  # fmt: skip
    return Attempt(**facts | changes)


def make_finding(number: int, **changes) -> Finding:
    facts = {
        "id": f"{number:08x}" * 8, "execution": "e" * 64, "test_set": "t" * 64,
        "case_id": f"case-{number}", "target": "guard", "plugin": "harm-violence",
        "strategy": "plain", "category": "violence", "severity": "high", "score": 0.8,
        "suggested_label": "missed-plain", "risk": 0.5, "sent": f"sent {number}",
        "received": f"received {number}",
    }  # fmt: skip
    made = Finding(**facts | changes)
    return made if made.cluster else Finding(**vars(made) | {"cluster": made.id})
