"""Who judges what came back: one grader for guards, one for models that answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from workbench.campaign.targets.base import Response
from workbench.core.identity import content_id
from workbench.judge.opinions import Exchange
from workbench.store.records import TestCase
from workbench.store.results import JudgeReport

if TYPE_CHECKING:
    from workbench.embedding.encoder import Encoder
    from workbench.judge.panel import Panel
    from workbench.judge.probe import Bench

__all__ = ["AnswerGrader", "Grader", "GuardGrader", "Verdict"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the judges make of one response."""

    success: bool
    """Attack: it got through. Control: it was spoilt."""
    scores: Mapping[str, float]
    """Judge id → probability of the worst reading."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Judge id → why, in words."""
    is_judged: bool = True
    """Whether anybody had an opinion; without one the attempt counts neither way."""


class Grader(Protocol):
    """Says of each response whether the attack succeeded."""

    @property
    def id(self) -> str:
        """Equal ids, equal verdicts."""
        ...

    @property
    def reports(self) -> Sequence[JudgeReport]:
        """The probes among its judges, with their own error."""
        ...

    @property
    def accuracy(self) -> Sequence[Mapping[str, Any]]:
        """Precision and recall on labelled answers of its judges of answers."""
        ...

    @property
    def thresholds(self) -> Mapping[str, float]:
        """Judge id → score from which it says that an attack succeeded."""
        ...

    async def grade(self, answered: Sequence[tuple[TestCase, Response]]) -> list[Verdict]:
        """Return a verdict per response, in order."""
        ...


class GuardGrader:
    """Judges what a guard lets through; see ``campaign.verdicts`` for the rules."""

    accuracy: tuple[Mapping[str, Any], ...] = ()

    def __init__(self, bench: Bench, *, encoder: Encoder) -> None:
        from workbench.campaign.verdicts import RULE

        self._bench = bench
        self._encoder = encoder
        self.id = content_id({"bench": bench.id, "encoder": encoder.id, "rule": RULE})
        self.reports = tuple(bench.reports)
        self.thresholds = {judge.id: float(judge.threshold) for judge in bench.judges}

    async def grade(self, answered: Sequence[tuple[TestCase, Response]]) -> list[Verdict]:
        """Return a verdict per response; each distinct text is scored once."""
        import asyncio

        from workbench.campaign.verdicts import judge_responses

        return await asyncio.to_thread(
            judge_responses, answered, judges=self._bench.judges, encoder=self._encoder
        )


class AnswerGrader:
    """Judges a model's answers by a panel: cheap judges first, a strong one for what they flag.

    Args:
        panel: The judges.
        accuracy: What they are worth on labelled answers.
        reports: Those of them that are probes, with their own error.
    """

    def __init__(
        self,
        panel: Panel,
        *,
        accuracy: Sequence[Mapping[str, Any]] = (),
        reports: Sequence[JudgeReport] = (),
    ) -> None:
        self._panel = panel
        self.id = panel.id
        self.accuracy = tuple(accuracy)
        self.reports = tuple(reports)
        self.thresholds = dict(panel.thresholds)

    async def grade(self, answered: Sequence[tuple[TestCase, Response]]) -> list[Verdict]:
        """Return a verdict per answer; may spend money where the panel has a strong judge."""
        exchanges = [
            Exchange(
                goal=case.goal,
                prompt=case.prompt,
                answer=got.text,
                turns=case.turns,
                earlier=got.replies,
                is_declined=got.decision == "block",
                is_control=case.is_control,
                assertions=case.assertions,
                category=case.category,
            )
            for case, got in answered
        ]
        return [
            Verdict(
                success=one.success,
                scores=one.scores,
                reasons=one.reasons,
                is_judged=one.is_judged,
            )
            for one in await self._panel.judge(exchanges)
        ]
