"""Opening the store: one engine, migrated to the newest schema, and the rooms on top of it."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock
from sqlalchemy import Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import ConnectionPoolEntry

from workbench.core.errors import ConfigError, InputError, LeaseHeld, StoreError, WorkerLost
from workbench.core.settings import Settings
from workbench.store.artifacts import Artifacts, clear_disk_errors
from workbench.store.calls import Calls
from workbench.store.isolation import everybody, install, only_user
from workbench.store.ledger import Ledger
from workbench.store.remote import open_remote
from workbench.store.runs import RunTable
from workbench.store.transaction import KNOWN, PATIENCE, transaction

__all__ = [
    "SCHEMA_VERSION", "Store", "as_user", "migrate_to", "open_store", "or_another_worker",
    "plain_engine", "refuse_other_disk",
]  # fmt: skip

SCHEMA_VERSION = "0006"
_BUSY_TIMEOUT_MS = 30_000
_GIVE_UP = {
    "connect_timeout": 10,
    "tcp_user_timeout": 20_000,
    "keepalives_idle": 20,
    "keepalives_interval": 5,
    "keepalives_count": 4,
}
"""When a connection that the network lost is given up, in s and ms; the system takes 15 minutes."""
_SERVER_GIVES_UP = """
SET idle_in_transaction_session_timeout = '30s'; SET tcp_keepalives_idle = 20;
SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 4
"""
"""The same for the server, which takes 2 hours and keeps the locks of a transaction so long."""


@dataclass(frozen=True, kw_only=True)
class Store:
    """The open store of one process."""

    settings: Settings
    engine: Engine
    artifacts: Artifacts
    ledger: Ledger
    runs: RunTable
    calls: Calls

    @property
    def home(self) -> Path:
        """Folder of everything that is not in the database."""
        return self.settings.home


def open_store(settings: Settings, *, patience_s: float = 60.0) -> Store:
    """Return the store that the settings name, created or migrated where needed.

    Args:
        settings: Of this process.
        patience_s: For how long a database that goes away later on is waited for.

    Raises:
        StoreError: If it cannot be opened or was written by a newer version.
    """
    home = settings.home
    with clear_disk_errors(home):
        home.mkdir(parents=True, exist_ok=True)
    engine = _engine(settings.database_url)
    install(engine, user=settings.user)
    # a run was noted in the database before its kernel began
    engine.update_execution_options(**{PATIENCE: patience_s, KNOWN: bool(settings.run_id)})
    _migrate(everybody(engine), home / "migrate.lock")
    return _rooms(settings, engine, calls=Calls(engine))


def refuse_other_disk(settings: Settings, *, host: str) -> None:
    """Refuse a worker on another machine than that which asked for its work its SQLite file.

    Raises:
        ConfigError: If that is the database.
    """
    here = platform.node()
    if settings.database_url.startswith("sqlite") and here != host:
        raise ConfigError(
            f"worker {here} cannot share the SQLite file of {host}; set WORKBENCH_DATABASE_URL to a"
            " PostgreSQL that both reach"
        )


@contextmanager
def or_another_worker() -> Iterator[None]:
    """Have another worker do what this one cannot even begin, for want of the store.

    Raises:
        WorkerLost: In place of a StoreError, unless a lease is somebody else's.
    """
    try:
        yield
    except LeaseHeld:
        raise
    except StoreError as error:
        raise WorkerLost(f"a worker cannot reach the store: {error}") from None


def as_user(store: Store, user: str) -> Store:
    """Return the store for one user alone, with the same connections: for servers of many users.

    It shows nobody else's rows, and what is written is that user's.
    """
    engine = only_user(store.engine, user)
    settings = replace(store.settings, user=user)
    return _rooms(settings, engine, calls=store.calls.seeing(engine))


def _rooms(settings: Settings, engine: Engine, *, calls: Calls) -> Store:
    return Store(
        settings=settings,
        engine=engine,
        artifacts=Artifacts(
            engine,
            settings.home / "artifacts",
            owner=settings.user,
            run=settings.run_id,
            remote=open_remote(settings.artifacts_url, may_connect=settings.may_connect),
            cache_bytes=int(settings.artifacts_cache_gb * 1e9),
        ),
        ledger=Ledger(engine),
        runs=RunTable(engine),
        calls=calls,
    )


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        is_libpq = parsed.get_driver_name().startswith("psycopg")
        mine = {name: how for name, how in _GIVE_UP.items() if name not in parsed.query}
        engine = create_engine(
            parsed,
            pool_pre_ping=parsed.get_backend_name() != "sqlite",
            connect_args=mine if is_libpq else {},
        )
    except (ArgumentError, ImportError) as error:
        raise ConfigError(
            f"WORKBENCH_DATABASE_URL: {error}; write sqlite:///file or postgresql+psycopg://…"
        ) from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
    elif is_libpq:
        event.listen(engine, "connect", _prepare_postgres)
    return engine


def _prepare_sqlite(connection: Any, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")  # a run table that loses its last commits lies
    cursor.close()


def _prepare_postgres(connection: Any, _entry: ConnectionPoolEntry) -> None:
    with connection.cursor() as cursor:  # no startup options: poolers refuse them
        cursor.execute(_SERVER_GIVES_UP)
    connection.commit()


def _migrate(engine: Engine, lock: Path) -> None:
    if _schema_version(engine) == SCHEMA_VERSION:
        return
    with FileLock(lock):
        found = _schema_version(engine)
        if found == SCHEMA_VERSION:
            return
        if found > SCHEMA_VERSION:
            raise StoreError(
                f"the store {engine.url!r} has schema {found}, this version knows"
                f" {SCHEMA_VERSION}; upgrade prompt-safety-workbench"
            )
        _upgrade(engine, SCHEMA_VERSION)


def plain_engine(url: str) -> Engine:
    """Return an engine for the rows of all users, its database as it is.

    Raises:
        ConfigError: If the URL means nothing.
    """
    engine = _engine(url)
    install(engine, user="")
    return engine


def migrate_to(engine: Engine, version: str) -> None:
    """Give an empty database the tables of a version, to load into them what it kept.

    Raises:
        InputError: If it has tables already.
        StoreError: If it cannot be written.
    """
    with transaction(engine) as connection:
        found = inspect(connection).get_table_names()
    if found:
        raise InputError(f"{engine.url!r}: has tables already, e.g. {found[0]}; give an empty one")
    _upgrade(engine, version)


def _schema_version(engine: Engine) -> str:
    with transaction(engine) as connection:
        if not inspect(connection).has_table("alembic_version"):
            return ""
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or ""


def _upgrade(engine: Engine, version: str) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with transaction(engine) as connection:
        if engine.dialect.name == "sqlite":  # its driver leaves DDL outside transactions otherwise
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        config.attributes["connection"] = connection
        command.upgrade(config, version)
