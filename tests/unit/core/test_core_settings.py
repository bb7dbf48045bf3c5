"""Settings come from the environment once, whole, and go on to kernels unchanged."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.core.errors import ConfigError
from workbench.core.settings import Settings, project_root, read_settings, seeds_folder

characters = st.characters(exclude_characters="\0/", exclude_categories=["Cs"])
names = st.text(characters, min_size=1).filter(lambda name: name not in {".", ".."})


@given(st.tuples(names, names, names, names), st.none() | names, st.booleans())
def test_a_kernel_reads_the_settings_it_was_given(words, run, offline):
    home, user, url, experiment = words
    given_settings = Settings(
        home=Path("/base").resolve() / home,
        database_url=url,
        user=user,
        run_folder=Path("/base") / run if run else None,
        run_id=run or "",
        experiment=experiment if run else "",
        offline=offline,
    )
    assert read_settings(given_settings.to_environment()) == given_settings


def test_without_any_variable_everything_is_under_the_project(tmp_path, monkeypatch):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    settings = read_settings({})
    assert settings.home == tmp_path.resolve() / "experiments" / "runs"
    assert settings.database_url == f"sqlite:///{settings.home / 'workbench.db'}"
    assert settings.offline
    assert not settings.is_batch
    assert settings.user


def test_a_relative_home_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_settings({"WORKBENCH_HOME": "here"}).home == tmp_path.resolve() / "here"


@pytest.mark.parametrize("value", ["", "true", "2", " 1"])
def test_a_nonsense_switch_is_named(value):
    with pytest.raises(ConfigError, match=f"WORKBENCH_OFFLINE is {value!r}; set it to 0 or 1"):
        read_settings({"WORKBENCH_OFFLINE": value})


def test_settings_cannot_be_changed(settings):
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.user = "somebody else"


def test_the_nearest_project_wins_and_none_falls_back(tmp_path):
    outer, inner = tmp_path / "outer", tmp_path / "outer" / "deep" / "inner"
    for project in (outer, inner):
        (project / "experiments").mkdir(parents=True)
        (project / "notebooks").mkdir()
    assert project_root(inner / "notebooks") == inner
    assert project_root(outer / "deep") == outer
    lonely = tmp_path / "lonely"
    lonely.mkdir()
    assert project_root(lonely) == lonely


def test_shipped_seeds_are_there():
    assert (seeds_folder() / "requests.jsonl").is_file()
