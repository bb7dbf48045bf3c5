"""What a store keeps of campaigns: checked alike on every database, and through its migrations."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from finding_fakes import make_finding
from workbench.core.errors import DataError, StoreError
from workbench.store import schema
from workbench.store.campaigns import (
    add_attempts,
    add_outcomes,
    attempt_pages,
    attempted,
    outcomes,
    outcomes_of,
    remove_attempts,
    remove_errors,
    spent,
    unfinished,
)
from workbench.store.database import SCHEMA_VERSION, Store
from workbench.store.events import events
from workbench.store.findings import (
    add_findings,
    count_findings,
    findings,
    resolve_finding,
    triage,
    triage_log,
)
from workbench.store.jobs import Job, add_job, jobs
from workbench.store.records import Attempt, Event, LedgerRow
from workbench.store.test_sets import (
    add_tag,
    add_test_set_owner,
    owned_test_sets,
    owners_of,
    remove_tag,
    remove_test_set_owner,
    tags_of,
)

ODD = "ü 😀 \u202e ' \" % _ \\ \x1b[2J\n"
TARGETS = ("bare", "Bare", "http://127.0.0.1:1/ask", "z" * 200, "ä")
NEW_TABLES = (
    "test_set_tags", "outcomes", "events", "triage_log", "risks", "risk_log", "jobs",
    "leases", "rate_buckets", "service_keys",
)  # fmt: skip
NEW_COLUMNS = (
    "suggested_status", "confidence", "risk", "cluster", "summary", "owner", "minutes",
)  # fmt: skip


def make_attempt(**changes) -> Attempt:
    facts = {
        "execution": "e" * 64, "target": "t", "case_id": "c" * 64, "sent": ODD, "received": ODD,
        "decision": "pass", "scores": {ODD: 0.25}, "success": True, "latency_ms": 1.5,
        "usd": Decimal("0.000000123456"), "reasons": {"j": ODD},
    }  # fmt: skip
    return Attempt(**facts | changes)


def as_attempt(row: dict[str, Any]) -> Attempt:
    """Return the attempt of a row; JSON knows no tuples."""
    values = {name: tuple(one) if isinstance(one, list) else one for name, one in row.items()}
    return Attempt(**values | {"usd": Decimal(row["usd"])})


def check_attempts(store: Store) -> None:
    """Pages give every attempt once, whatever the order of the database's letters."""
    engine = store.engine
    made = [
        make_attempt(target=target, case_id=case, trial=trial, error="no" * (trial == 2))
        for target in TARGETS
        for case in ("a", "A", "b-1", "b_1", "B")
        for trial in range(3)
    ]
    paid = LedgerRow(
        who="w", job="j", experiment="x", phase="execution", resource="t", quantity=75.0,
        unit="call", usd=75 * made[0].usd, price_version="declared", work="execute-1",
    )  # fmt: skip
    store.ledger.add([paid, replace(paid, work="execute-2", usd=Decimal(9))])
    told = Event(kind="target_failed", subject="e" * 64, who=ODD, details={ODD: [1, None, ODD]})
    add_attempts(engine, [*made, make_attempt(execution="f" * 64)], events=[told])
    with pytest.raises(StoreError, match="stored already"):
        add_attempts(engine, [make_attempt(case_id="new"), made[3]], events=[told])
    for rows in (1, 7, 75, 1_000):
        pages = list(attempt_pages(engine, "e" * 64, rows=rows))
        found = [row for page in pages for row in page]
        back = [as_attempt(row) for row in found]
        assert len(back) == 75
        key = attrgetter("target", "case_id", "trial")
        assert sorted(back, key=key) == sorted(made, key=key)
        assert all(len(page) == rows for page in pages[:-1])
        order = [row["target"] for row in found]
        assert [one for at, one in enumerate(order) if order[:at].count(one) == 0] == list(
            dict.fromkeys(order)
        )
    assert spent(engine, "execute-1") == paid.usd
    assert set(unfinished(engine)) == {"e" * 64, "f" * 64}
    assert events(engine) == [told]
    assert ("A", 0) in attempted(engine, "e" * 64, target="Bare")
    assert remove_errors(engine, "e" * 64) == 25
    assert len(attempted(engine, "e" * 64, target="ä")) == 10
    remove_attempts(engine, "e" * 64)
    assert list(attempt_pages(engine, "e" * 64, rows=10)) == []
    assert len(attempted(engine, "f" * 64, target="t")) == 1


