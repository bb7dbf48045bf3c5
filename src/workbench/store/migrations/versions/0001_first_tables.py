"""First tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def _text(name: str, length: int | None = None) -> sa.Column[str]:
    return sa.Column(name, sa.String(length) if length else sa.Text(), nullable=False)


def _number(name: str) -> sa.Column[float]:
    return sa.Column(name, sa.Float(), nullable=False)


def _json(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.JSON(), nullable=False)


def upgrade() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.String(64), primary_key=True),
        _text("experiment", 200),
        _text("step", 200),
        _text("member"),
        _text("notebook", 200),
        _text("phase", 32),
        _text("fingerprint", 64),
        _json("parameters"),
        _text("state", 16),
        _text("owner", 200),
        _text("folder"),
        _text("started_at", 32),
        _text("finished_at", 32),
        _number("wall_s"),
        _number("cpu_s"),
        _number("peak_rss_mb"),
        sa.Column("kernel_pid", sa.Integer(), nullable=False),
        _text("error"),
        _json("result"),
    )
    op.create_index("runs_by_experiment", "runs", ["experiment", "step"])
    op.create_index("runs_by_fingerprint", "runs", ["fingerprint"])
    op.create_table(
        "experiments",
        sa.Column("name", sa.String(200), primary_key=True),
        _text("file"),
        _json("members"),
        _text("state", 16),
        _text("owner", 200),
        _text("started_at", 32),
        _text("finished_at", 32),
    )
    op.create_table(
        "ledger",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        _text("at", 32),
        _text("who", 200),
        _text("job", 64),
        _text("experiment", 200),
        _text("phase", 32),
        _text("resource", 200),
        _number("quantity"),
        _text("unit", 32),
        _text("usd", 40),
        _text("price_version", 200),
        sa.Column("cache_hit", sa.Boolean(), nullable=False),
        sa.Column("estimated", sa.Boolean(), nullable=False),
        _text("note"),
    )
    op.create_index("ledger_by_job", "ledger", ["job"])
    op.create_index("ledger_by_experiment", "ledger", ["experiment", "phase"])
    op.create_table(
        "artifacts",
        sa.Column("kind", sa.String(32), primary_key=True),
        sa.Column("id", sa.String(64), primary_key=True),
        _text("created_at", 32),
        _text("owner", 200),
        _text("run", 64),
        _json("metadata"),
    )
    op.create_table(
        "test_set_owners",
        sa.Column("test_set", sa.String(64), primary_key=True),
        sa.Column("owner", sa.String(200), primary_key=True),
        _text("created_at", 32),
        _json("metadata"),
    )
    op.create_table(
        "attempts",
        sa.Column("execution", sa.String(64), primary_key=True),
        sa.Column("target", sa.String(200), primary_key=True),
        sa.Column("case_id", sa.String(64), primary_key=True),
        _text("sent"),
        _text("received"),
        _text("decision", 32),
        _json("scores"),
        sa.Column("success", sa.Boolean(), nullable=False),
        _number("latency_ms"),
        _text("usd", 40),
        _text("error"),
    )
    op.create_table(
        "findings",
        sa.Column("id", sa.String(64), primary_key=True),
        _text("execution", 64),
        _text("test_set", 64),
        _text("case_id", 64),
        _text("target", 200),
        _text("plugin", 200),
        _text("strategy"),
        _text("category", 64),
        _text("severity", 16),
        _number("score"),
        _text("suggested_label", 64),
        _text("status", 32),
        _text("sent"),
        _text("received"),
    )
    op.create_index("findings_by_execution", "findings", ["execution"])


def downgrade() -> None:
    for table in (
        "findings", "attempts", "test_set_owners", "artifacts", "ledger", "experiments", "runs"
    ):  # fmt: skip
        op.drop_table(table)
