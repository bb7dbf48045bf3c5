"""Leases, shared rate limits, and keys of the sanitizer service."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_ADMIN = "(SELECT workbench_admin())"
_MINE = "owner = (SELECT workbench_user())"


def _texts(*columns: tuple[str, int]) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.String(length), nullable=False) for name, length in columns]


def _floats(*names: str) -> list[sa.Column[float]]:
    return [sa.Column(name, sa.Float(), nullable=False) for name in names]


def upgrade() -> None:
    op.create_table(
        "leases",
        sa.Column("name", sa.String(200), primary_key=True),
        *_texts(("holder", 200), ("process", 300)),
        *_floats("until"),
    )
    op.create_table(
        "rate_buckets",
        sa.Column("name", sa.String(200), primary_key=True),
        *_floats("level", "at", "rests_until"),
    )
    op.create_table(
        "service_keys",
        sa.Column("id", sa.String(64), primary_key=True),
        *_texts(("owner", 200), ("name", 200), ("digest", 64)),
        *_texts(("created_at", 32), ("revoked_at", 32)),
        sa.Column("quota_credits_per_day", sa.Float(), nullable=True),
        sa.Column("requests_per_minute", sa.Integer(), nullable=True),
    )
    op.create_index("service_keys_by_digest", "service_keys", ["digest"], unique=True)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE service_keys ENABLE ROW LEVEL SECURITY")
        op.execute("ALTER TABLE service_keys FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY own_rows ON service_keys USING ({_ADMIN} OR {_MINE})"
            f" WITH CHECK ({_ADMIN} OR {_MINE})"
        )


def downgrade() -> None:
    for table in ("service_keys", "rate_buckets", "leases"):  # policies go with their table
        op.drop_table(table)
