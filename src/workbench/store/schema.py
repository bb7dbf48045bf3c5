"""The tables of the metadata database. Bulk data lives in artifacts, not here."""

from __future__ import annotations

from typing import cast

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.engine.default import DefaultExecutionContext

__all__ = [
    "artifacts",
    "attempts",
    "batches",
    "budget_lock",
    "estimates",
    "events",
    "experiments",
    "findings",
    "flights",
    "jobs",
    "leases",
    "ledger",
    "metadata",
    "outcomes",
    "rate_buckets",
    "responses",
    "risk_log",
    "risks",
    "runs",
    "service_keys",
    "test_set_owners",
    "test_set_tags",
    "triage_log",
]

metadata = MetaData()


def _acting_user(context: DefaultExecutionContext) -> str:
    """Return the user as whom a row is written, see ``store.isolation``."""
    return cast("str", context.execution_options.get("workbench_user", ""))


def _texts(*columns: tuple[str, int | None]) -> list[Column[str]]:
    """Return columns of text: name and most characters, None for any number."""
    return [
        Column(name, String(length) if length else Text(), nullable=False)
        for name, length in columns
    ]


def _floats(*names: str) -> list[Column[float]]:
    return [Column(name, Float, nullable=False) for name in names]


runs = Table(
    "runs",
    metadata,
    Column("id", String(64), primary_key=True),
    *_texts(("experiment", 200), ("step", 200), ("member", None), ("notebook", 200)),
    *_texts(("phase", 32), ("fingerprint", 64)),
    Column("parameters", JSON, nullable=False),
    *_texts(("state", 16), ("owner", 200), ("folder", None)),
    *_texts(("started_at", 32), ("finished_at", 32)),
    *_floats("wall_s", "cpu_s", "peak_rss_mb"),
    Column("kernel_pid", Integer, nullable=False),
    Column("error", Text, nullable=False),
    Column("result", JSON, nullable=False),
    Index("runs_by_experiment", "experiment", "step"),
    Index("runs_by_fingerprint", "fingerprint"),
)

experiments = Table(
    "experiments",
    metadata,
    Column("name", String(200), nullable=False),
    Column("file", Text, nullable=False),
    Column("members", JSON, nullable=False),
    *_texts(("state", 16), ("owner", 200), ("started_at", 32), ("finished_at", 32)),
    PrimaryKeyConstraint("name", "owner"),
)