def check_findings(store: Store) -> None:
    """Texts come back as they were; ids that are cut short are no patterns."""
    engine = store.engine
    made = [
        replace(make_finding(n, risk=n / 10), sent=ODD, received=ODD, summary=ODD) for n in range(4)
    ]
    assert add_findings(engine, made) == made
    assert add_findings(engine, made) == []
    assert findings(engine) == made[::-1]
    assert resolve_finding(engine, made[2].id[:8]) == made[2].id
    for beginning in ("%", "_", "0000000%"):
        with pytest.raises(DataError, match="no findings"):
            resolve_finding(engine, beginning)
    ids = [one.id for one in made[:2]]
    triage(engine, ids, {"status": "confirmed", "owner": ODD}, who="anna", note=ODD, minutes=1.5)
    triage(engine, ids[:1], {"status": "fixed"}, who="bo", minutes=0.5)
    assert count_findings(engine, "e" * 64) == {"needs_review": 2, "confirmed": 1, "fixed": 1}
    (first,) = findings(engine, ids=ids[:1])
    assert (first.status, first.owner, first.minutes) == ("fixed", ODD, 2.0)
    log = triage_log(engine, ids)
    assert [(row["who"], row["finding"]) for row in log] == [
        ("anna", ids[0]), ("anna", ids[1]), ("bo", ids[0]),
    ]  # fmt: skip
    assert log[2]["changed"] == {"status": ["confirmed", "fixed"]}
    assert log[0]["note"] == ODD


def check_owners_tags_and_outcomes(store: Store) -> None:
    engine, one = store.engine, "a" * 64
    for _ in range(2):  # said before, the first words stand; the transaction after works
        add_test_set_owner(engine, one, owner="anna", metadata={"tests": 3, ODD: ODD})
        add_tag(engine, one, "nightly", owner="anna")
    add_test_set_owner(engine, one, owner="anna", metadata={"tests": 9})
    add_tag(engine, one, "ä" * 64, owner="anna")
    assert [row["metadata"] for row in owned_test_sets(engine, owner="anna")] == [
        {"tests": 3, ODD: ODD}
    ]
    assert tags_of(engine, owner="anna") == {one: sorted(["nightly", "ä" * 64])}
    remove_tag(engine, one, "nightly", owner="anna")
    assert tags_of(engine, owner="anna") == {one: ["ä" * 64]}
    assert remove_test_set_owner(engine, one, owner="anna") == 0
    assert owners_of(engine, one) == []
    assert tags_of(engine, owner="anna") == {}
    names = ("target", "plugin", "strategy", "successes", "attempts")
    for execution, rows in (
        ("e", [("t", "p", "plain", 1, 2), ("u", "p", "plain", 0, 2)]),
        ("f", [("t", "p", "a+b", 5, 5)]),
        ("e", [("t", "p", "plain", 2, 3)]),
    ):
        add_outcomes(engine, execution, [dict(zip(names, row, strict=True)) for row in rows])
    assert outcomes(engine) == {("p", "plain"): (2, 3), ("p", "a+b"): (5, 5)}
    (row,) = outcomes_of(engine, "e")
    assert (row["severity"], row["taxonomy"]) == ("", [])
    told = {"severity": "high", "taxonomy": ["AML.T0054", ODD]}
    add_outcomes(engine, "e", [{**row, **told, "target": target} for target in "ut"])
    assert outcomes_of(engine, "e") == [{**row, **told, "target": target} for target in "tu"]
    assert outcomes_of(engine, "other") == []


