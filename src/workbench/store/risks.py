"""The register: what is known of each risk, what people decided, and a log that only grows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from functools import cache
from typing import Any, NamedTuple, TypedDict

from sqlalchemy import (
    Connection,
    Engine,
    Insert,
    case,
    func,
    insert,
    or_,
    select,
)  # fmt: skip
from sqlalchemy.dialects import postgresql, sqlite

from workbench.core.errors import ConfigError, DataError
from workbench.core.plain import storable
from workbench.store import risk_rules as rules
from workbench.store import schema
from workbench.store.ledger import execute_many
from workbench.store.records import now
from workbench.store.risk_rules import NOT_SEEN, RISK_STATUSES
from workbench.store.risk_search import RiskChoice, overdue, risk_page
from workbench.store.transaction import transaction, turn

__all__ = [
    "NOT_SEEN", "RISK_STATUSES", "RecordCounts", "RegisterCounts", "counts", "decide", "first_seen",
    "record", "resolve_risk", "risk_log", "risks", "settle",
]  # fmt: skip

_CHUNK = 500
"""Values per query: fewer than any database allows variables."""
_LOG = insert(schema.risk_log)


class RecordCounts(NamedTuple):
    """What an assessment did to the register; each risk counts once."""

    new: int = 0
    changed: int = 0
    closed: int = 0
    reopened: int = 0
    unchanged: int = 0


class RegisterCounts(TypedDict):
    """How many risks the register holds; from ``cves`` on the open ones count."""

    risks: int
    open: int
    accepted: int
    closed: int
    cves: int
    model_risks: int
    assets: int
    overdue: int
    due_7_days: int
    by_level: dict[str, int]


def first_seen(engine: Engine, ids: Iterable[str]) -> dict[str, str]:
    """Return risk → ISO date of when it was first seen, of those known: due dates count from it."""
    with transaction(engine) as connection:
        return {one: row["first_seen"] for one, row in _known(connection, ids).items()}


def settle(
    engine: Engine, rows: Iterable[Mapping[str, Any]], *, today: date
) -> list[dict[str, Any]]:
    """Return the rows, in their order, as :func:`record` would write them; writes nothing.

    Status, due date, owner, reason and first_seen then say what people decided before.
    """
    listed = list(rows)
    with transaction(engine) as connection:
        entries = _entries(connection, listed, today=today)
        return [dict(entries[str(row["id"])].row) for row in listed]


def record(
    engine: Engine, rows: Iterable[Mapping[str, Any]], *, assessment: str, today: date, who: str,
    scope: Iterable[tuple[str, str]] | None = None,
) -> RecordCounts:  # fmt: skip
    """Write what an assessment says of each risk, and every change to the log; all or nothing.

    New risks are first seen today. What people decided stays: the owner; a due date, until level
    or decision change; acceptance and closing, until the level rises, the acceptance ends (after
    its due date) or the risk comes back after it was gone. By itself a due date only moves earlier.
    The same assessment again changes nothing.

    Args:
        engine: Of the store.
        rows: Columns of ``schema.risks`` as far as the assessment knows them. Of several rows of
            one risk the worst counts.
        assessment: Id of the assessment.
        today: The day that it is about.
        who: Who started it.
        scope: Pairs of asset and ``told_by`` that were assessed in full: what no longer occurs
            there is closed. None: those that occur in the rows. Empty: nothing is closed.
    """
    if not assessment:
        raise ValueError("an assessment has an id: what has none was said by people")
    listed = list(rows)
    told = [(row["asset"], row.get("told_by", "")) for row in listed] if scope is None else scope
    assessed = {(rules.fit("asset", asset), by) for asset, by in told}
    with turn(engine, schema.risks) as connection:
        entries = _entries(connection, listed, today=today)
        found = [*entries.values(), *_gone(connection, assessed, seen=entries)]
        return _write(connection, found, assessment=assessment, who=who)


def decide(
    engine: Engine, ids: Sequence[str], changes: Mapping[str, str], *, who: str, note: str = ""
) -> None:
    """Change risks as a person says, and log it; all or nothing.

    Args:
        engine: Of the store.
        ids: Whole ids of risks.
        changes: Column → new value: ``status``, ``owner``, ``due``. The due date of an accepted
            risk is the last day of the acceptance, none: no end; opened again it is as before.
        who: Who says so.
        note: Why, in words; redacted by the caller.

    Raises:
        ConfigError: If a value is none, or acceptance, closing or a later date has no note.
        DataError: If there is no such risk.
    """
    note = storable(note.strip())
    values, at = rules.decided(changes, note=note), now()
    said = {"at": at, "who": who, "assessment": "", "note": note}
    with turn(engine, schema.risks) as connection:
        known = _known(connection, ids)
        rows, log = [], []
        for one in dict.fromkeys(ids):
            if one not in known:
                raise DataError(f"no risk {one!r} in the register; list them to see the ids")
            before = known[one]
            if rules.is_later(values.get("due"), before) and not note:
                raise ConfigError(f"due {values['due']!r} is after {before['due']!r}; say why")
            new = values
            if before["status"] == "accepted" and values.get("status") == "open":
                new = {"due": _due_before_acceptance(connection, before)} | values
            changed = {k: [before[k], value] for k, value in new.items() if before[k] != value}
            rows.append(before | new | {"updated_at": at})
            log.append(said | {"risk": one, "changed": json.dumps(changed)})
        execute_many(connection, _upsert(engine.dialect.name), rows)
        execute_many(connection, _LOG, log)


def risks(
    engine: Engine, *, ids: Sequence[str] = (), status: str = "", level: str = "", asset: str = "",
    subject: str = "", kind: str = "", owner: str = "", overdue_on: date | None = None,
    sort: str = "score", descending: bool = True, limit: int = 1_000, offset: int = 0,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return risks as rows of the register, sorted; equal ones worst first.

    Args:
        engine: Of the store.
        ids: Only these, 500 at most.
        status: ``open``, ``accepted`` or ``closed``; empty: any, likewise in the next five.
        level: Only of this one.
        asset: Only on this one.
        subject: Only of this one.
        kind: ``cve`` or ``model``.
        owner: Only those that this person looks after.
        overdue_on: Only open ones that were due before that day.
        sort: A column; no due date sorts after all dates.
        descending: Whether the largest come first.
        limit: Most to return.
        offset: How many to leave out before.

    Raises:
        ConfigError: If there is no such column.
    """
    choice = RiskChoice(
        status=status, level=level, asset=asset, subject=subject, kind=kind, owner=owner,
        overdue_on=overdue_on, ids=tuple(ids),
    )  # fmt: skip
    return risk_page(engine, choice, sort=sort, descending=descending, limit=limit, offset=offset)


