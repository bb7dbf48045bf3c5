"""Whose rows a store shows: of a store that acts for one user, that user's and what all share.

PostgreSQL enforces it by row-level security, keyed by the setting ``workbench.user`` that every
transaction begins with. Statements of a store made by ``database.as_user`` are also restricted
here, before they are sent, on every database: no query can forget it.

====================  ============================================================================
runs, experiments,    ``owner``
jobs, test_set_tags,
service_keys
ledger, flights,      ``who``, also as the one who rehearses
batches, estimates
events                ``who``
test_set_owners       ``owner``; a test set may have several
attempts, outcomes,   by execution → test set: its owners; where it has none, everybody
findings
triage_log            by finding
artifacts             test sets and executions by owners of the test set, or their maker; all other
                      kinds are shared by the hash of their content
responses             shared: found by the hash of the whole question
risks, risk_log       one register, shared by everybody on a store
budget_lock, leases,   no content
rate_buckets
====================  ============================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Delete,
    Engine,
    Executable,
    FromClause,
    Join,
    Select,
    SelectBase,
    Table,
    TextClause,
    TextualSelect,
    Update,
    event,
    or_,
    select,
    union_all,
)
from sqlalchemy.sql import visitors
from sqlalchemy.sql.selectable import AliasedReturnsRows, FromGrouping

from workbench.store import schema
from workbench.store.records import REHEARSAL

__all__ = ["SHARED", "acting_for", "everybody", "install", "only_user"]

USER, ONLY = "workbench_user", "workbench_only"
_PARTS = (Select, Update, Delete, TextClause)
"""What is restricted, or refused, wherever in a statement it stands."""
_SET_USER = "SELECT set_config('workbench.user', %s, true)"

SHARED = frozenset({"budget_lock", "leases", "rate_buckets", "responses", "risk_log", "risks"})
"""Tables that are nobody's in particular."""


def only_user(engine: Engine, user: str) -> Engine:
    """Return the engine, with the same connections, for the rows of one user alone."""
    return engine.execution_options(**{USER: user, ONLY: True})


def everybody(engine: Engine) -> Engine:
    """Return the engine for the rows of all users, for budgets and upkeep.

    On PostgreSQL this takes a role that may act for anybody.
    """
    return engine.execution_options(**{USER: "", ONLY: False})


def acting_for(engine: Engine) -> str:
    """Return the user that an engine is restricted to; empty if it is not."""
    options = engine.get_execution_options()
    return str(options.get(USER, "")) if options.get(ONLY) else ""


def install(engine: Engine, *, user: str) -> None:
    """Make an engine act for a user unless it is told otherwise."""
    engine.update_execution_options(**{USER: user})
    if engine.dialect.name == "postgresql":
        event.listen(engine, "begin", _tell_user)
    event.listen(engine, "before_execute", _restrict, retval=True)


def _tell_user(connection: Connection) -> None:
    user = connection.get_execution_options().get(USER, "")
    connection.exec_driver_sql(_SET_USER, (user,))


def _restrict(
    connection: Connection, statement: Executable, many: Any, values: Any, _options: Any
) -> tuple[Executable, Any, Any]:
    options = connection.get_execution_options()
    if options.get(ONLY):
        statement = _restricted(statement, options[USER])
    return statement, many, values


def _restricted(statement: Any, user: str) -> Any:
    """Return a statement of which every part reads or changes only what a user may see."""

    def inside(element: Any, **_: Any) -> Any:
        is_part = element is not statement and isinstance(element, _PARTS)
        return _restricted(element, user) if is_part else None

    whole = statement
    if any(isinstance(one, _PARTS) for one in visitors.iterate(statement) if one is not statement):
        whole = visitors.replacement_traverse(statement, {}, inside)  # dear: it copies everything
    conditions = [_mine(source, user) for source in _sources(whole)]
    return whole.where(*(one for one in conditions if one is not None)) if conditions else whole


