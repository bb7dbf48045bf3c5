from __future__ import annotations

import multiprocessing
import os
import sqlite3

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

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
