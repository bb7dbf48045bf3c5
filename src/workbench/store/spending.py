"""What the ledger says was spent, added up by the database; no row is read one by one."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import Engine, Float, case, cast, func, select

from workbench.core.money import ZERO
from workbench.store import schema
from workbench.store.ledger import TOKEN
from workbench.store.records import REHEARSAL
from workbench.store.results import SpendRow
from workbench.store.transaction import retried, transaction

__all__ = ["GROUPS", "Spent", "billed_by", "ledger_names", "spending"]

GROUPS = ("phase", "resource", "experiment", "who")
"""Columns of the ledger that spending is told by."""


class Spent(NamedTuple):
    """What a group of ledger rows came to."""

    phase: str
    resource: str
    experiment: str
    who: str
    """Without the mark of rehearsals."""
    billed_usd: Decimal = ZERO
    """Model calls and targets that are paid; lost calls at their worst case."""
    estimated_usd: Decimal = ZERO
    """CPU time and energy at list prices: nobody's bill."""
    rehearsed_usd: Decimal = ZERO
    """What rehearsals would have been billed; part of neither."""


@retried
def spending(engine: Engine, *, experiment: str = "", since: str = "") -> list[Spent]:
    """Return what was spent by phase, resource, experiment and person, the dearest first.

    Args:
        engine: Of the store.
        experiment: Only of this one.
        since: Only from then on, ISO 8601 in UTC.
    """
    table = schema.ledger.c
    # amounts are texts, exact to the last digit: equal ones are counted, not added, by the database
    columns = (*(table[name] for name in GROUPS), table.unit, table.estimated, table.usd)
    query = select(*columns, func.count()).where(table.at >= since).group_by(*columns)
    query = query.where(table.experiment == experiment) if experiment else query
    sums: dict[tuple[str, str, str, str], list[Decimal]] = {}
    with transaction(engine) as connection:
        rows: Iterable[Any] = connection.execute(query)
        for phase, resource, of, who, unit, is_estimated, usd, count in rows:
            person = who.removeprefix(REHEARSAL)
            mine = sums.setdefault((phase, resource, of, person), [ZERO, ZERO, ZERO])
            is_bill = unit == TOKEN or not is_estimated
            mine[1 if not is_bill else 0 if person == who else 2] += Decimal(usd) * count
    found = [Spent(*group, *tuple(amounts)) for group, amounts in sums.items()]
    return sorted(found, key=lambda one: (-one.billed_usd, -one.estimated_usd, *one[:4]))


@retried
def billed_by(engine: Engine, *, who: str, by: str, experiment: str = "") -> list[SpendRow]:
    """Return what somebody was billed by group, dearest first; shares are of the dollars.

    Args:
        engine: Of the store.
        who: Whose; rehearsals are nobody's.
        by: ``step`` (``other`` for what no run caused), or a column of the ledger.
        experiment: Only of this one.
    """
    table, runs = schema.ledger.c, schema.runs.c
    step = select(runs.step).where(runs.id == table.job).scalar_subquery()
    group = (func.coalesce(step, "other") if by == "step" else table[by]).label("group")
    units = {"cpu_s": "core_s", "kwh": "kwh"}
    amounts = [
        case((table.unit == unit, table.quantity), else_=0.0).label(name)
        for name, unit in units.items()
    ]
    amounts.append(cast(table.usd, Float).label("usd"))
    query = select(group, *amounts).where(table.who == who)
    rows = (query.where(table.experiment == experiment) if experiment else query).subquery()
    sums = (func.sum(rows.c[one.name]).label(one.name) for one in amounts)
    with transaction(engine) as connection:
        found = connection.execute(select(rows.c.group, *sums).group_by(rows.c.group)).all()
    whole = sum(one.usd for one in found) or 1.0
    told = [
        SpendRow(
            group=one.group, cpu_s=one.cpu_s, kwh=one.kwh,
            usd=round(one.usd, 9),  # nine places is what rows have, the rest is float's noise
            share=one.usd / whole,
        )
        for one in found
    ]  # fmt: skip
    return sorted(told, key=lambda one: (-one["usd"], one["group"]))


@retried
def ledger_names(engine: Engine, column: str, *, since: str = "") -> set[str]:
    """Return what a column of :data:`GROUPS` holds, of rows since a moment in UTC."""
    named = schema.ledger.c[column]
    query = select(named).where(schema.ledger.c.at >= since).distinct()
    with transaction(engine) as connection:
        return {name.removeprefix(REHEARSAL) for name in connection.execute(query).scalars()}
