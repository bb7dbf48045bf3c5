"""PostgreSQL itself keeps users apart: each connects as a role of their own, with plain SQL."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import ProgrammingError

from backup_rows import contents
from campaign_rows import as_attempt, migrate
from isolation_rows import USERS, fill, ids, ledger_row, reads
from workbench.core.errors import ConfigError, DataError, StoreError
from workbench.core.settings import Settings, read_settings
from workbench.store import isolation
from workbench.store.backup import backup, restore
from workbench.store.campaigns import add_attempts, attempt_pages
from workbench.store.database import Store, as_user, open_store
from workbench.store.isolation import everybody
from workbench.store.jobs import Job, add_job, claim_job, jobs, settle_lost_jobs
from workbench.store.test_sets import (
    add_test_set_owner,
    owned_test_sets,
    owners_of,
    remove_test_set_owner,
)
from workbench.store.verify import verify

pytestmark = pytest.mark.slow
pytest_plugins = ["postgres_server"]

OTHER = {"anna": "berta", "berta": "anna"}
TABLES = sorted(isolation._RULES)
SERVICE = "service"


def _as_role(settings: Settings, role: str) -> Settings:
    url = settings.database_url.replace("//tester@", f"//{role}@")
    return replace(settings, database_url=url, user=role)


@pytest.fixture
def service(postgres) -> Iterator[Store]:
    """A store that a role without privileges made, and two more roles that may use its tables."""
    admin = create_engine(postgres.database_url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        for role in (SERVICE, *USERS):
            known = text("SELECT count(*) FROM pg_roles WHERE rolname = :role")
            if not connection.execute(known, {"role": role}).scalar():
                connection.execute(text(f"CREATE ROLE {role} LOGIN NOSUPERUSER NOBYPASSRLS"))
        connection.execute(text(f"GRANT CREATE ON SCHEMA public TO {SERVICE}"))
    opened = open_store(_as_role(postgres, SERVICE))
    with admin.connect() as connection:
        for user in USERS:
            rights = "SELECT, INSERT, UPDATE, DELETE"
            connection.execute(text(f"GRANT {rights} ON ALL TABLES IN SCHEMA public TO {user}"))
            connection.execute(text(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {user}"))
    admin.dispose()
    for user in USERS:
        fill(opened, user)
    yield opened
    opened.engine.dispose()


@pytest.fixture
def roles(service, postgres) -> Iterator[dict[str, Engine]]:
    """A plain engine for each user's role: nothing of ours between it and the tables."""
    engines = {user: create_engine(_as_role(postgres, user).database_url) for user in USERS}
    yield engines
    for engine in engines.values():
        engine.dispose()


@pytest.mark.parametrize("spoof", ["", "anna", "berta"])
def test_a_role_reads_changes_and_deletes_no_row_of_anothers(service, roles, spoof):
    """Whatever it says to be: only the service may act for others."""
    for table in TABLES:
        with everybody(service.engine).begin() as connection:
            total = connection.execute(text(f"SELECT count(*) FROM {table}")).scalar()
            column = connection.execute(
                text(
                    "SELECT column_name FROM information_schema.columns WHERE table_name = :table"
                    " ORDER BY ordinal_position DESC LIMIT 1"
                ),
                {"table": table},
            ).scalar()
        for user, engine in roles.items():
            with engine.connect() as connection:
                for name in ("workbench.user", "workbench.inside"):
                    value = spoof if name.endswith("user") else "on"
                    connection.execute(text(f"SELECT set_config('{name}', '{value}', false)"))
                rows = connection.execute(text(f"SELECT * FROM {table}")).all()
                assert rows, table
                assert OTHER[user] not in repr(rows), table
                assert 2 * len(rows) == total, table
                changed = connection.execute(text(f"UPDATE {table} SET {column} = {column}"))
                removed = connection.execute(text(f"DELETE FROM {table}"))
                assert changed.rowcount == removed.rowcount == len(rows), table
                connection.rollback()


def test_a_role_writes_no_row_in_anothers_name(service, roles):
    for table, owner in (
        ("runs", "owner"), ("experiments", "owner"), ("jobs", "owner"), ("ledger", "who"),
        ("events", "who"), ("artifacts", "owner"), ("service_keys", "owner"),
    ):  # fmt: skip
        with roles["berta"].connect() as connection:
            given = f"jsonb_build_object('{owner}', 'anna', 'id', '77')"
            copied = f"SELECT (jsonb_populate_record(one, {given})).* FROM {table} one"
            for change in (f"UPDATE {table} SET {owner} = 'anna'", f"INSERT INTO {table} {copied}"):
                if table == "artifacts" and change.startswith("UPDATE"):
                    continue  # one's own may be called another's work
                with pytest.raises(ProgrammingError, match="row-level security"):
                    connection.execute(text(change))
                connection.rollback()


def test_a_role_shares_its_own_test_sets_and_no_others(roles):
    rows = "INSERT INTO test_set_owners VALUES (:test_set, :owner, '', '{}')"
    with roles["berta"].connect() as connection:
        given = {"test_set": ids("berta")["test_set"], "owner": "anna"}
        assert connection.execute(text(rows), given).rowcount == 1
        with pytest.raises(ProgrammingError, match="row-level security"):
            connection.execute(text(rows), {**given, "test_set": "none"})


def _asked(call):
    try:
        return call()
    except (ConfigError, DataError) as error:
        return error


def test_the_service_acts_for_one_user_at_a_time(service):
    for user in USERS:
        own = open_store(replace(service.settings, user=user))  # no restriction but the database's
        for name, call in reads(own, ids(OTHER[user])).items():
            found = _asked(call)
            if isinstance(found, Exception):
                found = str(found).replace(ids(OTHER[user])["run"], "")  # as it was asked for
                assert "no " in found, name
            else:
                assert OTHER[user] not in repr(found), name
        for name, call in reads(own, ids(user)).items():
            assert call(), name
        own.engine.dispose()