def migrate(engine: Engine, version: str, *, down: bool = False) -> None:
    """Bring a database to a version of the schema, up or down."""
    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        (command.downgrade if down else command.upgrade)(config, version)


def add_old_rows(engine: Engine) -> None:
    """Write an attempt and two findings as schema 0002 has them."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO attempts (execution, target, case_id, sent, received, decision,"
                " scores, success, latency_ms, usd, error) VALUES (:e, 't', 'c', 's', 'r', 'pass',"
                " :scores, :yes, 1.5, '0.25', '')"
            ),
            {"e": "e" * 64, "scores": '{"a": 0.5}', "yes": True},
        )
        for number, status in enumerate(["open", "confirmed"]):
            connection.execute(
                text(
                    "INSERT INTO findings (id, execution, test_set, case_id, target, plugin,"
                    " strategy, category, severity, score, suggested_label, status, sent, received)"
                    " VALUES (:id, :e, 't', 'c', 't', 'p', 'plain', 'pii', 'high', 0.5, 'l',"
                    " :status, 's', 'r')"
                ),
                {"id": f"{number}" * 64, "e": "e" * 64, "status": status},
            )


def check_new_rows(engine: Engine) -> None:
    """What :func:`add_old_rows` wrote is there, as the present schema says it."""
    (page,) = attempt_pages(engine, "e" * 64, rows=10)
    (row,) = page
    assert (row["trial"], row["reasons"], row["scores"]) == (0, {}, {"a": 0.5})
    assert (row["success"], row["usd"], row["sent"]) == (True, "0.25", "s")
    found = {one.id[0]: one for one in findings(engine)}
    assert {key: one.status for key, one in found.items()} == {
        "0": "needs_review", "1": "confirmed",
    }  # fmt: skip
    one = found["0"]
    assert (one.suggested_status, one.confidence, one.risk, one.minutes) == (
        "confirmed", 0.5, 0.0, 0.0,
    )  # fmt: skip
    assert (one.cluster, one.summary, one.owner) == ("", "", "")


def check_outcomes_down_and_up(engine: Engine) -> None:
    """What campaigns learned outlives the register: 0003 knows no risks."""
    counted = {"target": "t", "plugin": "p", "strategy": "plain", "successes": 1, "attempts": 2}
    told = {"severity": "high", "taxonomy": ["LLM01:2025"]}
    add_outcomes(engine, "o", [counted | told])
    migrate(engine, "0003", down=True)
    with engine.begin() as connection:
        assert not {"risks", "risk_log"} & set(engine.dialect.get_table_names(connection))
        columns = {one["name"] for one in engine.dialect.get_columns(connection, "outcomes")}
        assert not columns & set(told)
        kept = connection.execute(text("SELECT successes, attempts FROM outcomes")).all()
    assert [tuple(one) for one in kept] == [(1, 2)]
    migrate(engine, SCHEMA_VERSION)
    assert outcomes_of(engine, "o") == [
        {"execution": "o", **counted, "severity": "", "taxonomy": []}
    ]


def add_rows_0004(engine: Engine) -> None:
    """Write two users' experiments and an estimate with its cost as schema 0004 has them."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO experiments (name, file, members, state, owner, started_at,"
                " finished_at) VALUES ('trial', 'f', :members, 'failed', 'anna', '2026-01-01', '')"
            ),
            {"members": '{"train": ["run-1", null]}'},
        )
        connection.execute(
            text(
                "INSERT INTO ledger (at, who, job, experiment, phase, resource, quantity, unit,"
                " usd, price_version, cache_hit, estimated, note, work, details) VALUES"
                " ('2026-01-01', 'anna', 'job-1', 'trial', 'generation', 'm', 1, 'token', '0.25',"
                " 'p', :no, :no, '', 'w', '{}')"
            ),
            {"no": False},
        )
        for job in ("job-1", "job-2"):
            connection.execute(
                text(
                    "INSERT INTO estimates (work, job, experiment, phase, at, figures)"
                    " VALUES ('w', :job, 'trial', 'generation', '2026-01-01', '{}')"
                ),
                {"job": job},
            )


