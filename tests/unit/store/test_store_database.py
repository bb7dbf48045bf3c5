from __future__ import annotations

import multiprocessing
import os
import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from campaign_rows import (
    add_old_rows,
    check_attempts,
    check_down_and_up,
    check_findings,
    check_jobs_down_and_up,
    check_new_rows,
    check_owners_tags_and_outcomes,
    check_shared_tables_down_and_up,
    migrate,
)
from workbench.core.errors import ConfigError, StoreError
from workbench.core.settings import read_settings
from workbench.store import schema
from workbench.store.database import SCHEMA_VERSION, open_store


def _open(home: str) -> str:
    store = open_store(read_settings({"WORKBENCH_HOME": home, "WORKBENCH_USER": "t"}))
    with store.engine.connect() as connection:
        version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    store.engine.dispose()
    return str(version)


def test_migrations_give_exactly_the_declared_schema(store):
    with store.engine.connect() as connection:
        difference = compare_metadata(MigrationContext.configure(connection), schema.metadata)
    assert difference == []


def test_four_processes_can_open_a_new_store_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    with context.Pool(4) as pool:
        versions = pool.map(_open, [str(tmp_path / "home")] * 4)
    assert versions == [SCHEMA_VERSION] * 4


def test_a_store_of_a_newer_version_is_refused(settings):
    open_store(settings).engine.dispose()
    with sqlite3.connect(settings.home / "workbench.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(StoreError, match=r"schema 9999.*upgrade"):
        open_store(settings)


def _old_store(settings):
    """Make a store of schema 0001 with one ledger row."""
    settings.home.mkdir(parents=True)
    engine = create_engine(settings.database_url)
    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(
            text(
                "INSERT INTO ledger VALUES (7, '2026-01-01T00:00:00.000000Z', 't', 'job', 'trial',"
                " 'training', 'cpu', 1.5, 'core_s', '0.25', 'p', 0, 1, 'old')"
            )
        )
    engine.dispose()


def test_an_old_store_is_upgraded_with_its_rows(settings):
    _old_store(settings)
    store = open_store(settings)
    (row,) = store.ledger.rows()
    assert (row.job, row.usd, row.note, row.work, row.details) == (
        "job", Decimal("0.25"), "old", "", {},
    )  # fmt: skip
    store.ledger.add([row])
    assert store.ledger.rows() == [row, row]
    with store.engine.connect() as connection:
        difference = compare_metadata(MigrationContext.configure(connection), schema.metadata)
        assert connection.execute(text("SELECT count(*) FROM budget_lock")).scalar() == 1
    assert difference == []
    store.engine.dispose()


def test_an_upgrade_that_fails_midway_leaves_the_old_store(settings):
    _old_store(settings)
    with closing(sqlite3.connect(settings.home / "workbench.db")) as connection:
        connection.execute("CREATE TABLE estimates (in_the_way)")
    with pytest.raises(StoreError, match="estimates"):
        open_store(settings)
    with closing(sqlite3.connect(settings.home / "workbench.db")) as connection:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        connection.execute("DROP TABLE estimates")
    assert "flights" not in tables
    store = open_store(settings)
    assert len(store.ledger.rows()) == 1
    store.engine.dispose()


@pytest.fixture
def store_0002(settings):
    """The engine of a store of schema 0002 with a few rows."""
    settings.home.mkdir(parents=True)
    engine = create_engine(settings.database_url)
    migrate(engine, "0002")
    add_old_rows(engine)
    yield engine
    engine.dispose()


def test_campaigns_of_an_old_store_are_kept_up_and_down(settings, store_0002):
    store = open_store(settings)
    check_new_rows(store.engine)
    check_down_and_up(store.engine)
    with store.engine.connect() as connection:
        difference = compare_metadata(MigrationContext.configure(connection), schema.metadata)
    assert difference == []
    store.engine.dispose()


def test_jobs_and_leases_come_to_a_store_of_the_version_before_and_go(settings):
    settings.home.mkdir(parents=True)
    engine = create_engine(settings.database_url)
    migrate(engine, "0004")
    check_jobs_down_and_up(engine)
    check_shared_tables_down_and_up(engine)
    with engine.connect() as connection:
        difference = compare_metadata(MigrationContext.configure(connection), schema.metadata)
    assert difference == []
    engine.dispose()


def test_an_upgrade_of_campaigns_that_fails_midway_leaves_the_old_store(settings, store_0002):
    with store_0002.begin() as connection:
        connection.execute(text("CREATE TABLE outcomes (in_the_way INTEGER)"))
    with pytest.raises(StoreError, match="outcomes"):
        open_store(settings)
    with store_0002.begin() as connection:
        connection.execute(text("DROP TABLE outcomes"))
        assert connection.execute(text("SELECT status FROM findings")).scalars().all() == [
            "open", "confirmed",
        ]  # fmt: skip
    store = open_store(settings)
    check_new_rows(store.engine)
    store.engine.dispose()


@pytest.mark.parametrize("check", [check_attempts, check_findings, check_owners_tags_and_outcomes])
def test_campaigns_are_written_and_read(store, check):
    check(store)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_home_is_named(tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(StoreError, match="not writable"):
        open_store(read_settings({"WORKBENCH_HOME": str(locked / "home")}))


@pytest.mark.parametrize("url", ["foo", "foo://x"])
def test_a_url_that_means_nothing_is_named(tmp_path, url):
    settings = read_settings({"WORKBENCH_HOME": str(tmp_path), "WORKBENCH_DATABASE_URL": url})
    with pytest.raises(ConfigError, match="WORKBENCH_DATABASE_URL"):
        open_store(settings)


def test_a_damaged_database_is_named(settings):
    settings.home.mkdir()
    (settings.home / "workbench.db").write_bytes(b"not a database at all, " * 100)
    with pytest.raises(StoreError, match=r"workbench\.db.*not a database.*restore"):
        open_store(settings)
