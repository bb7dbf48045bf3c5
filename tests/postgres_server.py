"""A PostgreSQL of the tests' own, and an empty database on it for each test."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest
from sqlalchemy import create_engine, text

from machine import require
from workbench.core.settings import Settings, read_settings

NUMBERS = itertools.count()


class Server:
    """A PostgreSQL of our own: a data folder, a socket folder, no TCP port."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self.folder = folder
        self._data = folder / "data"

    def _call(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        if os.geteuid() == 0:  # the server refuses to run as root
            command = [require("postgresql", "runuser"), "-u", "postgres", "--", *command]
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"

    def create(self) -> None:
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres")
        self._call(
            "initdb",
            "-D",
            str(self._data),
            "-A",
            "trust",
            "-U",
            "tester",
            "-E",
            "UTF8",
            "--no-sync",
        )

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories='{self.folder}' -c fsync=off"
        # -l: pg_ctl's server would otherwise keep our pipes open for ever
        log = str(self.folder / "server.log")
        self._call("pg_ctl", "-D", str(self._data), "-o", options, "-l", log, "-w", "start")

    def stop(self) -> None:
        self._call("pg_ctl", "-D", str(self._data), "-m", "immediate", "-w", "stop")

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://tester@/{database}?host={self.folder}"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    program = str(versions[-1]) if versions else require("postgresql", "initdb")
    # a short path, open to the server's user: sockets have names of at most 107 bytes
    folder = Path(mkdtemp(prefix="pg-"))
    own = Server(Path(program).resolve().parent, folder)
    try:
        own.create()
        own.start()
        yield own
        own.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres(server: Server, tmp_path: Path) -> Settings:
    """Settings of a new, empty database."""
    name = f"db_{next(NUMBERS)}"
    admin = create_engine(server.url("postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    admin.dispose()
    return read_settings(
        {
            "WORKBENCH_HOME": str(tmp_path / "home"),
            "WORKBENCH_USER": "tester",
            "WORKBENCH_DATABASE_URL": server.url(name),
        }
    )
