"""The rows of campaigns: attempts while an execution runs, findings, and who owns a test set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from sqlalchemy import Engine, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from workbench.core.errors import DataError
from workbench.store import schema
from workbench.store.records import Attempt, Finding, now
from workbench.store.transaction import transaction

__all__ = [
    "add_attempts", "add_findings", "add_test_set_owner", "attempt_pages", "attempted",
    "confirm_findings", "findings", "owned_test_sets", "remove_attempts",
]  # fmt: skip


def attempted(engine: Engine, execution: str, *, target: str) -> set[str]:
    """Return the ids of the cases that were already sent to a target."""
    table = schema.attempts
    query = select(table.c.case_id).where(table.c.execution == execution, table.c.target == target)
    with transaction(engine) as connection:
        return set(connection.execute(query).scalars())


def add_attempts(engine: Engine, attempts: Iterable[Attempt]) -> None:
    """Write attempts in one transaction."""
    rows = [asdict(attempt) | {"usd": str(attempt.usd)} for attempt in attempts]
    with transaction(engine) as connection:
        connection.execute(insert(schema.attempts), rows)


def attempt_pages(engine: Engine, execution: str, *, rows: int) -> Iterator[list[dict[str, Any]]]:
    """Give the attempts of an execution by target, then case, so many rows at a time."""
    table = schema.attempts
    query = select(table).where(table.c.execution == execution)
    query = query.order_by(table.c.target, table.c.case_id)
    with transaction(engine) as connection:
        for page in connection.execute(query).mappings().partitions(rows):
            yield [dict(row) for row in page]


def remove_attempts(engine: Engine, execution: str) -> None:
    """Remove the rows of an execution, once its artifact stands."""
    table = schema.attempts
    with transaction(engine) as connection:
        connection.execute(delete(table).where(table.c.execution == execution))


def add_findings(engine: Engine, findings: Iterable[Finding]) -> None:
    """Write the findings that are not there yet; those known keep their triage."""
    table = schema.findings
    rows = {one.id: asdict(one) for one in findings}
    executions = {row["execution"] for row in rows.values()}
    query = select(table.c.id).where(table.c.execution.in_(executions))
    with transaction(engine) as connection:
        for known in connection.execute(query).scalars().all():
            rows.pop(known, None)
        if rows:
            connection.execute(insert(table), list(rows.values()))


def findings(engine: Engine, execution: str) -> list[Finding]:
    """Return the findings of an execution, in the order of their ids."""
    table = schema.findings
    query = select(table).where(table.c.execution == execution).order_by(table.c.id)
    with transaction(engine) as connection:
        return [Finding(**row) for row in connection.execute(query).mappings()]


def confirm_findings(engine: Engine, beginnings: Iterable[str], *, execution: str) -> None:
    """Say that a person found findings to be real; ids may be cut short.

    Raises:
        DataError: If none of the execution, or several, begin so; nothing was confirmed then.
    """
    table = schema.findings
    with transaction(engine) as connection:
        for beginning in beginnings:
            begins = table.c.id.startswith(beginning, autoescape=True)
            mine = begins & (table.c.execution == execution)
            done = connection.execute(update(table).where(mine).values(status="confirmed"))
            if done.rowcount != 1:
                raise DataError(
                    f"{done.rowcount} findings of execution {execution[:12]} begin with"
                    f" {beginning!r}; give the id of one"
                )


def add_test_set_owner(
    engine: Engine, test_set: str, *, owner: str, metadata: dict[str, Any]
) -> None:
    """Say that a user owns a test set; where that was said before, the first words stand."""
    row = {"test_set": test_set, "owner": owner, "created_at": now(), "metadata": metadata}
    try:
        with transaction(engine) as connection:
            connection.execute(insert(schema.test_set_owners), row)
    except IntegrityError:
        return


def owned_test_sets(engine: Engine, *, owner: str) -> list[dict[str, Any]]:
    """Return test_set, created_at and metadata of what a user owns, oldest first."""
    table = schema.test_set_owners
    query = select(table).where(table.c.owner == owner).order_by(table.c.created_at)
    with transaction(engine) as connection:
        return [dict(row) for row in connection.execute(query).mappings()]
