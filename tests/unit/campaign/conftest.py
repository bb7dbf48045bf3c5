"""Fixtures of the campaign room."""

from __future__ import annotations

import pytest

from campaign_fakes import Bench, WordEncoder, WordJudge
from workbench.core.settings import read_settings
from workbench.data.build import build_pairs
from workbench.data.config import BuildConfig
from workbench.store.database import Store, open_store


@pytest.fixture
def bench() -> Bench:
    return Bench([WordJudge("a"), WordJudge("b")])


@pytest.fixture
def encoder() -> WordEncoder:
    return WordEncoder()


@pytest.fixture(scope="session")
def seeded_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with a small pair set of the shipped seeds."""
    home = tmp_path_factory.mktemp("campaign")
    opened = open_store(read_settings({"WORKBENCH_HOME": str(home), "WORKBENCH_USER": "tester"}))
    build_pairs(opened, BuildConfig(target_pairs=600))
    yield opened
    opened.engine.dispose()