# What people asked the server for. Equal keys of one owner are one job.
jobs = Table(
    "jobs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("owner", String(200), nullable=False),
    Column("state", String(16), nullable=False),
    Column("request", JSON, nullable=False),
    Column("result", JSON, nullable=False),
    Column("error", Text, nullable=False),
    Column("done", Integer, nullable=False),
    Column("total", Integer, nullable=False),
    Column("note", Text, nullable=False),
    Column("usd", String(40), nullable=False),
    Column("key", String(200), nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("started_at", String(32), nullable=False),
    Column("finished_at", String(32), nullable=False),
    Column("process", String(300), nullable=False),
    Column("cancel", Boolean, nullable=False),
    Index("jobs_by_owner", "owner", "created_at", "id"),
    Index("jobs_by_state", "state"),
    Index(
        "jobs_by_key", "owner", "key", unique=True,
        sqlite_where=text("key <> ''"), postgresql_where=text("key <> ''"),
    ),
)  # fmt: skip

ledger = Table(
    "ledger",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", String(32), nullable=False),
    Column("who", String(200), nullable=False),
    Column("job", String(64), nullable=False),
    Column("experiment", String(200), nullable=False),
    Column("phase", String(32), nullable=False),
    Column("resource", String(200), nullable=False),
    Column("quantity", Float, nullable=False),
    Column("unit", String(32), nullable=False),
    Column("usd", String(40), nullable=False),
    Column("price_version", String(200), nullable=False),
    Column("cache_hit", Boolean, nullable=False),
    Column("estimated", Boolean, nullable=False),
    Column("note", Text, nullable=False),
    Column("work", String(64), nullable=False),
    Column("details", JSON, nullable=False),
    Index("ledger_by_job", "job"),
    Index("ledger_by_experiment", "experiment", "phase"),
    Index("ledger_by_at", "at"),
)

# One row. Who updates it has the only turn until the end of the transaction: on SQLite the first
# write takes the write lock, on PostgreSQL the row's.
budget_lock = Table(
    "budget_lock",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("turn", BigInteger, nullable=False),
)

flights = Table(
    "flights",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("key", String(64), nullable=False),
    Column("work", String(64), nullable=False),
    Column("provider", String(32), nullable=False),
    Column("model", String(200), nullable=False),
    Column("who", String(200), nullable=False),
    Column("job", String(64), nullable=False),
    Column("experiment", String(200), nullable=False),
    Column("phase", String(32), nullable=False),
    Column("worst_usd", String(40), nullable=False),
    Column("owner", String(300), nullable=False),
    Column("at", String(32), nullable=False),
    Column("is_shared", Boolean, nullable=False),
    Index("flights_by_key", "key"),
)

responses = Table(
    "responses",
    metadata,
    Column("key", String(64), nullable=False),
    Column("work", String(64), nullable=False),
    Column("namespace", String(200), nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("expires_at", Float, nullable=True),
    Column("answer", JSON, nullable=False),
    PrimaryKeyConstraint("key", "work"),
)

batches = Table(
    "batches",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("remote_id", String(200), nullable=False),
    Column("work", String(64), nullable=False),
    Column("job", String(64), nullable=False),
    Column("experiment", String(200), nullable=False),
    Column("phase", String(32), nullable=False),
    Column("who", String(200), nullable=False),
    Column("key_hash", String(64), nullable=False),
    Column("owner", String(300), nullable=False),
    Column("state", String(16), nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("requests", JSON, nullable=False),
    Index("batches_by_work", "work"),
)

estimates = Table(
    "estimates",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("work", String(64), nullable=False),
    Column("job", String(64), nullable=False),
    Column("experiment", String(200), nullable=False),
    Column("phase", String(32), nullable=False),
    Column("at", String(32), nullable=False),
    Column("figures", JSON, nullable=False),
    Column("who", String(200), nullable=False, default=_acting_user),
    Index("estimates_by_experiment", "experiment"),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("kind", String(32), nullable=False),
    Column("id", String(64), nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("owner", String(200), nullable=False),
    Column("run", String(64), nullable=False),
    Column("metadata", JSON, nullable=False),
    PrimaryKeyConstraint("kind", "id"),
)

test_set_owners = Table(
    "test_set_owners",
    metadata,
    Column("test_set", String(64), nullable=False),
    Column("owner", String(200), nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("metadata", JSON, nullable=False),
    PrimaryKeyConstraint("test_set", "owner"),
    Index("test_sets_by_owner", "owner", "created_at", "test_set"),
)

test_set_tags = Table(
    "test_set_tags",
    metadata,
    Column("test_set", String(64), nullable=False),
    Column("owner", String(200), nullable=False),
    Column("tag", String(64), nullable=False),
    PrimaryKeyConstraint("test_set", "owner", "tag"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("execution", String(64), nullable=False),
    Column("target", String(200), nullable=False),
    Column("case_id", String(64), nullable=False),
    Column("trial", Integer, nullable=False),
    Column("sent", Text, nullable=False),
    Column("received", Text, nullable=False),
    Column("replies", JSON, nullable=False),
    Column("decision", String(32), nullable=False),
    Column("scores", JSON, nullable=False),
    Column("reasons", JSON, nullable=False),
    Column("success", Boolean, nullable=False),
    Column("latency_ms", Float, nullable=False),
    Column("usd", String(40), nullable=False),
    Column("error", Text, nullable=False),
    PrimaryKeyConstraint("execution", "target", "case_id", "trial"),
    Index(
        "attempts_through", "execution", "target",
        sqlite_where=text("success = 1"), postgresql_where=text("success"),
    ),
    Index(
        "attempts_in_error", "execution", "target",
        sqlite_where=text("error != ''"), postgresql_where=text("error != ''"),
    ),
)  # fmt: skip

# What a finished execution says of each attack, for the choice of the next ones.
outcomes = Table(
    "outcomes",
    metadata,
    Column("execution", String(64), nullable=False),
    Column("target", String(200), nullable=False),
    Column("plugin", String(200), nullable=False),
    Column("strategy", String(200), nullable=False),
    Column("successes", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("severity", String(16), nullable=False),
    Column("taxonomy", JSON, nullable=False),
    PrimaryKeyConstraint("execution", "target", "plugin", "strategy"),
)

findings = Table(
    "findings",
    metadata,
    Column("id", String(64), primary_key=True),
    *_texts(("execution", 64), ("test_set", 64), ("case_id", 64), ("target", 200)),
    *_texts(("plugin", 200), ("strategy", None), ("category", 64), ("severity", 16)),
    *_floats("score"),
    *_texts(("suggested_label", 64), ("suggested_status", 32)),
    *_floats("confidence", "risk"),
    *_texts(("cluster", 64), ("summary", None), ("status", 32), ("owner", 200)),
    *_floats("minutes"),
    *_texts(("sent", None), ("received", None)),
    Index("findings_by_execution", "execution"),
)

# Rows are added, never changed: who said what of a finding, and when.
triage_log = Table(
    "triage_log",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", String(32), nullable=False),
    Column("finding", String(64), nullable=False),
    Column("who", String(200), nullable=False),
    Column("changed", JSON, nullable=False),
    Column("note", Text, nullable=False),
    Column("minutes", Float, nullable=False),
    Index("triage_log_by_finding", "finding"),
)

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", String(32), nullable=False),
    Column("kind", String(64), nullable=False),
    Column("subject", String(64), nullable=False),
    Column("who", String(200), nullable=False),
    Column("experiment", String(200), nullable=False),
    Column("run", String(64), nullable=False),
    Column("details", JSON, nullable=False),
    Index("events_by_kind", "kind", "at"),
    Index("events_by_subject", "subject"),
)

# The register: what was last said of each risk. How it came to that is in the log.
risks = Table(
    "risks",
    metadata,
    Column("id", String(64), primary_key=True),
    *_texts(("kind", 16), ("subject", 64), ("title", None), ("asset", 200), ("component", None)),
    *_texts(("level", 16)),
    *(Column(name, Integer, nullable=False) for name in ("score", "likelihood", "impact")),
    *_floats("p_exploit", "annual_loss_usd"),
    *_texts(("decision", 64), ("due", 10), ("owner", 200), ("state", 32), ("reason", None)),
    *_texts(("told_by", 16), ("status", 16), ("first_seen", 10), ("last_seen", 10)),
    *_texts(("assessment", 64), ("updated_at", 32)),
    Index("risks_by_score", "status", "score"),
    Index("risks_by_subject", "subject"),
)

# Rows are added, never changed.
risk_log = Table(
    "risk_log",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", String(32), nullable=False),
    Column("risk", String(64), nullable=False),
    Column("who", String(200), nullable=False),
    Column("assessment", String(64), nullable=False),
    Column("changed", JSON, nullable=False),
    Column("note", Text, nullable=False),
    Index("risk_log_by_risk", "risk"),
    Index("risk_log_by_assessment", "assessment"),
)

# Who alone may do something at present, by the clock of the database; see ``store.leases``.
leases = Table(
    "leases",
    metadata,
    Column("name", String(200), primary_key=True),
    *_texts(("holder", 200), ("process", 300)),
    *_floats("until"),
)

# Rate limits that all processes on a store share; times are seconds by the clock of the database.
rate_buckets = Table(
    "rate_buckets",
    metadata,
    Column("name", String(200), primary_key=True),
    *_floats("level", "at", "rests_until"),
)

# Keys of the sanitizer service; of a key itself only the digest is kept.
service_keys = Table(
    "service_keys",
    metadata,
    Column("id", String(64), primary_key=True),
    *_texts(("owner", 200), ("name", 200), ("digest", 64), ("created_at", 32), ("revoked_at", 32)),
    Column("quota_credits_per_day", Float, nullable=True),
    Column("requests_per_minute", Integer, nullable=True),
    Index("service_keys_by_digest", "digest", unique=True),
)
