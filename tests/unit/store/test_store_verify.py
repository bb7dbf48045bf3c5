from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from decimal import Decimal

import pytest
from click.testing import CliRunner
from sqlalchemy import insert, update

from campaign_rows import make_attempt
from isolation_rows import USERS, fill, ids
from ledger_rows import model_row
from model_calls import flight
from workbench.cli import main
from workbench.core.identity import file_sha256
from workbench.store import schema
from workbench.store.budgets import Budgets
from workbench.store.campaigns import add_attempts, attempt_pages
from workbench.store.jobs import Job, add_job, claim_job, job
from workbench.store.owners import this_process
from workbench.store.test_sets import add_test_set_owner
from workbench.store.verify import verify

DEAD = this_process().rsplit(":", 1)[0] + ":1.00"


@pytest.fixture
def full(store):
    for user in USERS:
        fill(store, user)
    with store.artifacts.create("pair_set", "p" * 64, {}) as folder:
        (folder / "a.parquet").write_bytes(b"rows")
        shard = {"file": "a.parquet", "sha256": file_sha256(folder / "a.parquet")}
        (folder / "manifest.json").write_text(json.dumps({"shards": [shard]}))
    return store


def found(store, **options):
    report = verify(store, **options)
    return {(one.check, one.is_damage) for one in report.problems}, report


def test_a_sound_store_is_whole(full):
    kinds, report = found(full)
    assert kinds == {("attempts", False)}  # both executions stand as artifacts too
    assert report.is_whole
    assert report.checked["artifacts"] == 5
    assert report.checked["database"] == len(schema.metadata.tables)


def _change(store, table, **values):
    with store.engine.begin() as connection:
        connection.execute(update(schema.metadata.tables[table]).values(**values))


def _damage_page(store):
    store.engine.dispose()
    with closing(sqlite3.connect(store.home / "workbench.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        sql = "SELECT rootpage FROM sqlite_master WHERE name = 'findings_by_execution'"
        page = connection.execute(sql).fetchone()[0]
        size = connection.execute("PRAGMA page_size").fetchone()[0]
    with (store.home / "workbench.db").open("r+b") as file:
        file.seek((page - 1) * size + size - 40)
        file.write(b"\xff" * 40)


def _lose_twice(store):
    lost = model_row(usd="1", flight="f")
    store.ledger.add([replace(lost, usd=Decimal(usd), estimated=True) for usd in (1, -1, -1)])


def _file(store):
    return store.artifacts.path("pair_set", "p" * 64) / "a.parquet"


DAMAGE = {
    "a folder is gone": (
        "artifacts", lambda store: shutil.rmtree(store.artifacts.path("pair_set", "p" * 64)),
    ),
    "a file has other bytes": (
        "artifacts",
        lambda store: _file(store).write_bytes(b"r0ws"),
    ),
    "a file is cut short": (
        "artifacts",
        lambda store: _file(store).write_bytes(b""),
    ),
    "a run has no result": ("runs", lambda store: _change(store, "runs", result={})),
    "an amount is no number": ("ledger", lambda store: _change(store, "ledger", usd="1,5")),
    "a quantity is no number": (
        "ledger", lambda store: _change(store, "ledger", quantity=float("inf")),
    ),
    "a lost call is taken back twice": ("ledger", _lose_twice),
    "attempts of nothing": (
        "attempts", lambda store: add_attempts(store.engine, [make_attempt(execution="x" * 64)]),
    ),
    "an owned set is not there": (
        "references",
        lambda store: add_test_set_owner(store.engine, "gone", owner="anna", metadata={}),
    ),
    "a triaged finding is not there": (
        "references", lambda store: _change(store, "triage_log", finding="gone"),
    ),
    "a page of the database": ("database", _damage_page),
}  # fmt: skip


@pytest.mark.parametrize("damage", list(DAMAGE))
def test_damage_is_found_and_never_repaired(full, damage):
    check, do = DAMAGE[damage]
    do(full)
    for repair in (False, True):
        kinds, report = found(full, repair=repair)
        assert (check, True) in kinds
        assert {name for name, is_damage in kinds if is_damage} == {check}
        assert not report.is_whole
        assert not any(one.is_repaired for one in report.problems if one.is_damage)


def test_rests_are_told_and_removed_only_when_asked(full, monkeypatch):
    monkeypatch.setattr("workbench.store.jobs.this_process", lambda: DEAD)
    one = add_job(full.engine, Job(kind="run", owner="anna"))
    claim_job(full.engine, one.id, owner="anna")
    full.calls.commit(budgets=Budgets(), claims=[flight("3", owner=DEAD)])
    rest = full.home / "artifacts" / "model" / "without-a-row"
    rest.mkdir(parents=True)
    half = full.home / "artifacts" / "model" / ".x.tmp-0199"
    half.mkdir()
    for repair in (False, True):
        kinds, report = found(full, repair=repair)
        assert kinds == {(name, False) for name in ("attempts", "jobs", "ledger", "folders")}
        assert report.is_whole
        assert sum(one.is_repaired for one in report.problems) == (5 if repair else 0)
    kinds, _ = found(full)
    assert kinds == {("folders", False)}  # half written, less than a day ago
    assert not rest.exists()
    assert half.exists()
    assert job(full.engine, one.id, owner="anna").state == "lost"
    assert list(attempt_pages(full.engine, ids("anna")["execution"], rows=9)) == []


def test_the_command_says_it_and_exits_with_one_on_damage(full, monkeypatch):
    monkeypatch.setenv("WORKBENCH_HOME", str(full.home))
    call = CliRunner().invoke(main, ["store", "verify", "--json"])
    assert call.exit_code == 0, call.output
    told = json.loads(call.output)
    assert (told["ok"], told["damaged"], told["rests"]) == (True, 0, 2)
    with full.engine.begin() as connection:
        row = {"test_set": "\x1b[2J", "owner": "a", "created_at": "", "metadata": {}}
        connection.execute(insert(schema.test_set_owners), row)
    call = CliRunner().invoke(main, ["store", "verify"])
    assert call.exit_code == 1
    assert "DAMAGED" in call.output
    assert "\x1b" not in call.output
