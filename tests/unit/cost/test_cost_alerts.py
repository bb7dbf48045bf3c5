"""Thresholds: what they look at, when they warn and when they refuse."""

import os
from datetime import UTC, datetime

import pytest

from ledger_rows import hit_row, model_row
from workbench.core.errors import BudgetError, ConfigError
from workbench.cost.alerts import (
    Threshold,
    check,
    read_thresholds,
    refuse_if_exceeded,
    stored_bytes,
)
from workbench.cost.usage import compute_rows
from workbench.store.records import Run

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()


def at(hours_ago):
    moment = datetime.fromtimestamp(NOW - hours_ago * 3600, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def value(store, metric, window="day"):
    one = Threshold(metric=metric, window=window, limit=1, action="warn")
    (alert,) = check(store, [one], now=NOW)
    return alert.value


def write(root, text):
    (root / "alerts.yaml").write_text(text)


def test_each_metric_counts_its_window(store):
    compute = compute_rows(cpu_s=3600, who="a", job="j", experiment="e", phase="training")
    store.ledger.add(
        [
            model_row(usd="1", at=at(0.5)),
            model_row(usd="2", at=at(5), outcome="lost"),
            model_row(usd="4", at=at(100)),
            model_row(usd="8", at=at(500)),
            hit_row(calls=50, at=at(0.1)),
            model_row(usd="16", at=at(0.1), who="rehearsal:tester"),
            *(type(row)(**{**vars(row), "at": at(2)}) for row in compute),
        ]
    )
    assert [value(store, "calls", window) for window in ("hour", "day", "week")] == [1, 2, 3]
    assert value(store, "dollars", "hour") == 1
    assert value(store, "dollars") == 3  # nobody bills the estimated price of compute
    assert value(store, "tokens", "week") == 3 * 1350
    assert (value(store, "bytes_sent"), value(store, "bytes_received")) == (10_000, 1_400)


def test_runs_count_from_their_start(store):
    for number, hours in enumerate((0.5, 30)):
        store.runs.add(
            Run(
                id=f"run-{number}", experiment="e", step="s", notebook="n", phase="training",
                fingerprint="f", parameters={}, state="failed", owner="t", folder="",
                started_at=at(hours),
            )
        )  # fmt: skip
    assert [value(store, "runs", window) for window in ("hour", "week")] == [1, 2]


def test_storage_grows_by_files_that_changed_and_links_are_left_out(store, tmp_path):
    for name, size, hours in (("new", 3_000_000, 1), ("old", 5_000_000, 48)):
        file = store.home / "artifacts" / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"x" * size)
        os.utime(file, (NOW - hours * 3600,) * 2)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "huge").write_bytes(b"x" * 9_000_000)
    (store.home / "link").symlink_to(outside)
    (store.home / "loop").symlink_to(store.home)
    folder = store.home / "artifacts"
    assert stored_bytes(folder) == 8_000_000
    assert stored_bytes(folder, since=NOW - 86_400) == 3_000_000
    assert stored_bytes(store.home) < 9_000_000
    assert stored_bytes(store.home / "gone") == 0


def test_a_warning_lets_through_and_an_abort_refuses(store, tmp_path):
    store.ledger.add([model_row(usd="5", at=at(1))])
    write(tmp_path, "alerts: [{metric: dollars, window: day, limit: 4.99, action: warn}]")
    (warning,) = refuse_if_exceeded(store, tmp_path, now=NOW)
    assert str(warning) == "dollars of the last day: 5, limit 4.99"
    write(tmp_path, "alerts: [{metric: dollars, window: day, limit: 5, action: abort}]")
    assert refuse_if_exceeded(store, tmp_path, now=NOW) == []
    write(tmp_path, "alerts: [{metric: dollars, window: day, limit: 4, action: abort}]")
    with pytest.raises(BudgetError, match=r"dollars of the last day: 5, limit 4; .*alerts\.yaml"):
        refuse_if_exceeded(store, tmp_path, now=NOW)


def test_without_a_file_the_shipped_thresholds_hold(tmp_path):
    shipped = read_thresholds(tmp_path)
    assert {one.metric for one in shipped} == {
        "calls", "tokens", "dollars", "bytes_sent", "bytes_received", "storage_growth_mb", "runs"
    }  # fmt: skip
    assert any(one.action == "abort" for one in shipped)
    write(tmp_path, "alerts: []")
    assert read_thresholds(tmp_path) == []


GOOD = {"metric": "calls", "window": "day", "limit": 1, "action": "warn"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "dolars"}, "did you mean 'dollars'"),
        ({"window": "month"}, "unknown window 'month'; known: hour, day, week"),
        ({"action": "stop"}, "unknown action"),
        ({"limit": -1}, "no number from 0 up"),
        ({"limit": "1"}, "no number from 0 up"),
        ({"limit": ".nan"}, "no number from 0 up"),
        ({"limits": 1}, "did you mean 'limit'"),
    ],
)
def test_a_mistaken_threshold_is_named(tmp_path, change, message):
    import yaml

    write(tmp_path, yaml.safe_dump({"alerts": [GOOD, GOOD | change]}))
    with pytest.raises(ConfigError, match=message) as caught:
        read_thresholds(tmp_path)
    assert "alert 2" in str(caught.value)


ONE_LIST = "write one field, `alerts:`, and a list under it"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ONE_LIST),
        ("# nothing yet", ONE_LIST),
        ("alerts:", ONE_LIST),
        ("alerts: 3", ONE_LIST),
        ("[{metric: calls, window: day, limit: 1, action: warn}]", ONE_LIST),
        ("warn: []", ONE_LIST),
        ("{alerts: [], also: []}", ONE_LIST),
        ("[", "correct the file"),
        ("alerts: [3]", "alert 1: '3'; write a mapping of metric"),
        ("alerts: [{metric: calls, limit: 1}]", "alert 1: add window, action"),
    ],
)
def test_a_file_that_says_nothing_is_refused(tmp_path, text, message):
    write(tmp_path, text)
    with pytest.raises(ConfigError, match=r"alerts\.yaml") as caught:
        read_thresholds(tmp_path)
    assert "\n" not in str(caught.value)
    assert message in str(caught.value)
