"""What models write of a test set, priced before anything is spent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

from workbench.campaign.conduct import generation_work, open_attacker
from workbench.campaign.generate import Preview, fill, planned
from workbench.core.errors import ConfigError
from workbench.core.money import ZERO, show_usd
from workbench.llm.config import read_config
from workbench.store.campaigns import spent
from workbench.store.database import Store

__all__ = ["write_drafts"]


async def write_drafts(
    store: Store, plan: Preview, *, budget_usd: Decimal, tell: Callable[[str], None] = print
) -> tuple[Preview, Decimal]:
    """Return the plan with what models wrote, and what that was billed in all; spends money.

    A plan that leaves nothing to models comes back as it is.

    Args:
        store: Where spending is entered.
        plan: What is to be written.
        budget_usd: Most to spend; at 0 the estimate is told and no model is asked.
        tell: Called with the estimate, and when calls are held.

    Raises:
        ConfigError: If something has to be written and the budget is 0.
        BudgetError: At the limit. Answers are kept: called again, it goes on.
    """
    if not plan.pending:
        return plan, ZERO
    config = read_config(store.settings)
    config = replace(config, budgets=replace(config.budgets, run=budget_usd))
    async with open_attacker(
        store, plan, config=config, is_rehearsed=not budget_usd, tell=tell
    ) as (attacker, gateway):  # fmt: skip
        expected = await gateway.estimate(planned(plan, attacker), is_kept=bool(budget_usd))
        low, likely, worst = (show_usd(Decimal(one)) for one in expected.usd)
        told = f"a model has to write {len(plan.pending)} cases: {expected.calls} calls"
        tell(f"{told}, {expected.hits} more at hand; {likely} ({low} to {worst})")
        if not budget_usd:
            names = sorted({slot.cell.key[1] for slot in plan.pending.values()})
            raise ConfigError(
                f"{', '.join(names)}: a model writes these, and the budget is $0; set"
                f" attack_budget_usd (worst case {worst}), or choose other strategies"
            )
        plan = await fill(plan, attacker)
    return plan, spent(store.engine, generation_work(plan))