def resolve_risk(engine: Engine, beginning: str) -> str:
    """Return the id of the risk that begins so.

    Raises:
        DataError: If none does, or several do.
    """
    column = schema.risks.c.id
    query = select(column).where(column.startswith(beginning, autoescape=True)).limit(2)
    with transaction(engine) as connection:
        found = connection.execute(query).scalars().all()
    if len(found) != 1:
        many = "several" if found else "no"
        raise DataError(f"{many} risks begin with {beginning!r}; give the id of one")
    return str(found[0])


def risk_log(engine: Engine, ids: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return what happened to risks, oldest first: at, risk, who, assessment, changed, note.

    ``changed`` is field → before and after; where a person spoke the assessment is empty.
    """
    table = schema.risk_log
    query = select(table).order_by(table.c.id)
    found: list[dict[str, Any]] = []
    with transaction(engine) as connection:
        for page in _pages(ids) or [[]]:
            asked = query.where(table.c.risk.in_(page)) if page else query
            found += [dict(row) for row in connection.execute(asked).mappings()]
    return sorted(found, key=lambda row: row["id"])


def counts(engine: Engine, today: date) -> RegisterCounts:
    """Return how many risks the register holds on a day."""
    table = schema.risks.c
    day, week = today.isoformat(), date.fromordinal(today.toordinal() + 7).isoformat()
    is_soon = (table.status == "open") & (table.due >= day) & (table.due <= week)
    by = (table.status, table.kind, table.level)
    sums = (func.count(), *(func.sum(case((one, 1), else_=0)) for one in (overdue(day), is_soon)))
    assets = select(func.count(table.asset.distinct())).where(table.status == "open")
    with transaction(engine) as connection:
        groups = connection.execute(select(*by, *sums).group_by(*by)).all()
        with_open = connection.execute(assets).scalar() or 0

    def total(*wanted: str, of: int = 3) -> int:
        return sum(int(row[of]) for row in groups if {*wanted} <= {*row[:3]})

    return RegisterCounts(
        risks=total(), open=total("open"), accepted=total("accepted"), closed=total("closed"),
        cves=total("open", "cve"), model_risks=total("open", "model"), assets=with_open,
        overdue=total(of=4), due_7_days=total(of=5),
        by_level={level: total("open", level) for level in rules.LEVELS},
    )  # fmt: skip


def _pages(values: Iterable[str]) -> list[list[str]]:
    listed = list(dict.fromkeys(values))
    return [listed[at : at + _CHUNK] for at in range(0, len(listed), _CHUNK)]


def _known(connection: Connection, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for page in _pages(ids):
        query = select(schema.risks).where(schema.risks.c.id.in_(page))
        found |= {row["id"]: dict(row) for row in connection.execute(query).mappings()}
    return found


def _set_by_people(connection: Connection) -> dict[str, set[str]]:
    """Return risk → which of owner and due date a person said last."""
    log = schema.risk_log.c
    spoken = select(log.risk).where(log.assessment == "")
    query = select(log.risk, log.assessment, log.changed).where(log.risk.in_(spoken))
    found: dict[str, set[str]] = {}
    for risk, assessment, changed in connection.execute(query.order_by(log.id)):
        said = found.setdefault(risk, set())
        if "due" in changed or "status" in changed:  # the end of an acceptance is no due date
            is_open = changed.get("status", ["", "open"])[1] == "open"
            is_said = not assessment and "due" in changed and is_open
            said.add("due") if is_said else said.discard("due")
        if "owner" in changed and not assessment:
            said.add("owner")
    return found


def _due_before_acceptance(connection: Connection, risk: Mapping[str, Any]) -> str:
    log = schema.risk_log.c
    query = select(log.changed).where(log.risk == risk["id"]).order_by(log.id.desc())
    log_rows: Iterable[dict[str, list[Any]]] = connection.execute(query).scalars()
    at = (one.get("due") for one in log_rows if one.get("status", [""])[-1] == "accepted")
    return str((next(at, None) or [risk["due"]])[0])


def _entries(
    connection: Connection, rows: Iterable[Mapping[str, Any]], *, today: date
) -> dict[str, rules.Entry]:
    worst: dict[str, dict[str, Any]] = {}
    for row in map(rules.clean, rows):
        other = worst.get(row["id"])
        if other is None or rules.badness(row) > rules.badness(other):
            worst[row["id"]] = row
    known = _known(connection, worst)
    said = _set_by_people(connection) if known else {}
    day = today.isoformat()
    return {
        one: rules.settled(row, known.get(one), today=day, said=said.get(one, set()))
        for one, row in worst.items()
    }


def _gone(
    connection: Connection, scope: set[tuple[str, str]], *, seen: Mapping[str, Any]
) -> list[rules.Entry]:
    """Return the risks that such a source told of such an asset and tells no more, closed."""
    table = schema.risks.c
    # What a person closed is marked too: if it comes back it is open again.
    not_marked = table.state.not_in(rules.CLOSING) & (table.reason != NOT_SEEN)
    found = []
    for told_by in sorted({by for _, by in scope}):
        for page in _pages(sorted(asset for asset, by in scope if by == told_by)):
            mine = (table.told_by == told_by) & table.asset.in_(page)
            query = select(schema.risks).where(mine, or_(table.status != "closed", not_marked))
            for before in connection.execute(query.order_by(table.id)).mappings():
                if before["id"] not in seen:
                    row = dict(before) | {"status": "closed", "reason": NOT_SEEN}
                    found.append(rules.Entry(row, dict(before), NOT_SEEN))
    return found


def _write(
    connection: Connection, entries: Iterable[rules.Entry], *, assessment: str, who: str
) -> RecordCounts:
    at = now()
    rows, log = [], []
    told = Counter[str]()
    for entry in entries:
        row, before, changed = entry.row, entry.before, entry.changed()
        told[_kind(row["status"], before, is_changed=bool(changed))] += 1
        row |= {"assessment": assessment, "updated_at": before["updated_at"] if before else at}
        if row != before:
            rows.append(row | {"updated_at": at})
        if changed:
            note = entry.note if "status" in changed else ""
            said = {"at": at, "who": who, "assessment": assessment, "note": note}
            log.append(said | {"risk": row["id"], "changed": json.dumps(changed)})
    execute_many(connection, _upsert(connection.dialect.name), rows)
    execute_many(connection, _LOG, log)
    return RecordCounts(**told)


def _kind(status: str, before: Mapping[str, Any] | None, *, is_changed: bool) -> str:
    """Return the field of :class:`RecordCounts` that a risk adds to."""
    if before is None:
        return "new"
    if status != before["status"]:
        return "closed" if status == "closed" else "reopened"
    return "changed" if is_changed else "unchanged"


@cache
def _upsert(dialect: str) -> Insert:
    made = (postgresql if dialect == "postgresql" else sqlite).insert(schema.risks)
    others = {name: made.excluded[name] for name in rules.COLUMNS if name != "id"}
    upsert: Insert = made.on_conflict_do_update(index_elements=["id"], set_=others)
    return upsert