def _sources(whole: Any) -> list[FromClause]:
    """Return the tables that a statement itself, not a part of it, reads or changes."""
    if isinstance(whole, Select):
        # what get_final_froms() does, but for its compiling of the statement, which is not used
        state_of: Any = whole._compile_state_factory  # noqa: SLF001
        found = state_of(whole, None)._get_display_froms()  # noqa: SLF001
        return [one for source in found for one in _tables(source)]
    if isinstance(whole, Update | Delete):
        also = [] if whole.whereclause is None else whole.whereclause._from_objects  # noqa: SLF001
        found = [_tables(one) for one in (whole.table, *also)]
        if not all(found):  # a subquery that columns alone name is no part, and was not restricted
            raise LookupError(f"a subquery beside {whole.table}, which changes; use IN or EXISTS")
        return list(dict.fromkeys(one for tables in found for one in tables))
    return _tables(whole) if isinstance(whole, TextClause | TextualSelect) else []


def _tables(source: Any) -> list[FromClause]:
    """Return the tables that rows are from, as the statement names them.

    Raises:
        LookupError: If it cannot be told, or a condition would change what the statement means.
    """
    if isinstance(source, Join) and not (source.isouter or source.full):
        return _tables(source.left) + _tables(source.right)
    if isinstance(source, FromGrouping):
        return _tables(source.element)
    origin = _origin(source)
    if isinstance(origin, Table):
        return [source]
    if isinstance(origin, SelectBase) and not isinstance(origin, TextualSelect):
        return []  # restricted by itself
    raise LookupError(f"nothing says whose the rows of {str(source)[:80]!r} are")


def _origin(source: Any) -> Any:
    """Return what an alias, however often it was given, stands for."""
    while isinstance(source, AliasedReturnsRows):
        source = source.element
    return source


def _mine(source: FromClause, user: str) -> ColumnElement[bool] | None:
    name = _origin(source).name
    rule = _RULES.get(name)
    if rule is None and name not in SHARED:
        raise LookupError(f"nothing says whose the rows of {name} are")  # a table forgotten
    return rule(source, user) if rule else None


_Rule = Callable[[FromClause, str], ColumnElement[bool]]


def _by(column: str) -> _Rule:
    return lambda source, user: source.c[column] == user


def _paid(source: FromClause, user: str) -> ColumnElement[bool]:
    return source.c.who.in_([user, REHEARSAL + user])


@lru_cache(maxsize=1_000)
def _sets(user: str) -> Select[tuple[str]]:
    owners = schema.test_set_owners.alias()
    return select(owners.c.test_set).where(owners.c.owner == user)


@lru_cache(maxsize=1_000)
def _executions(user: str) -> Select[tuple[str]]:
    """Return the executions of test sets that a user owns, or nobody does."""
    artifacts, events = schema.artifacts.alias(), schema.events.alias()
    made = union_all(
        select(
            artifacts.c.id.label("execution"),
            artifacts.c.metadata["test_set"].as_string().label("test_set"),
        ).where(artifacts.c.kind == "execution"),
        select(events.c.subject, events.c.details["test_set"].as_string()).where(
            events.c.kind == "attack_run_started"
        ),
    ).subquery()
    owners = schema.test_set_owners.alias()
    is_free = made.c.test_set.not_in(select(owners.c.test_set))
    return select(made.c.execution).where(made.c.test_set.in_(_sets(user)) | is_free)


def _executed(source: FromClause, user: str) -> ColumnElement[bool]:
    return source.c.execution.in_(_executions(user))


def _triaged(source: FromClause, user: str) -> ColumnElement[bool]:
    findings = schema.findings.alias()
    mine = findings.c.execution.in_(_executions(user))
    return source.c.finding.in_(select(findings.c.id).where(mine))


def _artifacts(source: FromClause, user: str) -> ColumnElement[bool]:
    c = source.c
    return or_(
        c.kind.not_in(["test_set", "execution"]),
        c.owner == user,
        (c.kind == "test_set") & c.id.in_(_sets(user)),
        (c.kind == "execution") & c.id.in_(_executions(user)),
    )


_RULES: dict[str, _Rule] = {
    "runs": _by("owner"),
    "experiments": _by("owner"),
    "jobs": _by("owner"),
    "service_keys": _by("owner"),
    "test_set_owners": _by("owner"),
    "test_set_tags": _by("owner"),
    "events": _by("who"),
    "ledger": _paid,
    "flights": _paid,
    "batches": _paid,
    "estimates": _paid,
    "attempts": _executed,
    "outcomes": _executed,
    "findings": _executed,
    "triage_log": _triaged,
    "artifacts": _artifacts,
}
