"""Settings come from the environment once, whole, and go on to kernels unchanged."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import pickle
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.core.errors import ConfigError
from workbench.core.settings import (
    Secret,
    Settings,
    cores,
    project_root,
    read_keys,
    read_settings,
    seeds_folder,
)

KEY = "sk-ant-" + "not4real" * 6

characters = st.characters(exclude_characters="\0/", exclude_categories=["Cs"])
names = st.text(characters, min_size=1).filter(lambda name: name not in {".", ".."})


@given(st.tuples(*[names] * 8), st.none() | names, st.booleans(), st.booleans())
def test_a_kernel_reads_the_settings_it_was_given(words, run, offline, profile):
    home, user, url, experiment, fingerprint, llm, cache_url, otlp_endpoint = words
    given_settings = Settings(
        home=Path("/base").resolve() / home,
        database_url=url,
        user=user,
        run_folder=Path("/base") / run if run else None,
        run_id=run or "",
        experiment=experiment if run else "",
        offline=offline,
        fingerprint=fingerprint,
        llm=llm,
        cache_url=cache_url,
        otlp_endpoint=otlp_endpoint,
        profile=profile,
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
    for name in ("WORKBENCH_OFFLINE", "WORKBENCH_PROFILE"):
        with pytest.raises(ConfigError, match=f"{name} is {value!r}; set it to 0 or 1"):
            read_settings({name: value})


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
    assert (seeds_folder() / "requests" / "violence.jsonl").is_file()


def test_settings_show_no_address_that_may_hold_a_password():
    env = {
        "WORKBENCH_CACHE_URL": f"redis://:{KEY}@cache:6379/0",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://{KEY}@collector",
    }
    settings = read_settings(env)
    assert KEY in settings.cache_url
    assert KEY not in f"{settings!r} {settings}"


def test_keys_are_neither_in_the_settings_nor_handed_to_kernels_by_them():
    settings = read_settings({"ANTHROPIC_API_KEY": KEY, "WORKBENCH_OPENAI_KEYS": KEY})
    assert KEY not in repr(dataclasses.asdict(settings))
    assert KEY not in repr(settings.to_environment())


@pytest.mark.parametrize(
    ("url", "is_here"),
    [
        ("http://127.0.0.1:1/v1", True), ("http://127.9.9.9", True), ("http://[::1]:80", True),
        ("http://localhost:8000", True), ("unix:///run/redis.sock", True),
        ("http://127.0.0.1.example.org", False), ("http://localhost.example.org", False),
        ("http://127.0.0.1@example.org", False), ("https://api.example.org", False),
        ("http://10.0.0.1", False), ("http://[", False), ("", False), ("127.0.0.1", False),
    ],
)  # fmt: skip
def test_offline_only_this_machine_may_be_reached(url, is_here):
    assert read_settings({}).may_connect(url) is is_here
    assert read_settings({"WORKBENCH_OFFLINE": "0"}).may_connect(url)


def revealed(keys):
    return [key.reveal() for key in keys]


def test_a_pool_goes_before_a_single_key_and_holds_each_once():
    env = {"WORKBENCH_ANTHROPIC_KEYS": "a1,b2,,a1,", "ANTHROPIC_API_KEY": "c3"}
    assert revealed(read_keys("anthropic", env)) == ["a1", "b2"]
    assert revealed(read_keys("anthropic", {"ANTHROPIC_API_KEY": "c3"})) == ["c3"]
    assert revealed(read_keys("openai", {"OPENAI_API_KEY": "d4"})) == ["d4"]
    assert revealed(read_keys("openai", {"WORKBENCH_OPENAI_KEYS": "e5,f6"})) == ["e5", "f6"]


@pytest.mark.parametrize("provider", ["openai", "bedrock", "vertex", "scripted"])
def test_who_needs_no_key_gets_an_empty_one(provider):
    assert revealed(read_keys(provider, {"ANTHROPIC_API_KEY": KEY})) == [""]


@pytest.mark.parametrize("env", [{}, {"ANTHROPIC_API_KEY": ""}, {"WORKBENCH_ANTHROPIC_KEYS": ","}])
def test_a_missing_key_is_named_with_what_needs_it_and_what_works_without(env):
    with pytest.raises(ConfigError) as caught:
        read_keys("anthropic", env)
    message = str(caught.value)
    for part in ("this notebook or command", "ANTHROPIC_API_KEY", "WORKBENCH_ANTHROPIC_KEYS",
                 "experiments/quickstart.yaml", "workbench.llm.loopback"):  # fmt: skip
        assert part in message
    assert "\n" not in message


def test_in_a_run_the_step_that_needs_the_key_is_named():
    env = {"WORKBENCH_RUN_FOLDER": "/h/trial/mutate/run-1", "WORKBENCH_EXPERIMENT": "trial"}
    with pytest.raises(ConfigError, match="step 'mutate' of experiment 'trial' calls models"):
        read_keys("anthropic", env)


@pytest.mark.parametrize("flaw", [" ", "\n", "\t", "\x00", "é", "\u200b", "\x7f"])
@pytest.mark.parametrize("variable", ["WORKBENCH_ANTHROPIC_KEYS", "ANTHROPIC_API_KEY"])
@pytest.mark.parametrize("text", ["{}" + KEY, KEY + "{}", KEY[:9] + "{}" + KEY[9:]])
def test_what_cannot_be_a_key_is_refused_and_not_shown(flaw, variable, text):
    with pytest.raises(ConfigError, match=variable) as caught:
        read_keys("anthropic", {variable: text.format(flaw)})
    assert "not4real" not in "".join(traceback.format_exception(caught.value))


@dataclasses.dataclass
class Holder:
    key: Secret


def shown_by_json(secret):
    return json.dumps({"key": secret})


def shown_by_failing(secret):
    raise RuntimeError(f"could not send with {secret}")


@pytest.mark.parametrize(
    "show",
    [
        repr, str, "{}".format, "{0!r}".format, "{:>40}".format, lambda s: f"{s}{s!s}{s!r}", Holder,
        lambda s: [s, {s: s}], shown_by_json, shown_by_failing,
        lambda s: dataclasses.asdict(Holder(s)), pickle.dumps, copy.copy, copy.deepcopy,
        lambda s: json.dumps(Holder(s), default=str), lambda s: json.dumps(s, default=vars),
        lambda s: s.value, lambda s: s < 1, lambda s: s + s, hash,
    ],
)  # fmt: skip
def test_a_secret_shows_itself_to_nobody(show):
    secret = Secret(KEY)
    try:
        seen = repr(show(secret))
    except Exception as error:  # noqa: BLE001 - the message and the traceback count as well
        seen = "".join(traceback.format_exception(error))
    assert KEY not in seen
    assert secret.reveal() == KEY


def test_cores_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores() == 1
