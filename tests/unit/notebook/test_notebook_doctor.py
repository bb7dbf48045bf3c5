"""What doctor says of keys, network and cache: whether they are there, never what they are."""

from __future__ import annotations

import pytest

from workbench.notebook import doctor

KEY = "sk-ant-" + "not4real" * 6


@pytest.fixture
def checks(monkeypatch, tmp_path):
    for name in ("WORKBENCH_ANTHROPIC_KEYS", "ANTHROPIC_API_KEY", "WORKBENCH_OPENAI_KEYS",
                 "OPENAI_API_KEY", "WORKBENCH_CACHE_URL", "WORKBENCH_OFFLINE"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path))
    monkeypatch.setattr(doctor, "_encoder", lambda: "not looked at here")

    def look(**environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        found = doctor.run_checks()
        assert "not4real" not in repr(found)
        return {check["name"]: check for check in found}

    return look


def test_a_machine_without_keys_is_well_and_told_what_needs_one(checks):
    found = checks()
    assert all(check["ok"] or check["optional"] for check in found.values())
    assert not found["anthropic key"]["ok"]
    told = "absent (only needed for model calls); set ANTHROPIC_API_KEY"
    assert found["anthropic key"]["detail"].startswith(told)
    assert found["openai key"]["detail"].startswith("absent")
    assert found["network"]["detail"].startswith("offline")
    assert found["model prices"]["detail"].startswith("genai-prices/")
    assert found["shared cache"]["detail"].startswith("none")


def test_keys_are_counted_and_not_shown(checks):
    found = checks(
        WORKBENCH_ANTHROPIC_KEYS=f"{KEY},{KEY}2", OPENAI_API_KEY=KEY, WORKBENCH_OFFLINE="0"
    )
    assert (found["anthropic key"]["detail"], found["anthropic key"]["ok"]) == ("2 present", True)
    assert found["openai key"]["detail"] == "1 present"
    assert found["network"]["detail"].startswith("online")


@pytest.mark.parametrize(
    ("host", "detail", "ok"),
    [
        ("127.0.0.1:9", "redis://***@127.0.0.1:9/0 does not answer", False),
        ("cache.example.org", "redis://***@cache.example.org/0: left out while offline", True),
    ],
)
def test_a_cache_that_is_not_there_is_named_without_its_password(checks, host, detail, ok):
    found = checks(WORKBENCH_CACHE_URL=f"redis://:{KEY}@{host}/0")["shared cache"]
    assert found["detail"].startswith(detail)
    assert (found["ok"], found["optional"]) == (ok, True)
