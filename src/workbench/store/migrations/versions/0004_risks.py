"""Risks: the register with its log; what campaigns' outcomes are called in public taxonomies."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def _texts(*columns: tuple[str, int | None]) -> list[sa.Column[str]]:
    return [
        sa.Column(name, sa.String(length) if length else sa.Text(), nullable=False)
        for name, length in columns
    ]


def _numbers(*names: str) -> list[sa.Column[float]]:
    return [sa.Column(name, sa.Float(), nullable=False) for name in names]


def _whole(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.Integer(), nullable=False) for name in names]


def upgrade() -> None:
    op.add_column(
        "outcomes", sa.Column("severity", sa.String(16), nullable=False, server_default="")
    )
    op.add_column("outcomes", sa.Column("taxonomy", sa.JSON(), nullable=False, server_default="[]"))
    op.create_table(
        "risks",
        sa.Column("id", sa.String(64), primary_key=True),
        *_texts(("kind", 16), ("subject", 64), ("title", None), ("asset", 200)),
        *_texts(("component", None), ("level", 16)),
        *_whole("score", "likelihood", "impact"),
        *_numbers("p_exploit", "annual_loss_usd"),
        *_texts(("decision", 64), ("due", 10), ("owner", 200), ("state", 32), ("reason", None)),
        *_texts(
            ("told_by", 16),
            ("status", 16),
            ("first_seen", 10),
            ("last_seen", 10),
            ("assessment", 64),
        ),
        *_texts(("updated_at", 32)),
    )
    op.create_index("risks_by_score", "risks", ["status", "score"])
    op.create_index("risks_by_subject", "risks", ["subject"])
    op.create_table(
        "risk_log",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        *_texts(("at", 32), ("risk", 64), ("who", 200), ("assessment", 64)),
        sa.Column("changed", sa.JSON(), nullable=False),
        *_texts(("note", None)),
    )
    op.create_index("risk_log_by_risk", "risk_log", ["risk"])
    op.create_index("risk_log_by_assessment", "risk_log", ["assessment"])


def downgrade() -> None:
    for table in ("risk_log", "risks"):
        op.drop_table(table)
    for name in ("taxonomy", "severity"):
        op.drop_column("outcomes", name)
