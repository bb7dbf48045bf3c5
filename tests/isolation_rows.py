"""The same rows in every table for each of two users, and every function that reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

from sqlalchemy import insert

from finding_fakes import make_finding
from ledger_rows import model_row
from workbench.store import schema
from workbench.store.budgets import Budgets
from workbench.store.calls import Batch, Flight
from workbench.store.campaigns import (
    add_attempts,
    add_outcomes,
    attempt_pages,
    attempted,
    outcomes,
    outcomes_of,
    spent,
    unfinished,
)
from workbench.store.database import Store, as_user
from workbench.store.events import events, tell
from workbench.store.findings import (
    add_findings,
    count_findings,
    findings,
    triage,
    triage_log,
)
from workbench.store.jobs import Job, add_job, jobs
from workbench.store.live import newest_events, watched_execution
from workbench.store.owners import this_process
from workbench.store.records import Attempt, LedgerRow, Run, now
from workbench.store.spending import billed_by, ledger_names, spending
from workbench.store.test_sets import (
    add_tag,
    add_test_set_owner,
    owned_test_sets,
    parts_of,
    tags_of,
)
from workbench.store.transaction import transaction
from workbench.store.usage import usage

USERS = ("anna", "berta")


def ids(user: str) -> dict[str, str]:
    """Return the ids of a user's rows: every one holds the user's name."""
    return {
        name: f"{name}-{user}".ljust(64, "-")
        if name in {"test_set", "execution"}
        else f"{name}-{user}"
        for name in ("run", "test_set", "execution", "finding", "work", "model", "flight", "batch")
    }


def fill(store: Store, user: str) -> None:
    """Write a row of a user to every table that belongs to somebody."""
    own, mine = as_user(store, user), ids(user)
    engine = own.engine
    run = Run(
        id=mine["run"], experiment="trial", step="train", notebook="n", phase="training",
        fingerprint="same", parameters={"who": user}, state="succeeded", owner=user, folder="x",
        started_at=now(), result={"kind": "training", "who": user},
    )  # fmt: skip
    own.runs.add(run)
    own.runs.set_experiment(
        "trial", file=user, members={"train": [run.id]}, state="succeeded", owner=user
    )
    add_job(engine, Job(kind="run", owner=user, request={"who": user}))
    own.ledger.add([replace(model_row(usd="0.5"), who=user, job=run.id, work=mine["work"])])
    own.ledger.add([replace(model_row(usd="2"), who=f"rehearsal:{user}", job=run.id)])
    whose = {"work": mine["work"], "job": run.id, "experiment": "trial", "phase": "generation"}
    own.calls.add_estimate({"who": user}, **whose)
    flight = Flight(
        id=mine["flight"], key=mine["flight"], provider="p", model="m", who=user,
        worst_usd=Decimal(1), owner=this_process(), at=now(), **whose,
    )  # fmt: skip
    own.calls.commit(budgets=Budgets(), claims=[flight])
    own.calls.add_batch(
        Batch(id=mine["batch"], who=user, key_hash="k", requests={user: 1}, remote_id=user, **whose)
    )
    with own.artifacts.create("test_set", mine["test_set"], {"who": user}) as folder:
        (folder / "cases").write_text(user)
    add_test_set_owner(engine, mine["test_set"], owner=user, metadata={"tests": 1, "parent": user})
    add_tag(engine, mine["test_set"], "nightly", owner=user)
    tell(own, "attack_run_started", mine["execution"], {"test_set": mine["test_set"]})
    add_attempts(engine, [_attempt(mine["execution"], user)])
    add_outcomes(
        engine, mine["execution"],
        [{"target": user, "plugin": f"p-{user}", "strategy": "s", "successes": 1, "attempts": 2}],
    )  # fmt: skip
    finding = replace(
        make_finding(1), id=mine["finding"], execution=mine["execution"],
        test_set=mine["test_set"], summary=user,
    )  # fmt: skip
    add_findings(engine, [finding])
    triage(engine, [mine["finding"]], {"status": "confirmed"}, who=user)
    metadata = {"test_set": mine["test_set"]}
    with own.artifacts.create("execution", mine["execution"], metadata) as folder:
        (folder / "attempts").write_text(user)
    with transaction(engine) as connection:
        key = {"id": user, "owner": user, "name": "k", "digest": user}
        key |= {"created_at": now(), "revoked_at": ""}
        connection.execute(insert(schema.service_keys), key)


def _attempt(execution: str, user: str) -> Attempt:
    return Attempt(
        execution=execution, target=user, case_id="c", sent=user, received=user, decision="pass",
        scores={}, success=True, latency_ms=1.0,
    )  # fmt: skip


def reads(store: Store, other: dict[str, str]) -> dict[str, Callable[[], Any]]:
    """Return every reading function of the store, asked for all, and for another's rows by id."""
    engine, run, execution = store.engine, other["run"], other["execution"]
    them = other["run"].removeprefix("run-")
    return {
        "runs.get": lambda: store.runs.get(run),
        "runs.find": store.runs.find,
        "runs.find of": lambda: store.runs.find(fingerprint="same", experiment="trial"),
        "runs.by_ids": lambda: store.runs.by_ids([run]),
        "runs.experiment": lambda: store.runs.experiment("trial"),
        "runs.experiments": store.runs.experiments,
        "runs.current": lambda: store.runs.current("trial"),
        "runs.frame": lambda: store.runs.frame().to_dict(),
        "ledger.rows": store.ledger.rows,
        "ledger.rows of": lambda: store.ledger.rows(jobs=[run], newest_calls=9),
        "ledger.totals": lambda: store.ledger.totals(since=""),
        "ledger_names": lambda: ledger_names(engine, "who"),
        "ledger_names of experiments": lambda: ledger_names(engine, "experiment"),
        "spending": lambda: spending(engine),
        "billed_by": lambda: billed_by(engine, who=them, by="who"),
        "billed_by step": lambda: billed_by(engine, who=them, by="step"),
        "usage": lambda: usage(engine, them, since=""),
        "calls.estimates": lambda: store.calls.estimates("trial"),
        "calls.open_batches": lambda: store.calls.open_batches(other["work"]),
        "artifacts.exists": lambda: store.artifacts.exists("test_set", other["test_set"]),
        "artifacts.path": lambda: store.artifacts.path("execution", execution),
        "artifacts.metadata": lambda: store.artifacts.metadata("execution", execution),
        "artifacts.newest": lambda: store.artifacts.newest("execution"),
        "artifacts.resolve": lambda: store.artifacts.resolve("test_set", other["test_set"][:12]),
        "artifacts.rows": lambda: store.artifacts.rows("test_set"),
        "artifacts.rows of executions": lambda: store.artifacts.rows("execution"),
        "artifacts.referring": lambda: store.artifacts.referring(
            "execution", "test_set", other["test_set"]
        ),
        "attempted": lambda: attempted(engine, execution, target=them),
        "attempt_pages": lambda: list(attempt_pages(engine, execution, rows=9)),
        "parts_of": lambda: parts_of(engine, them, owner=them),
        "unfinished": lambda: unfinished(engine),
        "outcomes": lambda: outcomes(engine),
        "outcomes_of": lambda: outcomes_of(engine, execution),
        "spent": lambda: spent(engine, other["work"]),
        "events": lambda: events(engine),
        "events of": lambda: events(engine, subject=execution),
        "newest_events": lambda: newest_events(engine, owner=them),
        "watched_execution": lambda: watched_execution(
            engine, execution, owner=them
        ),
        "findings": lambda: findings(engine),
        "findings of": lambda: findings(engine, execution, ids=[other["finding"]]),
        "count_findings": lambda: count_findings(engine, execution),
        "triage_log": lambda: triage_log(engine),
        "triage_log of": lambda: triage_log(engine, [other["finding"]]),
        "jobs": lambda: jobs(engine, owner=them),
        "owned_test_sets": lambda: owned_test_sets(engine, owner=them),
        "tags_of": lambda: tags_of(engine, owner=them),
    }  # fmt: skip


def ledger_row(user: str, usd: str = "1") -> LedgerRow:
    """Return a row of a user's model calls."""
    return replace(model_row(usd=usd), who=user)
