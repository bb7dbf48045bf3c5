"""Two users on one store: no function shows either a row of the other's."""

from __future__ import annotations

import inspect
import pkgutil
from decimal import Decimal
from importlib import import_module

import pytest
from sqlalchemy import (
    column,
    delete,
    func,
    insert,
    literal,
    select,
    text,
    true,
    union_all,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.expression import TableClause

import workbench.store
from isolation_rows import USERS, fill, ids, reads
from model_calls import flight
from workbench.core.errors import ConfigError, DataError
from workbench.store import isolation, schema
from workbench.store.budgets import Budgets
from workbench.store.database import as_user
from workbench.store.isolation import everybody, only_user
from workbench.store.test_sets import owners_of

OTHER = {"anna": "berta", "berta": "anna"}


@pytest.fixture
def shared(store):
    for user in USERS:
        fill(store, user)
    return store


def _asked(call):
    try:
        return call()
    except (ConfigError, DataError) as error:
        return error


@pytest.mark.parametrize("user", USERS)
def test_no_function_shows_anothers_rows(shared, user):
    other = OTHER[user]
    own = as_user(shared, user)
    for name, call in reads(own, ids(other)).items():
        found = _asked(call)
        if isinstance(found, Exception):
            assert "no " in str(found), name  # as if it were not there
            continue
        assert other not in repr(found), name
    for name, call in reads(own, ids(user)).items():  # and each shows one's own
        found = _asked(call)
        assert found, name
        assert not isinstance(found, Exception), (name, found)


def test_the_unrestricted_store_shows_both(shared):
    """The rows are there: what the test above does not see, it could have seen."""
    found = {name: _asked(call) for name, call in reads(shared, ids("berta")).items()}
    assert [name for name, one in found.items() if isinstance(one, Exception) or not one] == []


@pytest.mark.parametrize("table", sorted(isolation._RULES))
def test_every_table_is_restricted_to_read_change_and_delete(shared, table):
    rows = schema.metadata.tables[table]
    with everybody(shared.engine).begin() as connection:
        total = connection.execute(select(func.count()).select_from(rows)).scalar()
    for user in USERS:
        engine = only_user(shared.engine, user)
        with engine.connect() as connection:
            seen = connection.execute(select(rows)).all()
            alias = rows.alias()
            joined = select(func.count()).select_from(rows.join(alias, alias.c[0] == rows.c[0]))
            assert connection.execute(joined).scalar()
            nested = select(func.count()).select_from(select(rows).subquery())
            assert connection.execute(nested).scalar() == len(seen)
            assert seen
            assert len(seen) < total or table == "artifacts"
            column = list(rows.c)[-1]
            changed = connection.execute(update(rows).values({column.name: column})).rowcount
            removed = connection.execute(delete(rows)).rowcount
            assert changed == removed == len(seen)
            connection.rollback()


def test_every_table_has_a_rule_or_is_shared():
    tables = set(schema.metadata.tables)
    assert tables == set(isolation._RULES) | isolation.SHARED


def test_what_a_user_writes_and_budgets_count_is_unrestricted(shared):
    """Budgets are of all: a user's calls count what others spend."""
    budgets = Budgets(experiment=Decimal(4))
    claim = flight("2.5", experiment="trial", who="berta")
    (verdict,) = as_user(shared, "berta").calls.commit(budgets=budgets, claims=[claim])
    assert verdict.state == "waiting"  # two flights of a dollar each fly
    assert owners_of(only_user(shared.engine, "berta"), ids("anna")["test_set"]) == ["anna"]


def test_rows_of_users_of_one_experiment_stand_beside_each_other(shared):
    assert shared.runs.experiments() == ["trial"]
    for user in USERS:
        assert as_user(shared, user).runs.experiment("trial")["file"] == user
        assert [one.owner for one in as_user(shared, user).runs.current("trial")] == [user]


def test_a_table_that_nothing_is_said_of_is_refused(shared, monkeypatch):
    monkeypatch.delitem(isolation._RULES, "jobs")
    with only_user(shared.engine, "berta").connect() as connection, pytest.raises(LookupError):
        connection.execute(select(schema.jobs))


_OWNERS = schema.test_set_owners
_NAME = _OWNERS.c.owner
_TAGS = schema.test_set_tags


def _across(one, other, **how):
    return select(one.c.owner).select_from(other.join(one, true(), **how))


@pytest.mark.parametrize(
    "query",
    [
        select(_OWNERS.alias().alias().c.owner),
        select(select(_NAME).cte().alias().c.owner),
        select(union_all(select(_NAME), select(_OWNERS.alias().c.owner)).subquery().c.owner),
        select(select(func.max(_NAME)).scalar_subquery()),
        select(_NAME).select_from(schema.jobs.join(_OWNERS.join(_TAGS, true()), true())),
    ],
)
def test_however_a_statement_names_a_table_its_rows_are_ones_own(shared, query):
    with only_user(shared.engine, "berta").connect() as connection:
        found = {name for row in connection.execute(query) for name in row}
    assert found == {"berta"}


@pytest.mark.parametrize(
    "query",
    [
        text("SELECT owner FROM test_set_owners"),
        text("SELECT owner FROM test_set_owners").columns(column("owner")),
        select(text("SELECT owner FROM test_set_owners").columns(_NAME).subquery()),
        select(column("owner")).select_from(text("test_set_owners")),
        select(TableClause("test_set_owners", column("owner"))),
        select(_NAME).select_from(_TAGS.outerjoin(_OWNERS, true())),
        select(text("owner FROM test_set_owners")),
        select(_TAGS.c.tag).where(text("EXISTS (SELECT 1 FROM test_set_owners)")),
        delete(_TAGS).where(_TAGS.c.owner != select(_NAME).subquery().c.owner),
        update(_TAGS).where(_TAGS.c.owner != select(_NAME).cte().c.owner).values(tag="x"),
    ],
)
def test_what_cannot_be_restricted_is_refused(shared, query):
    with only_user(shared.engine, "berta").connect() as connection, pytest.raises(LookupError):
        connection.execute(query)


_RUNS, _JOBS = schema.runs, schema.jobs
_ANNAS = _JOBS.c.owner == "anna"
_ALIAS = _RUNS.alias()
_HERS = select(func.coalesce(func.max(_JOBS.c.owner), "nobody")).where(_ANNAS).scalar_subquery()


@pytest.mark.parametrize(
    "change",
    [
        update(_RUNS).where(_ANNAS, _JOBS.c.owner != _RUNS.c.owner).values(step=_JOBS.c.owner),
        update(_RUNS).where(_ALIAS.c.owner < _RUNS.c.owner).values(step=_ALIAS.c.owner),
        update(_RUNS).where(select(_JOBS.c.id).where(_ANNAS).exists()).values(step="anna"),
        update(_RUNS).values(step=_HERS),
        delete(_RUNS).where(literal("anna").in_(select(_JOBS.c.owner))),
    ],
)
def test_a_change_reads_no_rows_of_others(shared, change):
    mine = select(_RUNS.c.step).where(_RUNS.c.owner == "berta")
    left = {}
    for engine in (everybody(shared.engine), only_user(shared.engine, "berta")):
        with engine.connect() as connection:
            connection.execute(change)
            left[engine] = connection.execute(mine).scalars().all()
            connection.rollback()
    free, restricted = left.values()
    assert free in ([], ["anna"]), "unrestricted it is changed by what is of others"
    assert len(restricted) == 1
    assert restricted != ["anna"]


@pytest.mark.parametrize(
    "change",
    [
        delete(_RUNS).where(_RUNS.c.id != _JOBS.c.id),
        delete(_RUNS).where(literal("anna").in_(select(select(_JOBS.c.owner).cte().c.owner))),
        select(_RUNS.c.id).add_cte(update(_JOBS).values(note="x").returning(_JOBS.c.id).cte("x")),
    ],
)
def test_what_only_postgresql_takes_well_is_restricted_too(change):
    told = str(isolation._restricted(change, "berta").compile(dialect=postgresql.dialect()))
    assert "runs.owner = " in told
    assert "jobs.owner = " in told


def test_inserts_are_left_alone(shared):
    with only_user(shared.engine, "berta").begin() as connection:
        row = {"test_set": "x", "owner": "anna", "created_at": "", "metadata": {}}
        connection.execute(insert(schema.test_set_owners), row)  # sharing


def test_every_reading_function_is_in_the_list(store):
    """A function that is added to the store is asked too, or said why not."""
    exempt = {
        "job",
        "claim_job",
        "cancel_job",
        "tell_job",
        "finish_job",
        "add_job",
        "settle_lost_jobs",
    }
    listed = {name.split(" ")[0].rsplit(".", 1)[-1] for name in reads(store, ids("berta"))}
    writers = ("add_", "remove_", "confirm_", "resolve_")
    assert len(listed) > 30
    left = set()
    for info in pkgutil.iter_modules(workbench.store.__path__):
        module = import_module(f"workbench.store.{info.name}")
        for name in getattr(module, "__all__", ()):
            member = getattr(module, name)
            if not inspect.isfunction(member) or name.startswith(writers) or name in exempt:
                continue
            parameters = inspect.signature(member).parameters
            is_asked = name in listed or "owner" in parameters
            if next(iter(parameters), "") == "engine" and not is_asked:
                left.add(f"{info.name}.{name}")
    assert left <= _SHARED_OR_WRITING, left - _SHARED_OR_WRITING


_SHARED_OR_WRITING = {
    "campaigns.ask_to_stop", "campaigns.forget_stop", "campaigns.has_workers",
    "campaigns.counts", "campaigns.why_stop",  # of an execution whose whole id is known
    "database.migrate_to",
    "rates.draw", "service_keys.all_keys", "service_keys.revoke_key",  # of the service, of all
    "marks.marked", "marks.read_mark",  # of artifacts; restricted like every statement
    "rests.sweep",  # upkeep, of all users
    "turns.latest_turns", "turns.spent_by", "turns.turn", "turns.turn_count", "turns.turn_page",
    "findings.triage",  # changes by whole id; restricted like every statement
    "leases.database_seconds", "leases.hold", "leases.is_held",  # names and times, of all
    "isolation.acting_for", "isolation.everybody", "isolation.install", "isolation.only_user",
    "risks.counts", "risks.decide", "risks.first_seen", "risks.record", "risks.resolve_risk",
    "risks.risk_log", "risks.risks", "risks.settle",  # one register for all
    "risk_search.risk_count", "risk_search.risk_page",
    "test_sets.owners_of",  # of a set whose whole id is known
    "transaction.once", "transaction.transaction", "transaction.turn",
    "usage.refuse_over_quota",
}  # fmt: skip
