"""Findings and what people say of them: the state of each, and a log that only grows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, Engine, func, insert, select, update

from workbench.core.errors import DataError
from workbench.core.plain import storable
from workbench.store import schema
from workbench.store.records import Finding, now
from workbench.store.transaction import retried, transaction, turn

__all__ = [
    "add_findings", "confirm_findings", "count_findings", "findings", "resolve_finding", "triage",
    "triage_log",
]  # fmt: skip

_CHUNK = 500
"""Ids per query: fewer than any database allows variables."""


@retried
def add_findings(engine: Engine, found: Iterable[Finding]) -> list[Finding]:
    """Write the findings that are not there yet and return them; those known keep their triage."""
    table = schema.findings
    rows = {one.id: one for one in found}
    executions = {one.execution for one in rows.values()}
    query = select(table.c.id).where(table.c.execution.in_(executions))
    with turn(engine, table) as connection:  # who made the same execution finds the same
        for known in connection.execute(query).scalars().all():
            rows.pop(known, None)
        if rows:
            connection.execute(insert(table), [_row(one) for one in rows.values()])
    return list(rows.values())


def _row(finding: Finding) -> dict[str, Any]:
    """Return a finding as a row; what it takes from test cases may hold what no database does."""
    row = asdict(finding)
    return row | {name: storable(value) for name, value in row.items() if isinstance(value, str)}


@retried
def findings(
    engine: Engine, execution: str = "", *, status: str = "", owner: str = "",
    ids: Sequence[str] = (), user: str = "",
) -> list[Finding]:  # fmt: skip
    """Return findings, those of the highest risk first.

    Args:
        engine: Of the store.
        execution: Only those of this one.
        status: Only those in this state.
        owner: Only those that this person looks after.
        ids: Only these.
        user: Only those of test sets that this user owns.
    """
    table = schema.findings
    query = select(table).order_by(table.c.risk.desc(), table.c.id)
    for column, value in (("execution", execution), ("status", status), ("owner", owner)):
        if value:
            query = query.where(table.c[column] == value)
    query = query.where(_may_see(user)) if user else query
    ids = list(dict.fromkeys(ids))
    pages = [ids[at : at + _CHUNK] for at in range(0, len(ids), _CHUNK)] or [[]]
    found: list[Finding] = []
    with transaction(engine) as connection:
        for page in pages:
            asked = query.where(table.c.id.in_(page)) if page else query
            found += [Finding(**row) for row in connection.execute(asked).mappings()]
    return sorted(found, key=lambda one: (-one.risk, one.id)) if pages[1:] else found


def _may_see(user: str) -> ColumnElement[bool]:
    """Return the condition that a user owns the test set of a finding, or nobody does."""
    owners = schema.test_set_owners.c
    test_set = schema.findings.c.test_set
    mine = select(owners.test_set).where(owners.owner == user)
    return test_set.in_(mine) | test_set.not_in(select(owners.test_set))


@retried
def resolve_finding(engine: Engine, beginning: str, *, execution: str = "", user: str = "") -> str:
    """Return the id of the finding that begins so, of the execution and the user if they are given.

    Raises:
        DataError: If none does, or several do.
    """
    table = schema.findings
    query = select(table.c.id).where(table.c.id.startswith(beginning, autoescape=True)).limit(2)
    if execution:
        query = query.where(table.c.execution == execution)
    query = query.where(_may_see(user)) if user else query
    with transaction(engine) as connection:
        found = connection.execute(query).scalars().all()
    if len(found) != 1:
        where = f" of execution {execution[:12]}" if execution else ""
        many = "several" if found else "no"
        raise DataError(f"{many} findings{where} begin with {beginning!r}; give the id of one")
    return str(found[0])


def triage(
    engine: Engine, ids: Sequence[str], changes: Mapping[str, Any], *, who: str, note: str = "",
    minutes: float = 0.0,
) -> None:  # fmt: skip
    """Change findings and log it, all or nothing.

    Args:
        engine: Of the store.
        ids: Whole ids of findings that are there.
        changes: Column → new value: ``status``, ``owner``, ``summary``.
        who: Who says so.
        note: Why, in words; redacted by the caller.
        minutes: Spent on each of them, added to what it took so far.
    """
    table, log = schema.findings, schema.triage_log
    at = now()
    with transaction(engine) as connection:
        for one in dict.fromkeys(ids):
            mine = table.c.id == one
            names = [table.c[name] for name in changes] or [table.c.status]
            before = dict(connection.execute(select(*names).where(mine)).mappings().one())
            changed = {
                name: [before[name], value]
                for name, value in changes.items()
                if before[name] != value
            }
            values = {**changes, "minutes": table.c.minutes + minutes}
            connection.execute(update(table).where(mine).values(values))
            row = {"at": at, "finding": one, "who": who, "changed": changed, "note": note}
            connection.execute(insert(log), {**row, "minutes": minutes})


def confirm_findings(
    engine: Engine, beginnings: Iterable[str], *, execution: str, who: str
) -> None:
    """Say that a person found findings to be real; ids may be cut short.

    Raises:
        DataError: If none of the execution, or several, begin so; nothing was confirmed then.
    """
    ids = [resolve_finding(engine, one, execution=execution, user=who) for one in beginnings]
    triage(engine, ids, {"status": "confirmed"}, who=who)


@retried
def triage_log(engine: Engine, ids: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return what was said of findings, oldest first: at, finding, who, changed, note, minutes."""
    table = schema.triage_log
    query = select(table).order_by(table.c.id)
    ids = list(dict.fromkeys(ids))
    pages = [ids[at : at + _CHUNK] for at in range(0, len(ids), _CHUNK)] or [[]]
    found: list[dict[str, Any]] = []
    with transaction(engine) as connection:
        for page in pages:
            asked = query.where(table.c.finding.in_(page)) if page else query
            found += [dict(row) for row in connection.execute(asked).mappings()]
    return sorted(found, key=lambda row: row["id"])


@retried
def count_findings(engine: Engine, execution: str) -> dict[str, int]:
    """Return state → findings of an execution in it."""
    table = schema.findings
    query = select(table.c.status, func.count()).where(table.c.execution == execution)
    with transaction(engine) as connection:
        return {row[0]: row[1] for row in connection.execute(query.group_by(table.c.status))}