def check_jobs_down_and_up(engine: Engine) -> None:
    """From 0004 up, down and up again: experiments by owner, estimates by who paid, jobs."""
    add_rows_0004(engine)
    migrate(engine, "0005")
    with engine.begin() as connection:
        found = connection.execute(text("SELECT job, who FROM estimates ORDER BY job")).all()
        assert [tuple(one) for one in found] == [("job-1", "anna"), ("job-2", "")]
        connection.execute(
            text(
                "INSERT INTO experiments (name, file, members, state, owner, started_at,"
                " finished_at) VALUES ('trial', 'f', '{}', 'running', 'bo', '2026-02-01', '')"
            )
        )
    asked = Job(kind="run", owner="anna", key="k", request={ODD: [1, None, 0.5]}, note=ODD)
    add_job(engine, asked)
    assert jobs(engine, owner="anna") == [asked]
    migrate(engine, "0004", down=True)
    with engine.begin() as connection:
        assert "jobs" not in engine.dialect.get_table_names(connection)
        kept = connection.execute(text("SELECT name, owner FROM experiments")).all()
        assert [tuple(one) for one in kept] == [("trial", "bo")]  # of one name the newest
        columns = {one["name"] for one in engine.dialect.get_columns(connection, "estimates")}
        assert "who" not in columns
        assert connection.execute(text("SELECT count(*) FROM estimates")).scalar() == 2
    migrate(engine, "0005")
    add_job(engine, asked)
    assert jobs(engine, owner="anna") == [asked]


def check_shared_tables_down_and_up(engine: Engine) -> None:
    """From 0005 up, down and up again: leases, rate limits, keys of which no two are equal."""
    keys = (
        "INSERT INTO service_keys (id, owner, name, digest, created_at, revoked_at)"
        " VALUES (:id, 'anna', 'k', 'same', '', '')"
    )
    for _ in range(2):
        migrate(engine, "0006")
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO leases VALUES ('run:1', 'h', 'p', 1.5)"))
            connection.execute(text("INSERT INTO rate_buckets VALUES ('m', 0.5, 1.5, 0)"))
            connection.execute(text(keys), {"id": "1"})
        with pytest.raises(IntegrityError), engine.begin() as connection:
            connection.execute(text(keys), {"id": "2"})
        migrate(engine, "0005", down=True)
        with engine.begin() as connection:
            left = set(engine.dialect.get_table_names(connection))
        assert not left & {"leases", "rate_buckets", "service_keys"}
    migrate(engine, "0006")


def check_down_and_up(engine: Engine) -> None:
    """Downwards only what the old schema cannot say is lost; upwards it all works again."""
    check_outcomes_down_and_up(engine)
    add_attempts(engine, [make_attempt(case_id="c", trial=1, target="t")])
    migrate(engine, "0002", down=True)
    with engine.begin() as connection:
        names = set(engine.dialect.get_table_names(connection))
        assert not names & set(NEW_TABLES)
        columns = {one["name"] for one in engine.dialect.get_columns(connection, "findings")}
        assert not columns & set(NEW_COLUMNS)
        kept = connection.execute(text("SELECT case_id, usd FROM attempts")).all()
        states = connection.execute(text("SELECT status FROM findings ORDER BY id")).scalars().all()
    assert [tuple(one) for one in kept] == [("c", "0.25")]  # of several tries the first
    assert states == ["open", "confirmed"]
    migrate(engine, SCHEMA_VERSION)
    check_new_rows(engine)
    add_attempts(engine, [make_attempt(case_id="c", trial=1, target="t")])
    add_findings(engine, [make_finding(7)])
