"""Shared fixtures: a store of one's own."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from workbench.core.settings import Settings, read_settings
from workbench.store.database import Store, open_store

# speed is for benchmarks: with a worker on every core an example may take any time
hypothesis_settings.register_profile(
    "workbench", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("workbench")


def pytest_collection_finish() -> None:
    """Look for garbage seldom, and not among all modules again: a tenth of all CPU time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture(scope="session")
def new_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a store that nobody used: migrating one for each test takes longer than most."""
    home = tmp_path_factory.mktemp("new") / "home"
    open_store(read_settings({"WORKBENCH_HOME": str(home)})).engine.dispose()
    return home


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return read_settings({"WORKBENCH_HOME": str(tmp_path / "home"), "WORKBENCH_USER": "tester"})


@pytest.fixture
def store(settings: Settings, new_home: Path) -> Store:
    shutil.copytree(new_home, settings.home, dirs_exist_ok=True)
    opened = open_store(settings)
    yield opened
    opened.engine.dispose()
