"""What went back and forth in an execution that still runs, a few rows at a time."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, Engine, func, literal_column, or_, select

from workbench.core.errors import DataError
from workbench.core.money import ZERO
from workbench.store import schema
from workbench.store.transaction import transaction

__all__ = ["TURN_COLUMNS", "latest_turns", "spent_by", "turn", "turn_count", "turn_page"]

TURN_COLUMNS = ("target", "case_id", "trial", "decision", "success", "error", "latency_ms")
"""What a list shows of an attempt; ``sent`` and ``received`` come beside them, cut short."""
_KEY = ("target", "case_id", "trial")
_CHARS = 200


def latest_turns(engine: Engine, execution: str, *, limit: int = 5) -> list[dict[str, Any]]:
    """Return the attempts that were stored last, the newest first, their texts cut short.

    None are left once the execution is an artifact.
    """
    table = schema.attempts
    # rows have no time; where the database put them last is where they came last
    place: ColumnElement[Any] = literal_column(
        "rowid" if engine.dialect.name == "sqlite" else "attempts.ctid"
    )
    query = select(*_shown()).where(table.c.execution == execution)
    with transaction(engine) as connection:
        rows = connection.execute(query.order_by(place.desc()).limit(limit)).mappings()
        return [dict(row) for row in rows]


def spent_by(engine: Engine, job: str) -> Decimal:
    """Return what a job was billed so far."""
    table = schema.ledger
    query = select(table.c.usd).where(table.c.job == job, table.c.usd != "0")
    with transaction(engine) as connection:
        return sum(map(Decimal, connection.execute(query).scalars()), ZERO)


def turn(
    engine: Engine, execution: str, *, target: str, case_id: str, trial: int
) -> dict[str, Any]:
    """Return one attempt, whole.

    Raises:
        DataError: If there is none; it may have become part of the artifact by now.
    """
    table = schema.attempts
    query = select(table).where(
        table.c.execution == execution,
        table.c.target == target,
        table.c.case_id == case_id,
        table.c.trial == trial,
    )
    with transaction(engine) as connection:
        row = connection.execute(query).mappings().first()
    if row is None:
        raise DataError(f"no attempt at case {case_id[:12]} is stored; read the list again")
    return dict(row)


def turn_count(engine: Engine, execution: str, *, words: str = "") -> int:
    """Return how many attempts there are that have the words in target, decision, error or text."""
    query = select(func.count()).where(*_passing(execution, words))
    with transaction(engine) as connection:
        return int(connection.execute(query).scalar_one())


def turn_page(
    engine: Engine,
    execution: str,
    *,
    offset: int,
    limit: int,
    sort: str = "",
    descending: bool = False,
    words: str = "",
) -> list[dict[str, Any]]:
    """Return some of the attempts, texts cut short, by a column or by target, case and trial.

    Raises:
        DataError: If there is no such column.
    """
    table = schema.attempts
    if sort and sort not in {*TURN_COLUMNS, "sent", "received"}:
        raise DataError(f"attempts have no {sort[:80]!r}; sort by {', '.join(TURN_COLUMNS)}")
    order: list[ColumnElement[Any]] = [table.c[name] for name in _KEY]
    if sort:
        first = table.c[sort]
        order = [first.desc() if descending else first.asc(), *order]
    query = select(*_shown()).where(*_passing(execution, words)).order_by(*order)
    with transaction(engine) as connection:
        rows = connection.execute(query.limit(limit).offset(offset)).mappings()
        return [dict(row) for row in rows]


def _shown() -> Sequence[ColumnElement[Any]]:
    table = schema.attempts
    texts = [func.substr(table.c[name], 1, _CHARS).label(name) for name in ("sent", "received")]
    return [*(table.c[name] for name in TURN_COLUMNS), *texts]


def _passing(execution: str, words: str) -> list[ColumnElement[bool]]:
    table = schema.attempts
    tests: list[ColumnElement[bool]] = [table.c.execution == execution]
    if words:
        names = ("target", "case_id", "decision", "error", "sent", "received")
        tests.append(or_(*(table.c[name].icontains(words, autoescape=True) for name in names)))
    return tests
