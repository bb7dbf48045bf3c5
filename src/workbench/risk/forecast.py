"""What an assessment is going to take, before any of it is spent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from workbench.risk.assess import AssessOptions, Draft, draft
from workbench.risk.documents.retrieve import passages_of
from workbench.risk.explain import ROUTED, estimate_rows
from workbench.risk.explain_rules import RULES

if TYPE_CHECKING:
    from workbench.llm.estimate import Estimate
    from workbench.store.database import Store

__all__ = ["Forecast", "forecast"]


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What would be assessed, and what models would take for it."""

    vulnerabilities: int
    model_risks: int
    assets: int
    snapshot: str
    age_days: int
    problems: tuple[str, ...]
    estimate: Estimate | None = None
    """None: rules explain, which costs nothing."""

    def figures(self) -> dict[str, Any]:
        """Return plain JSON values."""
        told = {k: v for k, v in vars(self).items() if k != "estimate"}
        told["problems"] = list(self.problems)
        return told | {"estimate": self.estimate.figures() if self.estimate else None}


async def forecast(store: Store, options: AssessOptions) -> Forecast:
    """Return what an assessment takes; enters nothing, needs no key, opens no connection.

    Raises:
        InputError: As ``assess.assess``.
    """
    today = options.today or datetime.now(UTC).date()
    made = draft(store, options, today=today)
    assert isinstance(made, Draft)  # nobody is asked to approve
    expected = None
    if options.model != RULES:
        expected = await estimate_rows(
            store, list(made.explained.values()), model=options.model or ROUTED,
            facts=made.manifest, config=options.llm,
            documents=passages_of(store, options.documents) if options.documents else None,
        )  # fmt: skip
    return Forecast(
        vulnerabilities=made.manifest["counts"]["cves"],
        model_risks=made.manifest["counts"]["model_risks"],
        assets=made.manifest["counts"]["assets"],
        snapshot=made.snapshot.id,
        age_days=made.snapshot.age_days(today),
        problems=made.intake.problems,
        estimate=expected,
    )
