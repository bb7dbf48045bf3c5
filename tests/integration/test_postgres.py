"""The store on a real PostgreSQL: same schema, same promises, an experiment through and through."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from campaign_rows import (
    add_old_rows,
    check_attempts,
    check_down_and_up,
    check_findings,
    check_jobs_down_and_up,
    check_new_rows,
    check_owners_tags_and_outcomes,
    check_shared_tables_down_and_up,
    migrate,
)
from lease_checks import check_one_holder_at_a_time
from ledger_rows import hit_row, model_row
from model_calls import (
    OWNER,
    answer,
    bill,
    check_a_killed_process_is_charged_once,
    check_two_processes_share_a_budget,
    flight,
    settlement,
)
from notebook_projects import make_project
from risk_fakes import make_risk, make_risks
from workbench.campaign.executions import load_execution
from workbench.campaign.rehearsal import Rehearsal
from workbench.core.errors import StoreError
from workbench.core.settings import Settings
from workbench.risk.register import recorded
from workbench.store import schema
from workbench.store.budgets import Budgets
from workbench.store.calls import Calls, Settlement
from workbench.store.campaigns import attempt_pages
from workbench.store.database import Store, open_store
from workbench.store.events import events
from workbench.store.findings import findings
from workbench.store.journal import Journal
from workbench.store.ledger import insert_rows, take_turn
from workbench.store.records import LedgerRow, Run, now
from workbench.store.risks import RecordCounts, counts, decide, record, risk_log, risks

pytestmark = pytest.mark.slow
pytest_plugins = ["postgres_server"]

WORKBENCH = str(Path(sys.executable).parent / "workbench")


@pytest.fixture
def pg_store(postgres: Settings) -> Iterator[Store]:
    opened = open_store(postgres)
    yield opened
    opened.engine.dispose()


def run_of(run_id: str, **fields: object) -> Run:
    facts = {
        "experiment": "trial",
        "step": "train",
        "notebook": "n",
        "phase": "training",
        "fingerprint": "f",
        "parameters": {"seed": 0},
        "state": "running",
        "owner": "t",
        "folder": "x",
        "started_at": now(),
    }
    return Run(id=run_id, **{**facts, **fields})


def cost(job: str, usd: str = "0.123456789012") -> LedgerRow:
    return LedgerRow(
        who="t", job=job, experiment="trial", phase="training", resource="cpu",
        quantity=1.5, unit="core_s", usd=Decimal(usd), price_version="p", estimated=True,
    )  # fmt: skip


def test_migrations_give_exactly_the_declared_schema(pg_store):
    with pg_store.engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, schema.metadata) == []
    assert pg_store.engine.dialect.name == "postgresql"
    assert not (pg_store.home / "workbench.db").exists()


def test_run_table_ledger_and_artifacts_work(pg_store):
    one = run_of("run-1", result={"kind": "training", "deep": [{"ä": 1.5}]})
    pg_store.runs.add(one)
    assert pg_store.runs.get("run-1") == one
    pg_store.runs.settle("run-1", [cost("run-1")], state="succeeded")
    pg_store.runs.settle("run-1", [cost("run-1")], state="lost")
    assert pg_store.runs.get("run-1").state == "succeeded"
    assert [row.usd for row in pg_store.ledger.rows(jobs=["run-1"])] == [Decimal("0.123456789012")]

    pg_store.runs.set_experiment(
        "trial", file="f", members={"train": ["run-1", None]}, state="running", owner="t"
    )
    assert [run.id for run in pg_store.runs.current("trial", kind="training")] == ["run-1"]
    assert list(pg_store.runs.frame("trial")["id"]) == ["run-1"]

    for text_of in ("first", "second"):
        with pg_store.artifacts.create("model", "m" * 64, {"text": text_of}) as folder:
            (folder / "file").write_text(text_of)
    assert (pg_store.artifacts.path("model", "m" * 64) / "file").read_text() == "first"
    assert pg_store.artifacts.metadata("model", "m" * 64) == {"text": "first"}
    assert pg_store.artifacts.newest("model") == "m" * 64


def test_costs_that_cannot_be_booked_leave_the_run_running(pg_store):
    pg_store.runs.add(run_of("run-1"))

    def broken():
        yield cost("run-1")
        raise RuntimeError("no prices")

    with pytest.raises(RuntimeError):
        pg_store.runs.settle("run-1", broken(), state="succeeded")
    assert pg_store.runs.get("run-1").state == "running"
    assert pg_store.ledger.rows() == []


def test_of_settlers_at_once_one_wins_and_books(pg_store, postgres):
    pg_store.runs.add(run_of("run-1"))
    barrier = threading.Barrier(4)

    def settle(state: str) -> None:
        own = open_store(postgres)
        barrier.wait(30)
        own.runs.settle("run-1", [cost("run-1")], state=state)
        own.engine.dispose()

    threads = [threading.Thread(target=settle, args=(f"s{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert pg_store.runs.get("run-1").state != "running"
    assert len(pg_store.ledger.rows(jobs=["run-1"])) == 1


def test_model_calls_are_claimed_settled_and_read(pg_store):
    budgets = Budgets(run=Decimal(2))
    one, equal, more = flight(), flight(key="k"), flight(key="k")
    verdicts = pg_store.calls.commit(budgets=budgets, claims=[one, equal, more, flight()])
    assert [verdict.state for verdict in verdicts] == ["granted", "granted", "taken", "waiting"]
    pg_store.calls.commit(budgets=budgets, settlements=[settlement(one, text="ä \x00 \ud800")])
    pg_store.calls.commit(budgets=budgets, settlements=[settlement(one, "0.5", text="2")])
    assert pg_store.calls.read(one.key) == answer(one.key, "2")
    assert [row.details for row in pg_store.ledger.rows()] == [{"calls": 1, "outcome": "sent"}] * 2
    (verdict,) = pg_store.calls.commit(budgets=budgets, claims=[flight()])
    assert verdict.state == "denied"


def test_answers_per_work_and_charges_taken_back(pg_store):
    lost = flight("2", owner=OWNER.rsplit(":", 1)[0] + ":1.00")
    ends = [settlement(lost, "0.5"), Settlement(flight="none", rows=(), answer=None)]
    pg_store.calls.commit(budgets=Budgets(), claims=[lost])
    assert pg_store.calls.recover() == [lost]
    for _ in range(2):
        once = [replace(end, is_once=True) for end in ends]
        pg_store.calls.commit(budgets=Budgets(), settlements=once)
    assert [row.usd for row in pg_store.ledger.rows()] == [2, -2, Decimal("0.5")]
    for work, expires_at in (("a", 5.0), ("", None), ("b", 9.0)):
        kept = answer("k", work, work=work, expires_at=expires_at)
        end = Settlement(flight="", rows=(), answer=kept)
        pg_store.calls.commit(budgets=Budgets(), settlements=[end])
    found = [pg_store.calls.read("k", work=work).work for work in ("a", "b", "c", "")]
    assert found == ["a", "b", "", ""]
    pg_store.calls.touch(OWNER)


def test_a_value_that_does_not_fit_loses_no_other_answer(pg_store):
    async def settle_all():
        ends = [settlement(flight()) for _ in range(9)]
        ends[4] = replace(ends[4], answer=replace(ends[4].answer, namespace="n" * 300))
        return await asyncio.gather(*map(journal.settle, ends), return_exceptions=True)

    journal = Journal(pg_store.calls, Budgets())
    outcomes = asyncio.run(settle_all())
    journal.close()
    assert [position for position, one in enumerate(outcomes) if one] == [4]
    assert "do not fit" in str(outcomes[4]) or "too long" in str(outcomes[4])
    assert len(pg_store.ledger.rows()) == 8


def test_the_database_adds_up_model_calls(pg_store):
    pg_store.ledger.add([model_row(usd="0.25"), model_row(usd="0.5"), hit_row(calls=3)])
    sent, hits = sorted(
        pg_store.ledger.totals(since="2026"), key=lambda row: row["outcome"], reverse=True
    )
    assert (sent["outcome"], sent["calls"], sent["usd"], sent["bytes_sent"]) == (
        "sent", 2, 0.75, 10_000
    )  # fmt: skip
    assert (hits["outcome"], hits["calls"], hits["bytes_sent"]) == ("hit", 3, 0)
    assert len(pg_store.ledger.rows(newest_calls=2)) == 2


def test_a_row_that_is_committed_late_is_not_missed(pg_store, postgres):
    """Ids are given before rows become visible: without turns a reader would skip the late one."""
    budgets = Budgets(run=Decimal(3))
    calls = Calls(pg_store.engine)
    late = threading.Event()

    def slow() -> None:
        with pg_store.engine.begin() as connection:
            take_turn(connection)
            insert_rows(connection, [bill("1")])
            late.set()
            connection.execute(text("SELECT pg_sleep(0.2)"))

    thread = threading.Thread(target=slow)
    thread.start()
    assert late.wait(10)
    pg_store.ledger.add([bill("1")])
    seen = calls.commit(budgets=budgets, claims=[flight("1.5")])
    thread.join(30)
    assert [verdict.state for verdict in seen] == ["denied"]
    assert [verdict.state for verdict in calls.commit(budgets=budgets, claims=[flight()])] == [
        "granted"
    ]


def test_two_processes_never_exceed_one_budget(pg_store, postgres):
    check_two_processes_share_a_budget(postgres.to_environment(), pg_store)


def test_the_flights_of_a_killed_process_are_charged_once(pg_store, postgres):
    check_a_killed_process_is_charged_once(postgres.to_environment(), pg_store)


@pytest.mark.parametrize("check", [check_attempts, check_findings, check_owners_tags_and_outcomes])
def test_campaigns_are_written_and_read(pg_store, check):
    check(pg_store)


def test_the_register_is_written_decided_and_read(pg_store, postgres):
    """While an assessment is recorded a decision waits; both are kept, as on SQLite."""
    day, engine = date(2026, 1, 1), pg_store.engine
    rows = recorded(make_risks(*(make_risk(n, title="ä \x00") for n in range(1_200))))
    first = record(engine, rows, assessment="a", today=day, who="t")
    assert first == RecordCounts(new=1_200)
    assert record(engine, rows, assessment="a", today=day, who="t").unchanged == 1_200
    ids = [row["id"] for row in rows]
    other = open_store(postgres)
    said = {"status": "accepted", "due": "2026-03-01"}
    thread = threading.Thread(
        target=decide, args=(other.engine, ids[:600], said), kwargs={"who": "anna", "note": "ok"}
    )
    thread.start()
    record(engine, rows[:1_000], assessment="b", today=day, who="t")
    thread.join(60)
    other.engine.dispose()
    assert counts(engine, date(2026, 1, 16)) == {
        "risks": 1_200, "open": 400, "accepted": 600, "closed": 200, "cves": 400, "model_risks": 0,
        "assets": 1, "overdue": 400, "due_7_days": 0,
        "by_level": {"low": 0, "medium": 0, "high": 400, "critical": 0},
    }  # fmt: skip
    (found,) = risks(engine, sort="due", descending=False, limit=1)
    assert (found["title"], found["due"]) == ("ä \ufffd", "2026-01-15")
    assert len(risk_log(engine, ids)) == 1_200 + 600 + 200
    assert risks(engine, sort="level", overdue_on=date(2026, 1, 16), limit=9)[0]["level"] == "high"
    ended = record(engine, rows, assessment="c", today=date(2026, 3, 2), who="t")
    assert ended.reopened == 800


def test_campaigns_of_an_old_store_are_kept_up_and_down(postgres):
    engine = create_engine(postgres.database_url)
    migrate(engine, "0002")
    add_old_rows(engine)
    store = open_store(postgres)
    check_new_rows(store.engine)
    check_down_and_up(store.engine)
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, schema.metadata) == []
    store.engine.dispose()
    engine.dispose()


def test_a_lease_has_one_holder_at_a_time(pg_store):
    check_one_holder_at_a_time(pg_store.engine)


def test_jobs_and_leases_come_to_a_store_of_the_version_before_and_go(postgres):
    engine = create_engine(postgres.database_url)
    migrate(engine, "0004")
    check_jobs_down_and_up(engine)
    check_shared_tables_down_and_up(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
    engine.dispose()


def test_a_campaign_is_executed_on_it_by_two_processes_once(pg_store, postgres, tmp_path):
    """From the command line, with a bad target beside the good one; rows end in the artifact."""
    with Rehearsal(latency_s=0.01).serve_in_thread() as shop:
        (tmp_path / "shop.md").write_text(shop.shop.profile().text + "\n")
        (tmp_path / "long.yaml").write_text(f"url: {shop.base_url}/{'nowhere' * 40}\n")
        environment = {**os.environ, **postgres.to_environment()}

        def start(*arguments: str) -> subprocess.Popen[str]:
            return subprocess.Popen(
                [WORKBENCH, "campaign", *arguments], cwd=tmp_path, env=environment, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip

        wanted = ("--for", "model", "--profile", "shop.md", "--max-tests", "60", "--plugin")
        made = start("generate", *wanted, "system-prompt-leak", "--tag", "nightly")
        assert made.wait(120) == 0, made.communicate()
        made.communicate()
        execute = ("execute", "nightly", "--judges", "rules", "--target", f"{shop.base_url}/ask",
                   "--target", "long.yaml")  # fmt: skip
        pair = [start(*execute) for _ in range(2)]
        told = [one.communicate(timeout=120) for one in pair]
    assert [one.returncode for one in pair] == [0, 0], told
    done = load_execution(pg_store)
    attempts = list(done.attempts())
    assert len({(one.target, one.case_id) for one in attempts}) == done.count == len(attempts)
    assert done.errors == done.count / 2
    assert 0 < len(findings(pg_store.engine, done.id)) < done.count / 2
    kinds = [one.kind for one in events(pg_store.engine)]
    assert kinds.count("attack_run_finished") == 1
    assert list(attempt_pages(pg_store.engine, done.id, rows=10)) == []


def test_stores_opened_at_once_migrate_once(postgres):
    barrier, versions = threading.Barrier(4), []

    def start() -> None:
        barrier.wait(30)
        opened = open_store(postgres)
        with opened.engine.connect() as connection:
            versions.append(
                connection.execute(text("SELECT version_num FROM alembic_version")).all()
            )
        opened.engine.dispose()

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [len(found) for found in versions] == [1] * 4


def test_an_experiment_runs_on_it_and_skips(pg_store, postgres, tmp_path):
    make_project(tmp_path)
    environment = {**os.environ, **postgres.to_environment()}

    def call() -> str:
        done = subprocess.run(
            [WORKBENCH, "run", "experiments/trial.yaml", "--no-report"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert call().count("succeeded") == 6
    assert call().count("skipped") == 6
    (total,) = pg_store.runs.current("trial", kind="total")
    assert total.result["total"] == 5 * (1 + 4 + 9 + 16)
    booked = {row.job for row in pg_store.ledger.rows(experiment="trial") if row.unit == "core_s"}
    assert {run.id for run in pg_store.runs.find(experiment="trial")} <= booked
    assert not (postgres.home / "workbench.db").exists()


def test_a_server_that_is_gone_is_one_clear_line_without_the_password(server, tmp_path):
    url = f"postgresql+psycopg://tester:hunter2secret@/none?host={server.folder}/nowhere"
    done = subprocess.run(
        [WORKBENCH, "status"],
        cwd=tmp_path,
        env={**os.environ, "WORKBENCH_HOME": str(tmp_path), "WORKBENCH_DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == StoreError.exit_code
    assert done.stderr.count("\n") == 1, done.stderr
    assert "hunter2secret" not in done.stderr
    assert "start the server" in done.stderr


def test_a_server_that_dies_and_comes_back_is_reached_again(server, pg_store):
    pg_store.runs.add(run_of("run-1"))
    server.stop()
    try:
        with pytest.raises(StoreError, match="run again"):
            pg_store.runs.get("run-1")
    finally:
        server.start()
    assert pg_store.runs.get("run-1").state == "running"
