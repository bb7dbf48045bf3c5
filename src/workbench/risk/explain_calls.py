"""Calls that explain risks: packed, counted, kept at the limit of a budget, repaired by item."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from workbench.core.errors import BudgetError, ConfigError, ModelError
from workbench.core.money import ZERO
from workbench.risk.explain_checks import Item, Written, read_answer

if TYPE_CHECKING:
    from workbench.llm.gateway import Gateway, Outcome
    from workbench.llm.messages import Request

__all__ = ["ANSWER_TOKENS", "Asking", "Progress", "write"]

Progress = Callable[[int, int], None]
"""Told the calls that are answered, and the calls so far."""

ANSWER_TOKENS: Final = 120
"""Longest answer to one item."""
_FEW = 10
"""Items in a call that asks again."""


class Asking:
    """Asks through a gateway, never raises for what it answers, and counts."""

    def __init__(self, gateway: Gateway, progress: Progress) -> None:
        self.usd, self.model, self.stopped = ZERO, "", ""
        self.outcomes: Counter[str] = Counter()
        self._gateway, self._progress = gateway, progress
        self._asked = self._answered = 0

    async def __call__(self, requests: Sequence[Request]) -> list[Outcome]:
        """Give an outcome per request; those that were not asked any more say why."""
        found: dict[int, Outcome] = {}

        def take(position: int, outcome: Outcome) -> None:
            found[position] = outcome
            self._count(outcome)

        if not self.stopped:
            self._asked += len(requests)
            try:
                await self._gateway.map(requests, on_answer=take)
            except (BudgetError, ConfigError) as error:
                self.stopped = str(error)
        failed = [one for one in found.values() if isinstance(one, ModelError)]
        if failed and len(failed) == len(found):  # a service that is down is not asked 500 times
            self.stopped = self.stopped or str(failed[0])
        unasked = ModelError(self.stopped or "no answer came")
        return [found.get(position, unasked) for position in range(len(requests))]

    def _count(self, outcome: Outcome) -> None:
        self._answered += 1
        if isinstance(outcome, ModelError):
            self.outcomes["failed"] += 1
        else:
            self.outcomes[outcome.outcome] += 1
            self.model = outcome.model or self.model
            self.usd += outcome.usd if outcome.outcome in {"sent", "batch"} else ZERO
        self._progress(self._answered, self._asked)


async def write(
    items: Mapping[str, Item],
    asking: Asking,
    *,
    items_per_call: int,
    instruction: str,
    model: str,
) -> tuple[dict[str, Written], str]:
    """Return what can be used of what a model wrote, by subject, and why there is not more."""
    from workbench.llm.packing import answer_all

    written: dict[str, Written] = {}
    failed: dict[str, str] = {}
    due = dict(items)
    for attempt, size in enumerate((items_per_call, min(_FEW, items_per_call), 1)):
        if not due or asking.stopped or (attempt and not written and len(due) > _FEW):
            break
        found = await answer_all(
            {subject: item.facts for subject, item in due.items()},
            ask=asking, instruction=instruction, items_per_call=size,
            max_tokens_per_item=ANSWER_TOKENS, task="summary", model=model, variant=attempt,
        )  # fmt: skip
        read = {subject: read_answer(text, due[subject]) for subject, text in found.answers.items()}
        written |= {subject: one for subject, one in read.items() if isinstance(one, Written)}
        unusable = {subject: one for subject, one in read.items() if isinstance(one, str)}
        failed |= found.failed | unusable
        due = {subject: due[subject] for subject in unusable}
    lost = {subject: why for subject, why in failed.items() if subject not in written}
    if not lost:
        return written, ""
    subject, why = next(iter(lost.items()))
    return written, f"no usable answer to {len(lost)} of {len(items)}; {subject}: {why}"