def test_users_of_one_pool_never_see_each_other(service):
    """The user is told anew with every transaction, whichever connection it gets."""
    seen: dict[str, set[str]] = {user: set() for user in USERS}

    def look(user: str) -> None:
        own = as_user(service, user)
        for _ in range(40):
            seen[user].update(run.owner for run in own.runs.find())

    threads = [threading.Thread(target=look, args=(user,)) for user in USERS * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert seen == {user: {user} for user in USERS}


def test_a_person_with_a_role_works_as_themselves(service, roles, postgres):
    own = open_store(_as_role(postgres, "berta"))
    assert [one.owner for one in own.runs.find()] == ["berta"]
    made = add_job(own.engine, Job(kind="run", owner="berta"))
    assert made in jobs(own.engine, owner="berta")
    assert claim_job(own.engine, made.id, owner="berta").state == "running"
    with pytest.raises(StoreError, match="row-level security"):
        add_job(own.engine, Job(kind="run", owner="anna"))
    own.ledger.add([ledger_row("berta")])
    with pytest.raises(StoreError, match="row-level security"):
        own.ledger.add([ledger_row("anna")])
    assert owners_of(own.engine, ids("anna")["test_set"]) == ["anna"]
    with own.artifacts.create("pair_set", "p" * 64, {"who": "berta"}) as folder:
        (folder / "file").write_text("x")
    own.engine.dispose()


def test_a_set_of_two_owners_is_seen_by_both_with_all_of_it(service):
    anna, berta = (as_user(service, user) for user in USERS)
    mine = ids("anna")
    add_test_set_owner(anna.engine, mine["test_set"], owner="berta", metadata={"tests": 1})
    assert len(owned_test_sets(berta.engine, owner="berta")) == 2
    assert len(list(attempt_pages(berta.engine, mine["execution"], rows=9))) == 1
    assert berta.artifacts.exists("execution", mine["execution"])
    assert remove_test_set_owner(anna.engine, mine["test_set"], owner="anna") == 1
    assert list(attempt_pages(anna.engine, mine["execution"], rows=9)) == []


def test_attempts_of_anothers_execution_are_refused(service, postgres):
    own = open_store(_as_role(postgres, "berta"))
    (page,) = attempt_pages(everybody(service.engine), ids("anna")["execution"], rows=9)
    with pytest.raises(StoreError, match="row-level security"):
        add_attempts(own.engine, [replace(as_attempt(page[0]), case_id="forged")])
    own.engine.dispose()


def test_the_same_content_of_two_users_is_one_artifact(service):
    for user in USERS:
        own = as_user(service, user)
        with own.artifacts.create("model", "m" * 64, {"by": user}) as folder:
            (folder / "file").write_text("same")
        assert own.artifacts.metadata("model", "m" * 64) == {"by": "anna"}
    for user in USERS:  # invisible to the second until it is theirs too
        own = as_user(service, user)
        with own.artifacts.create("test_set", "t" * 64, {"by": user}) as folder:
            (folder / "file").write_text("same")
        add_test_set_owner(own.engine, "t" * 64, owner=user, metadata={})
        assert own.artifacts.metadata("test_set", "t" * 64) == {"by": "anna"}


def test_jobs_of_all_users_are_settled_by_the_service(service):
    for user in USERS:
        own = as_user(service, user)
        one = add_job(own.engine, Job(kind="run", owner=user))
        claim_job(own.engine, one.id, owner=user)
    with everybody(service.engine).begin() as connection:
        connection.execute(text("UPDATE jobs SET process = regexp_replace(process, '[^:]*$', '1')"))
    lost = settle_lost_jobs(as_user(service, "anna").engine)
    assert sorted(one.owner for one in lost) == list(USERS)


def test_policies_go_and_come_with_their_version(service):
    engine = everybody(service.engine)
    migrate(engine, "0004", down=True)
    with engine.begin() as connection:
        left = connection.execute(text("SELECT count(*) FROM pg_policies")).scalar()
        functions = connection.execute(
            text("SELECT count(*) FROM pg_proc WHERE proname LIKE 'workbench%'")
        ).scalar()
        assert (left, functions) == (0, 0)
    migrate(engine, "0006")
    for user in USERS:
        own = as_user(service, user)
        assert {run.owner for run in own.runs.find()} == {user}


def test_a_backup_goes_from_server_to_file_and_back(service, postgres, tmp_path):
    """Rows of all users, from PostgreSQL to SQLite and to an empty PostgreSQL."""
    settings = read_settings({"WORKBENCH_HOME": str(tmp_path / "local")})
    done = backup(service, tmp_path / "store.tar.zst")
    restore(done.path, settings)
    local = open_store(settings)
    before = contents(service)
    assert contents(local) == before
    assert verify(local).is_whole
    again = backup(local, tmp_path / "again.tar.zst")
    with everybody(service.engine).connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(text("DROP OWNED BY CURRENT_USER"))
    admin = create_engine(postgres.database_url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"GRANT CREATE ON SCHEMA public TO {SERVICE}"))
    admin.dispose()
    restore(again.path, replace(service.settings, home=tmp_path / "new"))
    back = open_store(replace(service.settings, home=tmp_path / "new"))
    assert contents(back) == before
    assert verify(back).is_whole
    back.ledger.add([ledger_row(SERVICE)])  # ids go on behind those that were there
    assert len(back.ledger.rows()) == 1
    for store in (local, back):
        store.engine.dispose()
