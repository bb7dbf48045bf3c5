"""Campaigns: several tries of a case, reasons, triage with its log, events, outcomes, tags."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_OLD = (
    "execution, target, case_id, sent, received, decision, scores, success, latency_ms, usd, error"
)


def _texts(*columns: tuple[str, int | None]) -> list[sa.Column[str]]:
    return [
        sa.Column(name, sa.String(length) if length else sa.Text(), nullable=False)
        for name, length in columns
    ]


def _json(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.JSON(), nullable=False)


def upgrade() -> None:
    op.rename_table("attempts", "attempts_0002")
    op.create_table(
        "attempts",
        *_texts(("execution", 64), ("target", 200), ("case_id", 64)),
        sa.Column("trial", sa.Integer(), nullable=False),
        *_texts(("sent", None), ("received", None)),
        _json("replies"),
        *_texts(("decision", 32)),
        _json("scores"),
        _json("reasons"),
        sa.Column("success", sa.Boolean(), nullable=False),
        sa.Column("latency_ms", sa.Float(), nullable=False),
        *_texts(("usd", 40), ("error", None)),
        sa.PrimaryKeyConstraint("execution", "target", "case_id", "trial", name="attempts_0003"),
    )
    new = f"{_OLD}, trial, replies, reasons"
    op.execute(f"INSERT INTO attempts ({new}) SELECT {_OLD}, 0, '[]', '{{}}' FROM attempts_0002")  # noqa: S608
    op.drop_table("attempts_0002")
    for name, kind, old in (
        ("suggested_status", sa.String(32), "confirmed"),
        ("confidence", sa.Float(), "0.5"),
        ("risk", sa.Float(), "0"),
        ("cluster", sa.String(64), ""),
        ("summary", sa.Text(), ""),
        ("owner", sa.String(200), ""),
        ("minutes", sa.Float(), "0"),
    ):
        op.add_column("findings", sa.Column(name, kind, nullable=False, server_default=old))
    op.execute("UPDATE findings SET status = 'needs_review' WHERE status = 'open'")
    op.create_table(
        "triage_log",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        *_texts(("at", 32), ("finding", 64), ("who", 200)),
        _json("changed"),
        *_texts(("note", None)),
        sa.Column("minutes", sa.Float(), nullable=False),
    )
    op.create_index("triage_log_by_finding", "triage_log", ["finding"])
    op.create_table(
        "events",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        *_texts(("at", 32), ("kind", 64), ("subject", 64), ("who", 200)),
        *_texts(("experiment", 200), ("run", 64)),
        _json("details"),
    )
    op.create_index("events_by_kind", "events", ["kind", "at"])
    op.create_index("events_by_subject", "events", ["subject"])
    op.create_table(
        "outcomes",
        *_texts(("execution", 64), ("target", 200), ("plugin", 200), ("strategy", 200)),
        sa.Column("successes", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("execution", "target", "plugin", "strategy"),
    )
    op.create_table(
        "test_set_tags",
        *_texts(("test_set", 64), ("owner", 200), ("tag", 64)),
        sa.PrimaryKeyConstraint("test_set", "owner", "tag"),
    )


def downgrade() -> None:
    for table in ("test_set_tags", "outcomes", "events", "triage_log"):
        op.drop_table(table)
    op.execute("UPDATE findings SET status = 'open' WHERE status = 'needs_review'")
    for name in (
        "minutes",
        "owner",
        "summary",
        "cluster",
        "risk",
        "confidence",
        "suggested_status",
    ):
        op.drop_column("findings", name)
    op.rename_table("attempts", "attempts_later")
    op.create_table(
        "attempts",
        sa.Column("execution", sa.String(64), primary_key=True),
        sa.Column("target", sa.String(200), primary_key=True),
        sa.Column("case_id", sa.String(64), primary_key=True),
        *_texts(("sent", None), ("received", None), ("decision", 32)),
        _json("scores"),
        sa.Column("success", sa.Boolean(), nullable=False),
        sa.Column("latency_ms", sa.Float(), nullable=False),
        *_texts(("usd", 40), ("error", None)),
    )
    op.execute(f"INSERT INTO attempts ({_OLD}) SELECT {_OLD} FROM attempts_later WHERE trial = 0")  # noqa: S608
    op.drop_table("attempts_later")
