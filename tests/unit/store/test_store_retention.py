"""What is old goes, and nothing that anybody still needs."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import update

from workbench.cli import store_retention
from workbench.core.errors import ConfigError, DataError, InputError, StoreError
from workbench.core.off_peak import Window
from workbench.core.settings import read_settings
from workbench.store import schema
from workbench.store.campaigns import unfinished
from workbench.store.database import as_user, open_store
from workbench.store.events import events, tell
from workbench.store.packing import read_bytes
from workbench.store.policy import Policy, Rule, read_policy
from workbench.store.records import Run
from workbench.store.retention import apply_retention, hold, plan_retention, release
from workbench.store.storage_cost import book_storage
from workbench.store.test_sets import add_tag

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
POLICY = Policy()
TEXT = b'{"a line": "of many"}\n' * 3_000


def name(letter):
    return letter * 64


def at(days, *, end=NOW):
    return (end - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def make(store, letter, *, kind="execution", days=0.0, data=TEXT, end=NOW, **metadata):
    with store.artifacts.create(kind, name(letter), metadata) as folder:
        (folder / "lines.jsonl").write_bytes(data)
        (folder / "manifest.json").write_text(json.dumps(metadata))
    table = schema.artifacts
    mine = (table.c.kind == kind) & (table.c.id == name(letter))
    with store.engine.begin() as connection:
        connection.execute(update(table).where(mine).values(created_at=at(days, end=end)))
    return name(letter)


def plan(store, policy=POLICY, *, now=NOW):
    return {one.id[0]: one for one in plan_retention(store, policy, now=now)}


def actions(store, policy=POLICY):
    return {letter: one.action for letter, one in plan(store, policy).items()}


def apply(store, policy=POLICY, **more):
    return apply_retention(store, policy, plan_retention(store, policy, now=NOW), **more)


# -- ages ----------------------------------------------------------------------------------------


def test_young_stays_a_week_is_compressed_and_90_days_removed(store):
    for letter, days in (("a", 90), ("b", 89.9), ("c", 7), ("d", 6.9), ("e", 0)):
        make(store, letter, days=days)
    assert actions(store) == {"a": "remove", "b": "compress", "c": "compress"}
    rows = plan(store)
    assert rows["a"].bytes_after == 0
    assert rows["b"].bytes_before > 10 * rows["b"].bytes_after
    done = apply(store)
    assert (done.removed, done.compressed, done.left) == (1, 2, 0)
    for letter in "bcde":
        folder = store.artifacts.path("execution", name(letter))
        assert (folder / "lines.jsonl").read_bytes() == TEXT
    with pytest.raises(DataError, match=r"was removed on .* by the policy 'execution: 90 days'"):
        store.artifacts.path("execution", name("a"))


def test_a_plan_changes_nothing_and_a_second_apply_finds_nothing(store):
    make(store, "a", days=100)
    make(store, "b", days=10)
    make(store, "c")
    assert plan(store) == plan(store)
    assert store.artifacts.exists("execution", name("a"))
    apply(store)
    assert plan(store) == {}
    assert apply(store).bytes_freed == 0


def test_what_is_compressed_already_or_small_stays(store):
    import os

    make(store, "a", days=20, data=os.urandom(100_000))
    make(store, "b", days=20, data=b"{}")
    make(store, "c")
    assert plan(store) == {}


def test_each_kind_has_its_rule(store):
    policy = Policy(
        usual=Rule(compress_after_days=1, remove_after_days=10),
        kinds={"model": Rule(remove_after_days=float("inf"))},
    )
    for kind in ("model", "judge"):
        make(store, "a", kind=kind, days=11)
        make(store, "b", kind=kind)
    rows = plan_retention(store, policy, now=NOW)
    assert {(one.kind, one.action) for one in rows} == {("model", "compress"), ("judge", "remove")}


# -- what stays ----------------------------------------------------------------------------------


def test_the_newest_of_each_kind_stays_however_old(store):
    make(store, "a", days=300, data=b"x")
    make(store, "b", kind="model", days=400, data=b"x")
    assert actions(store) == {"a": "keep", "b": "keep"}
    assert plan(store)["b"].why == "the newest model"


def test_what_a_kept_one_refers_to_stays_and_what_a_removed_one_does_not(store):
    make(store, "a", kind="test_set", days=200)
    make(store, "b", kind="test_set", days=200)
    make(store, "9", kind="test_set")  # the newest
    make(store, "c", test_set=name("a"))
    make(store, "d", test_set=name("b"), days=200)
    found = plan(store)
    assert found["a"].action == "compress"  # kept, and then compressed
    assert found["b"].action == found["d"].action == "remove"


def test_references_are_followed_through_files_and_steps(store):
    # assessment → evidence (in its file, not in what the row says) → snapshot
    make(store, "a", kind="snapshot", days=200, data=b"x")
    make(store, "b", kind="evidence", days=200, data=b"x", snapshot=name("a"))
    make(store, "1", kind="snapshot")
    make(store, "2", kind="evidence")
    with store.artifacts.create("assessment", name("c"), {}) as folder:
        (folder / "manifest.json").write_text(json.dumps({"deep": [{"in": name("b")}]}))
    found = plan(store)
    assert found["b"].why == f"assessment {name('c')[:12]} refers to it"
    assert found["a"].why == f"evidence {name('b')[:12]} refers to it"


@pytest.mark.parametrize("said", [{"tags": ["gold"]}, {"tag": "gold"}, {"confirmed": True}])
def test_what_was_tagged_or_confirmed_stays(store, said):
    make(store, "a", kind="model", days=200, data=b"x", **said)
    make(store, "b", kind="model", days=200, data=b"x", tags=[], confirmed=False)
    make(store, "c", kind="model")
    assert actions(store) == {"a": "keep", "b": "remove"}


def test_a_tagged_test_set_stays_whoever_tagged_it(store):
    make(store, "a", kind="test_set", days=200, data=b"x")
    make(store, "b", kind="test_set")
    add_tag(store.engine, name("a"), "nightly", owner="somebody else")
    assert plan(store)["a"].why == "tagged"


def test_the_test_set_of_an_unfinished_execution_stays(store):
    make(store, "a", kind="test_set", days=200, data=b"x")
    make(store, "b", kind="test_set")
    tell(store, "attack_run_started", name("e"), {"test_set": name("a")})
    with store.engine.begin() as connection:
        row = dict.fromkeys(schema.attempts.c.keys(), "")
        row |= {"execution": name("e"), "trial": 0, "success": False, "latency_ms": 0.0}
        row |= {"replies": [], "scores": {}, "reasons": {}}
        connection.execute(schema.attempts.insert(), row)
    assert unfinished(store.engine) == {name("e"): name("a")}
    assert plan(store)["a"].action == "keep"


def test_a_legal_hold_keeps_it_and_what_it_refers_to_as_they_are(store):
    make(store, "a", kind="test_set", days=200)
    make(store, "b", test_set=name("a"), days=200)
    make(store, "c", kind="test_set")
    make(store, "d")
    planned = plan_retention(store, POLICY, now=NOW)
    assert hold(store, "execution", "bbb", why="case 12") == name("b")
    found = plan(store)
    assert (found["b"].action, found["b"].why) == ("keep", "legal hold")
    assert found["a"].action == "compress"
    apply_retention(store, POLICY, [one for one in planned if one.kind == "execution"])
    assert store.artifacts.exists("execution", name("b"))  # held after it was planned
    release(store, "execution", name("b"))
    assert plan(store)["b"].action == "remove"
    told = [one.details["state"] for one in events(store.engine, kind="legal_hold")]
    assert told == ["held", "released"]


def test_a_hold_of_nothing_is_refused(store):
    with pytest.raises(InputError, match="did you mean 'execution'"):
        hold(store, "executions", "a")
    with pytest.raises(DataError, match="no execution 'a'"):
        hold(store, "execution", "a")
    make(store, "a", days=100)
    make(store, "b")
    apply(store)
    with pytest.raises(DataError, match="was removed on"):
        hold(store, "execution", "a")


def test_a_hold_survives_mending(store):
    make(store, "a", days=200)
    make(store, "b")
    hold(store, "execution", "a")
    with store.artifacts.create("execution", name("a"), {}, mend=True):
        pass
    assert plan(store)["a"].why == "legal hold"


@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    days=st.lists(st.integers(0, 200), min_size=2, max_size=8),
    links=st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=12),
)
def test_nothing_that_stays_refers_to_what_goes(tmp_path_factory, days, links):
    home = tmp_path_factory.mktemp("home")
    store = open_store(read_settings({"WORKBENCH_HOME": str(home), "WORKBENCH_USER": "t"}))
    letters = "abcdef01"[: len(days)]
    kinds = {letter: ("model", "pair_set")[n % 2] for n, letter in enumerate(letters)}
    refers = {
        letter: [name(letters[b]) for a, b in links if a == n and b < len(letters)]
        for n, letter in enumerate(letters)
    }
    for letter, age in zip(letters, days, strict=True):
        make(store, letter, kind=kinds[letter], days=age, data=b"x", refers=refers[letter])
    gone = {one.id for one in plan_retention(store, POLICY, now=NOW) if one.action == "remove"}
    for letter, age in zip(letters, days, strict=True):
        if name(letter) not in gone:
            assert not set(refers[letter]) & gone
        else:
            assert age >= 90
    store.engine.dispose()


# -- runs ----------------------------------------------------------------------------------------


def add_run(store, number, *, days, state="succeeded"):
    folder = store.home / "quick" / "step" / f"run-{number}"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text('{"kind": "x"}')
    (folder / "notebook.ipynb").write_bytes(TEXT)
    (folder / "kernel.log").write_bytes(TEXT)
    run = Run(
        id=f"run-{number}", experiment="quick", step="step", notebook="n", phase="training",
        fingerprint="f", parameters={}, state=state, owner="tester", folder=str(folder),
        started_at=at(days), finished_at="" if state == "running" else at(days),
    )  # fmt: skip
    store.runs.add(run)
    return folder


def test_run_folders_are_compressed_then_reduced_to_their_result(store):
    folders = [add_run(store, number, days=days) for number, days in enumerate((100, 10, 5, 0))]
    running = add_run(store, 9, days=100, state="running")
    done = apply(store)
    assert (done.removed, done.compressed) == (1, 1)
    assert [file.name for file in folders[0].iterdir()] == ["result.json"]
    assert sorted(file.name for file in folders[1].iterdir()) == [
        "kernel.log.zst", "notebook.ipynb.zst", "result.json",
    ]  # fmt: skip
    assert read_bytes(folders[1] / "notebook.ipynb") == TEXT
    assert len(list(folders[2].iterdir())) == len(list(running.iterdir())) == 3
    assert store.runs.get("run-0").state == "succeeded"
    assert plan(store) == {}


def test_the_newest_run_and_a_held_one_stay(store):
    add_run(store, 0, days=200)
    add_run(store, 1, days=150)
    assert hold(store, "run", "run-0", why="case 3") == "run-0"
    whys = {one.id: one.why for one in plan_retention(store, POLICY, now=NOW)}
    assert whys == {"run-0": "legal hold", "run-1": "the newest run"}
    release(store, "run", "run-0")
    rows = plan_retention(store, POLICY, now=NOW)
    assert {one.id: one.action for one in rows} == {"run-0": "remove", "run-1": "keep"}


def test_a_folder_that_is_not_ours_is_never_touched(store, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "precious").write_bytes(TEXT)
    add_run(store, 0, days=200)
    add_run(store, 1, days=0)
    with store.engine.begin() as connection:
        connection.execute(update(schema.runs).values(folder=str(theirs)))
    assert plan_retention(store, POLICY, now=NOW) == []
    (store.home / "link").symlink_to(theirs)
    with store.engine.begin() as connection:
        connection.execute(update(schema.runs).values(folder=str(store.home / "link")))
    assert plan_retention(store, POLICY, now=NOW) == []


# -- ledger, events, kills -----------------------------------------------------------------------


def storage_rows(store, unit):
    return [row for row in store.ledger.rows() if row.phase == "storage" and row.unit == unit]


def test_what_was_freed_is_in_ledger_and_events_with_its_price(store):
    make(store, "a", days=100)
    make(store, "b", days=10)
    make(store, "c")
    done = apply(store)
    rows = storage_rows(store, "gb_freed")
    assert {row.note for row in rows} == {"removed", "compressed"}
    assert sum(row.quantity for row in rows) == pytest.approx(done.bytes_freed / 1e9)
    assert all(row.usd == 0 for row in rows)
    assert all("0.023" in row.price_version for row in rows)
    removed = next(row for row in rows if row.note == "removed")
    expected = Decimal("0.023") * removed.details["bytes_before"] / 10**9
    saved = Decimal(removed.details["usd_saved_per_month"])
    assert abs(saved - expected) <= Decimal("1e-9")
    (event,) = events(store.engine, kind="storage_removed")
    assert (event.subject, event.details["policy"]) == (name("a"), "execution: 90 days")


def test_killed_at_any_artifact_the_next_apply_does_the_rest_once(store, monkeypatch):
    for letter in "abc":
        make(store, letter, days=100)
    make(store, "d")
    planned = plan_retention(store, POLICY, now=NOW)
    expire = store.artifacts._shelf.clear
    calls = []

    def killed(place, mark):
        calls.append(place)
        if len(calls) == 2:  # said, not yet cleared
            raise KeyboardInterrupt
        expire(place, mark)

    monkeypatch.setattr(store.artifacts._shelf, "clear", killed)
    with pytest.raises(KeyboardInterrupt):
        apply_retention(store, POLICY, planned)
    monkeypatch.undo()
    done = apply(store)
    assert (done.removed, done.rests) == (1, 0)
    assert len(storage_rows(store, "gb_freed")) == 3
    from workbench.store.rests import sweep

    assert sweep(store.engine, store.home / "artifacts", None, older_s=-1) == 1
    assert [one.name for one in (store.home / "artifacts" / "execution").glob("[a-z]*")] == [
        name("d")[:32]
    ]


def test_it_stops_when_the_window_closes_and_goes_on_another_time(store):
    for letter in "abc":
        make(store, letter, days=100)
    make(store, "d")
    answers = iter([True, False, False])
    done = apply(store, go_on=lambda: next(answers))
    assert (done.removed, done.left) == (1, 2)
    assert apply(store).removed == 2


def test_a_full_disk_leaves_the_artifact(store, monkeypatch):
    import errno
    import os

    from workbench.store import packing

    make(store, "a", days=10)
    make(store, "b")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(packing.os, "fsync", full)
    with pytest.raises(StoreError, match="the disk is full"):
        apply(store)
    monkeypatch.undo()
    assert (store.artifacts.path("execution", name("a")) / "lines.jsonl").read_bytes() == TEXT
    assert apply(store).compressed == 1


def test_each_day_is_booked_once_with_what_was_there(store):
    a = make(store, "a", days=3)
    make(store, "b", days=1)
    size = sum(p.stat().st_size for p in store.artifacts.path("execution", a).iterdir())
    assert book_storage(store, POLICY, now=NOW) == 3
    assert book_storage(store, POLICY, now=NOW) == 0
    rows = storage_rows(store, "gb_month")
    days = [row.details["day"] for row in rows]
    assert days == ["2026-11-24", "2026-11-25", "2026-11-26"]
    assert [row.details["bytes"] for row in rows] == [size, size, 2 * size]
    assert [row.details["written_bytes"] for row in rows] == [size, 0, size]
    month = rows[0]
    assert month.quantity == pytest.approx(size / 1e9 * 12 / 365.25)
    assert float(month.usd) == pytest.approx(0.023 * month.quantity, abs=1e-9)
    assert book_storage(store, POLICY, now=NOW + timedelta(days=2)) == 2


def test_a_store_of_nothing_books_nothing(store):
    assert book_storage(store, POLICY, now=NOW) == 0


def test_a_store_that_acts_for_one_user_may_not_decide_for_all(store):
    make(store, "a", days=100)
    with pytest.raises(InputError, match="acts for 'anna' alone"):
        plan_retention(as_user(store, "anna"), POLICY, now=NOW)


def test_artifacts_of_an_older_version_are_measured(store):
    make(store, "a", days=100, test_set=name("b"))
    make(store, "b", kind="test_set", days=100)
    make(store, "c", kind="test_set")
    table = schema.artifacts
    with store.engine.begin() as connection:  # as they were before there were marks
        connection.execute(update(table).values(metadata={}))
    found = plan(store)
    assert found["a"].action == "compress"  # the newest execution
    assert found["b"].action == "compress"  # its manifest says that it refers to it
    assert found["a"].bytes_before > len(TEXT)
    apply(store)
    assert (store.artifacts.path("execution", name("a")) / "lines.jsonl").read_bytes() == TEXT


# -- policy and command line ---------------------------------------------------------------------


def test_a_policy_is_read_with_its_own_rules(tmp_path):
    assert read_policy(tmp_path) == Policy()
    (tmp_path / "retention.yaml").write_text(
        "remove_after_days: 30\nusd_per_gb_month: 0.01\n"
        "kinds: {model: {remove_after_days: never}, run: {compress_after_days: 1}}\n"
    )
    policy = read_policy(tmp_path)
    assert policy.rule("execution") == Rule(compress_after_days=7, remove_after_days=30)
    assert policy.rule("model").remove_after_days == float("inf")
    assert policy.rule("run") == Rule(compress_after_days=1, remove_after_days=30)
    assert policy.usd_per_gb_month == Decimal("0.01")
    assert policy.price_version == "$0.01 a GB-month: retention.yaml"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("remove_after_day: 3", "did you mean 'remove_after_days'"),
        ("kinds: {modle: {remove_after_days: 3}}", "did you mean 'model'"),
        ("kinds: {model: {remove: 3}}", "unknown field 'remove'"),
        ("kinds: {model: 3}", "write a mapping"),
        ("remove_after_days: -1", "no number of days"),
        ("remove_after_days: true", "no number of days"),
        ("compress_after_days: soon", "or: never"),
        ("usd_per_gb_month: .inf", "not an amount"),
        ("usd_per_gb_month: -1", "below 0"),
        ("- 3", "write a mapping"),
        ("a: [", "correct the file"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(tmp_path, text, why):
    (tmp_path / "retention.yaml").write_text(text)
    with pytest.raises(ConfigError, match=why) as caught:
        read_policy(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.fixture
def command(store, settings, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_HOME", str(settings.home))
    monkeypatch.setenv("WORKBENCH_USER", "tester")
    monkeypatch.chdir(tmp_path)

    def call(one, *arguments):
        return CliRunner().invoke(one, arguments, catch_exceptions=True)

    return call


def make_old_and_new(store):
    """Make one that is old by the clock of the machine, and one that is not."""
    for letter, days in (("a", 100), ("b", 0)):
        make(store, letter, days=days, end=datetime.now(UTC))


def test_the_command_shows_then_does(store, command):
    make_old_and_new(store)
    shown = command(store_retention.retain, "--dry-run")
    assert shown.exit_code == 0, shown.output
    assert "execution: 90 days" in shown.output
    assert store.artifacts.exists("execution", name("a"))
    done = json.loads(command(store_retention.retain, "--json").stdout)
    assert done["done"]["removed"] == 1
    assert done["bytes_after"] == 0
    assert done["booked_days"] >= 99
    assert not store.artifacts.exists("execution", name("a"))


def test_the_command_holds_and_releases(store, command):
    make_old_and_new(store)
    assert name("a") in command(store_retention.hold, "execution", "aa", "--why", "x").output
    assert name("a") in command(store_retention.release, "execution", "aa").output


def test_outside_the_hours_it_refuses_or_waits(store, command, monkeypatch):
    import time

    make_old_and_new(store)
    now = datetime(2026, 11, 27, 21, 50, tzinfo=UTC).timestamp()
    clock = [now]
    monkeypatch.setattr(store_retention, "_until", lambda w: w.seconds_until_open(clock[0]))
    refused = command(store_retention.retain, "--off-peak", "22:00-06:00")
    assert isinstance(refused.exception, InputError)
    assert "opens in 0:10:00" in str(refused.exception)
    assert store.artifacts.exists("execution", name("a"))
    monkeypatch.setattr(time, "sleep", lambda s: clock.__setitem__(0, clock[0] + s))
    done = command(store_retention.retain, "--off-peak", "22:00-06:00", "--wait", "--json")
    assert json.loads(done.stdout)["done"]["removed"] == 1
    assert clock[0] == now + 600
    wrong = command(store_retention.retain, "--off-peak", "22-6")
    assert "--off-peak is '22-6'" in str(wrong.exception)


def test_a_window_says_which_setting_is_wrong():
    with pytest.raises(ConfigError, match=r"^nightly is 'x'"):
        Window.read("x", name="nightly")
