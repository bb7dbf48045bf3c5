"""The register by page: how many risks pass a choice, and some of them in order."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import ColumnElement, Engine, case, func, or_, select

from workbench.core.fields import refuse_unknown
from workbench.store import schema
from workbench.store.risk_rules import LEVELS
from workbench.store.transaction import transaction

__all__ = ["RiskChoice", "overdue", "risk_count", "risk_page"]

_EXACT = ("status", "level", "asset", "subject", "kind", "owner")
_SEARCHED = ("id", "subject", "title", "asset", "component", "owner", "decision", "reason")


@dataclass(frozen=True, kw_only=True)
class RiskChoice:
    """Which risks are wanted; what is empty chooses nothing."""

    status: str = ""
    level: str = ""
    asset: str = ""
    subject: str = ""
    kind: str = ""
    owner: str = ""
    overdue_on: date | None = None
    """Only those past their due date, or the end of their acceptance, on that day."""
    ids: tuple[str, ...] = ()
    """Only these, 500 at most."""
    words: str = ""
    """Only those that have these words in id, subject, title, asset, component, owner, decision or
    reason, whatever the case."""

    def tests(self) -> list[ColumnElement[bool]]:
        """Return the conditions that say so."""
        table = schema.risks.c
        wanted = {name: getattr(self, name) for name in _EXACT}
        found = [table[name] == value for name, value in wanted.items() if value]
        if self.ids:
            found.append(table.id.in_(self.ids))
        if self.overdue_on:
            found.append(overdue(self.overdue_on.isoformat()))
        if self.words:
            has = (table[name].icontains(self.words, autoescape=True) for name in _SEARCHED)
            found.append(or_(*has))
        return found


def risk_count(engine: Engine, choice: RiskChoice) -> int:
    """Return how many risks pass."""
    query = select(func.count()).select_from(schema.risks).where(*choice.tests())
    with transaction(engine) as connection:
        return int(connection.execute(query).scalar_one())


def risk_page(
    engine: Engine, choice: RiskChoice, *, sort: str = "score", descending: bool = True,
    limit: int, offset: int = 0,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return some of the risks that pass, sorted; equal ones worst first.

    Args:
        engine: Of the store.
        choice: Which.
        sort: A column; no due date sorts after all dates.
        descending: Whether the largest come first.
        limit: Most to return.
        offset: How many to leave out before.

    Raises:
        ConfigError: If there is no such column.
    """
    refuse_unknown([sort], known=schema.risks.c.keys(), where="sort")
    by = _sortable(sort)
    order = (by.desc() if descending else by, *_worst_first())
    query = select(schema.risks).where(*choice.tests()).order_by(*order)
    with transaction(engine) as connection:
        rows = connection.execute(query.limit(limit).offset(offset)).mappings()
        return [dict(row) for row in rows]


def overdue(day: str) -> ColumnElement[bool]:
    """Return the condition that a risk is past its due date, or its acceptance past its end."""
    table = schema.risks.c
    return (table.status != "closed") & (table.due != "") & (table.due < day)


def _sortable(name: str) -> ColumnElement[Any]:
    """Return what a column sorts by: levels by their weight, no due date after all dates."""
    column = schema.risks.c[name]
    if name == "level":
        return case(LEVELS, value=column, else_=-1)
    return func.coalesce(func.nullif(column, ""), "9999") if name == "due" else column


def _worst_first() -> tuple[ColumnElement[Any], ...]:
    """Return the order of risks that are equal otherwise."""
    table = schema.risks.c
    return (table.score.desc(), table.p_exploit.desc(), table.annual_loss_usd.desc(),
            table.subject, table.id)  # fmt: skip
